// All sets of SNPs as instruments, each with its weight: heterogeneity-penalised averaging.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/parallel.hpp"

namespace mrfast {

inline constexpr std::size_t kMostSubsetSnps = 30;

struct NormalPart {
  double weight, mean, variance;
};

struct SubsetMixture {
  double log_scale = 0;  // weights are relative to its exponential
  std::uint64_t models = 0;
  std::vector<NormalPart> parts;  // ascending means
};

// The mixture over sets S of at least `smallest` of n ratios: weight prod_S (prior / s_j)
// prod_not S (1 - prior) exp(-Q_S / 2), mean that of inverse-variance weighting, variance
// max(1, Q_S / (|S| - 1)) / sum_S 1 / s_j^2. Sets far below the best one are left out: all
// together they weigh at most e^-16 of it. Beyond 12 SNPs, sets of nearly the same variance and
// mean are merged into one part with their common moments. False: stopped.
bool subset_mixture(std::size_t n, const double* ratios, const double* errors, double prior,
                    std::size_t smallest, Monitor& monitor, SubsetMixture& out);

}  // namespace mrfast
