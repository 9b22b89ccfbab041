// Sums of what SNPs gain by being counted as valid at an effect theta:
// sum_j max(gain_j - (theta - r_j)^2 / (2 s_j^2), 0), over ratios r with errors s.
//
// With the gains of a contamination mixture: its profile log-likelihood above that of no valid
// SNP. With those of a prior over sets of SNPs: the log weight of the best set.
#pragma once

#include <cstddef>
#include <vector>

namespace mrfast {

struct SnpGains {
  std::size_t n = 0;
  const double* ratios = nullptr;
  const double* errors = nullptr;
  const double* gains = nullptr;  // a SNP without a positive gain is never valid
};

struct GainMaximum {
  double at = 0;     // NaN where no SNP gains
  double value = 0;  // 0 where no SNP gains
};

// The exact maximum: the sum is piecewise quadratic, and every local maximum the vertex of a piece.
GainMaximum largest_gain(const SnpGains& data);

// Ends of the intervals, ascending and apart, where the sum is at least `level`. Unbounded where
// the level is not above 0. Rounding is smallest near `centre`.
std::vector<double> gain_level_set(const SnpGains& data, double level, double centre);

}  // namespace mrfast
