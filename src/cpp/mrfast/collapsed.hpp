// Log posterior of the five parameters of the whole model, summed over all 2^J spike-and-slab
// models with every effect integrated out.
//
// a_j = h1_j / sqrt(S11) and b_j = h2_j / sqrt(S22.1) are the coefficients of X and Y on the
// standardised candidates; noise covariance of (a_j, b_j) by n11, n22, n12. Given the residual
// covariance (d1 = log Sigma11/S11, m = Sigma12/Sigma11, d3 = log Sigma22.1/S22.1), the effect beta
// and the position u on the level set of the confounding coordinate c = (m - beta) / eta,
//   a ~ N(0, C),  b - Lambda a | a ~ spike or slab normal with variance V_spike or V_slab:
// after conditioning on the exposure, the outcome is a one-dimensional two-component mixture.
#pragma once

#include <cstddef>
#include <vector>

#include "mrfast/collapsed_blocks.hpp"
#include "mrfast/jet.hpp"

namespace mrfast {

// Priors of the scale-free parameters; slab and spike are variances.
struct ScaleFreePrior {
  double slab = 1, spike = 1e-4;
  double effect_sd = 10, confounding_sd = 10, scale_power = 0;
};

// Candidates with one noise law, side by side in memory and padded to whole lanes.
struct NoiseGroup {
  double n11 = 0, n22 = 0, n12 = 0;
  double ratio = 0, excess = 0;  // n12 / n11, n22 - n12^2 / n11
  std::size_t begin = 0, size = 0;
  double sum_a2 = 0;
};

struct AssociationData {
  // As given, in the candidates' order.
  std::size_t size = 0;
  std::vector<double> h1, h2, n11, n22, n12;
  std::vector<double> log_odds;         // of slab against spike
  std::vector<CorrelatedBlock> blocks;  // members, eigenvalues, eigenvectors; the rest is derived
  double s11 = 1, slope = 0, s221 = 1;
  double n1 = 0, n2 = 0, n_shared = 0;  // people behind the residual variances
  double n_slope = 0;                   // people whose own slope is m_hat
  double slope_precision = 0;           // 1 / var of an external estimate of m
  // Derived.
  double eta = 1;
  std::vector<std::size_t> order;  // sorted position -> candidate in no block
  std::vector<NoiseGroup> groups;
  std::vector<double> a, b, odds, na, nb, nr, nq;  // sorted, padded; noise per candidate
  double log_spikes = 0;                           // sum of log P(spike), candidates in no block
  double least_odds = 1;                           // of slab against spike
  double constant = 0;                             // of the log evidence, without the prior's
  double sd_slope = 0;                             // of m given all residual variances
  bool grouped = true;  // few noise laws: closed derivatives; otherwise differences

  void prepare();
  double likeliest_d3(double m) const;  // m in units of eta

 private:
  double variance_precision() const;
};

// Where the log density is evaluated; d1 and d3 are small.
template <class S>
struct Point {
  S beta, m, u, d1, d3;  // beta and m in units of eta_hat
};

// k_X^2, k_Y^2 on the level set of c at u.
template <class S>
struct Confounding {
  S kx2, ky2, k1, k2;
};
template <class S>
Confounding<S> confounding(const S& c, const S& u);

// Weighted sums over points, per sorted candidate: P(slab), first and second moments of the effects
// on the exposure and of the direct effects on the outcome.
struct NodeMoments {
  std::vector<double> inclusion, first, first2, direct, direct2;
};

class CollapsedPosterior {
 public:
  CollapsedPosterior(const AssociationData& data, const ScaleFreePrior& prior);

  // Log density with respect to d(beta) d(m) d(d1) d(d3) d(u), beta and m in the units of the data,
  // on the half plane k_X > 0; the constants of part of the evidence are in log_constant().
  double value(const Point<double>& at) const;
  void values(const Point<double>* at, std::size_t n, double* out) const;
  template <std::size_t D>
  Jet<D> expand(const Point<Jet<D>>& at) const;
  // Gradient and Hessian by (d1, d3): in closed form, or by differences.
  Jet<2> curvature(double beta, double m, double u, double d1, double d3) const;

  // Adds weight times the candidates' conditional moments (a, b scale) at a point.
  void accumulate(const Point<double>& at, double weight, NodeMoments& out) const;
  // Per candidate (in the given order): P(slab), and for spike and slab the mean and variance of
  // alpha and of gamma (with their covariance), for draws. Rows of 11.
  void conditional(const Point<double>& at, double* out) const;

  bool closed_form() const { return data_.grouped && data_.blocks.empty(); }
  // A draw of the effects of the candidates in blocks, into the given order: a uniform per block,
  // three normals per member.
  void draw_blocks(const Point<double>& at, const double* uniforms, const double* normals,
                   bool* slab, double* first, double* direct) const;

  double log_constant() const { return constant_; }
  const AssociationData& data() const { return data_; }
  const ScaleFreePrior& prior() const { return prior_; }

  // The step of differences in d1 and d3.
  double difference() const;

 private:
  double independent(const Point<double>& at) const;
  Jet<2> grouped_curvature(double beta, double m, double u, double d1, double d3) const;
  template <class S>
  S common(const Point<S>& at, const Confounding<S>& k) const;

  const AssociationData& data_;
  ScaleFreePrior prior_;
  double constant_ = 0;
};

}  // namespace mrfast
