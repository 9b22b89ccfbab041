// Constrained maximum likelihood with K invalid SNPs, for every K at once.
// Xue, Shen, Pan (2021), doi:10.1016/j.ajhg.2021.05.014; Lin, Xue, Pan (2023),
// doi:10.1016/j.ajhg.2023.02.014.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mrfast/parallel.hpp"
#include "mrfast/random.hpp"

namespace mrfast {

// With the true exposure associations profiled out, a valid SNP contributes
//   q(theta) = (y - theta'x)^2 / var(y - theta'x)
// to -2 log-likelihood, an invalid one nothing: F_K(theta) sums the J - K smallest.
struct ConstrainedData {
  std::size_t snps;
  std::size_t exposures;
  const double* beta_exposure;  // (snps, exposures)
  const double* se_exposure;    // (snps, exposures)
  const double* beta_outcome;
  const double* se_outcome;
  const double* correlation;  // (exposures + 1)^2, of the errors of one SNP, the outcome last
};

// Effects at which the searches look first, (count, exposures).
struct ConstrainedStarts {
  std::size_t count;
  const double* effects;
};

// Number of models: K = 0, ..., snps - exposures - 1.
inline std::size_t constrained_count(const ConstrainedData& data) {
  return data.snps - data.exposures;
}

// For every K the effects (models, exposures), F_K, and the curvature of F_K / 2
// (models, exposures, exposures).
void constrained_models(const ConstrainedData& data, const ConstrainedStarts& starts,
                        double* effects, double* deviance, double* curvature, Monitor& monitor);

// Draws of the data about themselves: of each the effects of the model with the least
// BIC_K = F_K + K penalty, and their average over the models, weight exp(-BIC_K / 2);
// both (draws, exposures). Models whose BIC lies `cutoff` or more above the least are left out.
void constrained_draws(const ConstrainedData& data, const ConstrainedStarts& starts, double penalty,
                       double cutoff, Philox::Key key, std::size_t draws, std::size_t threads,
                       double* averaged, double* selected, Monitor& monitor);

}  // namespace mrfast
