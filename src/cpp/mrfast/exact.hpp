// Posterior under MASSIVE's prior by quadrature, the sum over all 2^J models being exact.
//
// Outermost the causal effect, on Gauss-Kronrod panels that adapt; then m, the slope of the
// residuals, by a rule that knows the singularity at m = beta (no confounding); then u, the
// position on the level set of the confounding coordinate, by the trapezoid rule; innermost the two
// residual variances, by Laplace's method. At a fixed effect every sharp term of the likelihood is
// fixed too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/collapsed.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

struct ExactNode {
  double beta, m, u, d1, d3;  // beta and m in units of eta_hat
  double log_weight;          // of the integral over everything, once finished
  double l00, l10, l11;       // Cholesky factor of the precision of (d1, d3)
  double step;                // width of u's cell
  std::uint32_t effect;       // which value of beta
};

// The inner integral at one value of the effect.
struct EffectNode {
  double beta = 0;         // units of eta_hat
  double log_density = 0;  // with respect to beta in these units, log_constant() not included
  double weight = 0;       // quadrature weight
  double log_slope = 0;    // log of E[d beta / d b]
  std::vector<ExactNode> nodes;
};

struct ExactOptions {
  double tolerance = 5e-5;  // relative error of the integral over beta
  std::size_t max_panels = 400;
  std::size_t threads = 1;
};

struct Panel {
  double lower, upper;  // units of eta_hat
  double log_integral = 0, log_error = 0;
  std::vector<EffectNode> points;
};

struct ExactReport {
  double log_evidence = 0;
  double quadrature_error = 0;  // relative
  bool converged = false;
  std::vector<Panel> panels;  // in the order of beta
  EffectNode zero;            // at beta = 0
};

class ExactIntegrator {
 public:
  ExactIntegrator(const AssociationData& data, const ScaleFreePrior& prior);

  ExactReport run(const ExactOptions& options, Monitor& monitor) const;
  // Inner integral at one effect (units of eta_hat); not to be used once the monitor has stopped.
  EffectNode effect(double beta, Monitor* monitor = nullptr) const;
  const CollapsedPosterior& posterior() const { return posterior_; }

 private:
  struct Inner;
  double profile(double beta) const;
  double refined_maximum(double beta, double m) const;
  void inner(double beta, double m, double log_weight, Inner& state, std::vector<ExactNode>& out,
             Monitor* monitor) const;
  bool laplace(double beta, double m, double u, double step, double log_weight, double& d1,
               double& d3, std::vector<ExactNode>& out) const;
  void beside(double u, const ExactNode& known, double log_weight,
              std::vector<ExactNode>& out) const;
  double reach(double c) const;

  const AssociationData& data_;
  CollapsedPosterior posterior_;
  double sd_;  // of m, units of eta_hat
};

struct Certificate {
  double log_mean = 0, std_error = 0, effective = 0;  // of the importance ratios; ESS / draws
  std::size_t draws = 0;
};

// Importance sampling of the two residual variances around every node, on a fixed stream.
Certificate certify(const CollapsedPosterior& posterior, const std::vector<ExactNode>& nodes,
                    std::size_t draws, std::size_t threads, Monitor& monitor);

}  // namespace mrfast
