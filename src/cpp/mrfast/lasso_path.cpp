#include "mrfast/lasso_path.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mrfast/small.hpp"

namespace mrfast {

namespace {

constexpr double kDependent = 1e-12;      // of a pivot over its column's square
constexpr std::size_t kStepsPerSnp = 50;  // far beyond what paths take: ends a cycle of ties

}  // namespace

LassoPath lasso_path(std::size_t n, std::size_t k, const double* x, const double* y,
                     const double* scale, double lowest, Monitor& monitor) {
  LassoPath path;
  std::vector<int> sign(n, 0);
  std::vector<double> gram, full, estimate(k), slope(k);
  std::size_t valid = n, snp = n;
  double penalty = std::numeric_limits<double>::infinity(), smallest = 0;
  for (std::size_t step = 0; step <= kStepsPerSnp * n && !monitor.step(); ++step) {
    gram.assign(k * k, 0.0);
    std::fill(estimate.begin(), estimate.end(), 0.0);
    std::fill(slope.begin(), slope.end(), 0.0);
    for (std::size_t j = 0; j < n; ++j) {
      const double* row = x + j * k;
      if (sign[j]) {
        for (std::size_t p = 0; p < k; ++p) slope[p] += sign[j] * scale[j] * row[p];
        continue;
      }
      for (std::size_t p = 0; p < k; ++p) {
        estimate[p] += row[p] * y[j];
        for (std::size_t q = 0; q <= p; ++q) gram[p * k + q] += row[p] * row[q];
      }
    }
    full = gram;
    if (!cholesky_in_place(gram, k)) break;
    bool dependent = false;
    for (std::size_t p = 0; p < k; ++p)
      dependent |= !(gram[p * k + p] * gram[p * k + p] > kDependent * full[p * k + p]);
    if (dependent) break;
    cholesky_solve_in_place(gram, k, estimate.data());
    cholesky_solve_in_place(gram, k, slope.data());

    // The next penalty, going down, at which a residual meets its threshold.
    double q = 0, next = -1;
    std::size_t meets = n;
    int becomes = 0;
    for (std::size_t j = 0; j < n; ++j) {
      double a = y[j], b = 0;  // residual a + b * penalty
      for (std::size_t p = 0; p < k; ++p) {
        a -= x[j * k + p] * estimate[p];
        b -= x[j * k + p] * slope[p];
      }
      if (!sign[j]) q += a * a;
      if (!std::isfinite(scale[j]) || (!sign[j] && valid <= k)) continue;
      for (int s = -1; s <= 1; s += 2) {
        if (sign[j] && s != sign[j]) continue;
        const double rate = scale[j] - s * b;  // of s * residual - threshold, as the penalty falls
        if (sign[j] ? !(rate < 0) : !(rate > 0)) continue;
        const double at = std::min(s * a / rate, penalty);
        if (at > next) {
          next = at;
          meets = j;
          becomes = sign[j] ? 0 : s;
        }
      }
    }
    path.penalty.push_back(penalty);
    path.estimate.insert(path.estimate.end(), estimate.begin(), estimate.end());
    path.slope.insert(path.slope.end(), slope.begin(), slope.end());
    path.q.push_back(q);
    path.valid.push_back(static_cast<std::int64_t>(valid));
    path.changed.push_back(snp < n ? static_cast<std::int64_t>(snp) : -1);
    path.sign.push_back(snp < n ? sign[snp] : 0);
    if (step == 0) smallest = lowest * next;
    if (meets == n || !(next > 0) || next < smallest) break;
    penalty = next;
    snp = meets;
    sign[snp] = becomes;
    valid = becomes ? valid - 1 : valid + 1;
  }
  return path;
}

}  // namespace mrfast
