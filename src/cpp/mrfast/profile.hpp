// The log posterior of one spike-and-slab model as a function of five parameters.
//
// Given phi = (b, kX, kY, lX, lY) = (scale-free effect, confounding of X and Y, log sigma_X,
// log sigma_Y), the 2J scale-free first-stage and pleiotropic effects are Gaussian, so their
// maximum and the curvature there are closed forms. With B = the regression coefficients of
// X / sigma_X and Y / sigma_Y - b X / sigma_X on the candidates and Omega = I + k k':
//   profile(phi) = -N/2 [log |Sigma| + tr(Sigma^-1 S)] - 1/2 B' C^-1 B + log prior(phi) + const,
//   C = Omega (x) A^-1 / N + diag(slab^2, spike^2 or slab^2).
// Sources: Bucur, Claassen, Heskes (2020), PMLR 124, equations 2 and 3; docs/massive.md.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/jet.hpp"
#include "mrfast/small.hpp"

namespace mrfast {

enum Parameter : std::size_t { kEffect = 0, kKappaX = 1, kKappaY = 2, kLogX = 3, kLogY = 4 };

// Indicators of a model, one bit per candidate, set = slab.
using Bits = std::vector<std::uint64_t>;
inline bool bit(const Bits& bits, std::size_t j) { return (bits[j / 64] >> (j % 64)) & 1u; }
inline void flip(Bits& bits, std::size_t j) { bits[j / 64] ^= std::uint64_t{1} << (j % 64); }
inline std::size_t words(std::size_t n_candidates) { return (n_candidates + 63) / 64; }

// Sufficient statistics; the Python class Sufficient documents them.
struct Statistics {
  std::size_t size = 0;  // J
  double n = 0;
  std::vector<double> noise, h1, h2;  // (J), per direction
  double s11 = 0, slope = 0, s221 = 0;
  std::vector<double> rotation;        // (J, J) row by row, or empty
  std::vector<double> mean_direction;  // (J), or empty
  double mean_x = 0, mean_y = 0;
  double pleiotropy_slope = 0;  // least-squares slope of the per-unit effects on Y on those on X

  // Derived by prepare(): the same per candidate (a surrogate where candidates are correlated).
  std::vector<double> candidate_noise, candidate_h1, candidate_h2;
  bool uniform_noise = false;
  double sum_log_noise = 0;

  void prepare();
  double eta() const { return std::sqrt(s221 / s11); }
  double standardised_slope() const { return slope / eta(); }
};

struct Prior {
  double slab_variance = 0, spike_variance = 0, effect_variance = 0, confounding_variance = 0;
  double scale_power = 0;
};

// Residual covariance Sigma of (X, Y) given G: log Sigma_11, Sigma_12 / Sigma_11, and the log of
// the variance of Y given X and G.
struct Residual {
  double w1, slope, w3;
};

// -N/2 [log |Sigma| + tr(Sigma^-1 S)] against its maximum, without cancellation, with derivatives
// by (w1, slope, w3).
struct ResidualTerm {
  double value;
  Vector<3> gradient;
  Matrix<3> hessian;
  ResidualTerm(const Statistics& s, const Residual& sigma);
};

struct Evaluation {
  double value = 0;  // without constant()
  Vector<5> gradient{};
  Matrix<5> hessian{};
};

// Quantities of phi that every term shares.
struct Confounding {
  double kx, ky, k1, o22, o12, k2;
  explicit Confounding(const Vector<5>& p)
      : kx(p[kKappaX]),
        ky(p[kKappaY]),
        k1(1 + kx * kx),
        o22(1 + ky * ky),
        o12(kx * ky),
        k2(1 + kx * kx + ky * ky) {}
};

// Sums over candidates that share noise and prior variances. A single candidate has count 1.
struct Component {
  double noise, slab_variance, variance, count;
  double h11 = 0, h12 = 0, h22 = 0;  // sums of products of coefficients
  double f1 = 0, f2 = 0, mu2 = 0;    // sums of mean x coefficient, mean squared

  void add(double h1, double h2, double mu) {
    count += 1;
    h11 += h1 * h1;
    h12 += h1 * h2;
    h22 += h2 * h2;
    f1 += mu * h1;
    f2 += mu * h2;
    mu2 += mu * mu;
  }
};

// -1/2 tr(C^-1 G), C = noise Omega + diag(slab, variance), G = sum B B', added to an evaluation.
// The entries of G and what their derivatives need, with a = h1 / sigma_X, d = h2 / sigma_Y:
struct Products {
  double aa, ad, dd, g12, g22, e;  // sums of a a, a d, d d, a (d - b a), (d - b a)^2, d (d - b a)
};

void add_component(const Component& c, const Products& g, const Confounding& k, double b,
                   double sign, Evaluation& out);
double component_log_determinant(const Component& c, const Confounding& k);
Products component_products(const Component& c, const Vector<5>& p);

class Profile {
 public:
  Profile(const Statistics& statistics, const Prior& prior, const Bits& model);

  // The profile is the residual term, which depends on the residual covariance of (X, Y) given G
  // alone, plus the rest: prior and effects.
  Evaluation evaluate(const Vector<5>& p) const;
  Evaluation evaluate_rest(const Vector<5>& p) const;
  // Log of the Laplace term of the mode at p, without log 2 for its mirror image:
  // evaluation.value + this, where -hessian is positive definite with the given log determinant.
  double log_laplace_remainder(const Vector<5>& p, double log_det_negative_hessian) const;
  // Log posterior density at the inner optimum is evaluation.value + log_density_constant().
  double log_density_constant() const;
  // Inner optimum: scale-free first-stage and pleiotropic effects, (2, J).
  void effects(const Vector<5>& p, double* gamma, double* alpha) const;

  const Statistics& statistics() const { return *statistics_; }
  const Prior& prior() const { return *prior_; }
  std::size_t n_slab() const { return slab_.size(); }
  bool in_slab(std::size_t j) const { return bit(model_, j); }
  const std::vector<Component>& components() const { return components_; }
  bool diagonal() const { return statistics_->rotation.empty(); }

  // Turns rows of standard normals into draws of all 2 J + 5 parameters from the normal law at the
  // mode p, at the beginning of each row: the five from their marginal law with covariance
  // root root', then the effects given them. Rows hold draw_width() numbers. Not for raw moments
  // with a mean term.
  std::size_t draw_width() const {
    return (diagonal() ? 2 * statistics_->size : 4 * statistics_->size) + 5;
  }
  void draw(const Vector<5>& p, const Matrix<5>& root, double* rows, std::size_t count) const;

  // For the neighbours of a model with correlated candidates: conditional deviance of each
  // candidate's pleiotropic effect at p, z_j = (C^-1 B)_j and s_j = (C^-1)_jj.
  void pleiotropy_scores(const Vector<5>& p, double* z, double* s) const;

 private:
  struct Dense;  // factorisation for correlated candidates

  void add_residual(const Vector<5>& p, Evaluation& out) const;
  void draw_correlated(const Vector<5>& p, const Matrix<5>& root, double* rows,
                       std::size_t count) const;
  template <class T>
  void mean_term(const std::array<T, 5>& p, T& value, T& log_determinant) const;
  double dense(const Vector<5>& p, Evaluation* out, double* log_determinant) const;
  double variance(std::size_t j) const {
    return bit(model_, j) ? prior_->slab_variance : prior_->spike_variance;
  }

  const Statistics* statistics_;
  const Prior* prior_;
  Bits model_;
  std::vector<std::size_t> slab_;  // candidates in the slab
  std::vector<Component> components_;
};

}  // namespace mrfast
