// Lasso on the intercepts of SNPs: all solutions, as a function of the penalty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/parallel.hpp"

namespace mrfast {

// Pieces of the path, from large penalties to small ones. In piece i, for penalties from
// penalty[i + 1] to penalty[i], the valid SNPs stay the same and the coefficients are
// estimate + penalty * slope.
struct LassoPath {
  std::vector<double> penalty;        // (m,), infinite first
  std::vector<double> estimate;       // (m, k): least squares on the valid SNPs
  std::vector<double> slope;          // (m, k)
  std::vector<double> q;              // (m,): squared residuals of that least-squares fit
  std::vector<std::int64_t> valid;    // (m,): number of valid SNPs
  std::vector<std::int64_t> changed;  // (m,): the SNP that changes between pieces i - 1 and i; -1
  std::vector<std::int64_t> sign;     // (m,): its new sign, 0 when valid
};

// Minimises sum (y - a - x'b)^2 / 2 + penalty * sum scale_j |a_j| over a and b, for every penalty
// down to `lowest` times the first at which a SNP gets an intercept: the path of a Huber
// regression with thresholds penalty * scale_j. x is (n, k), row by row; a SNP of infinite scale
// has no intercept. No pieces: the columns of x are dependent.
LassoPath lasso_path(std::size_t n, std::size_t k, const double* x, const double* y,
                     const double* scale, double lowest, Monitor& monitor);

}  // namespace mrfast
