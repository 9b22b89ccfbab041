#include "mrfast/regression.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mrfast/dispatch.hpp"
#include "mrfast/vector_math.hpp"

namespace mrfast {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kCollinear = 1e-12;  // relative spread below which |x| count as equal

}  // namespace

// ------------------------------------------------------------------------ one pair

OriginFit fit_origin(const double* x, const double* y, const double* s, std::size_t n) {
  double sxx = 0, sxy = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double a = x[j] / s[j], b = y[j] / s[j];
    sxx += a * a;
    sxy += a * b;
  }
  const double slope = n == 1 ? y[0] / x[0] : sxy / sxx;
  double q = 0;
  for (std::size_t j = 0; n > 1 && j < n; ++j) {
    const double e = (y[j] - slope * x[j]) / s[j];
    q += e * e;
  }
  return {slope, sxx, q};
}

LineFit fit_line(const double* x, const double* y, const double* s, std::size_t n) {
  double total = 0, sum_x = 0, sum_y = 0, size = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double w = 1.0 / (s[j] * s[j]), a = std::fabs(x[j]), b = x[j] < 0 ? -y[j] : y[j];
    total += w;
    sum_x += w * a;
    sum_y += w * b;
    size += w * a * a;
  }
  const double mean_x = sum_x / total, mean_y = sum_y / total;
  double sxx = 0, sxy = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double w = 1.0 / (s[j] * s[j]), a = std::fabs(x[j]) - mean_x;
    sxx += w * a * a;
    sxy += w * a * ((x[j] < 0 ? -y[j] : y[j]) - mean_y);
  }
  if (!(sxx > kCollinear * size)) return {kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, false};
  const double slope = sxy / sxx;
  double q = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double a = std::fabs(x[j]) - mean_x, b = (x[j] < 0 ? -y[j] : y[j]) - mean_y;
    const double e = (b - slope * a) / s[j];
    q += e * e;
  }
  return {slope,         mean_y - slope * mean_x,
          1.0 / sxx,     1.0 / total + mean_x * mean_x / sxx,
          -mean_x / sxx, q,
          true};
}

double mean_square_ratio(const double* x, const double* s, std::size_t n) {
  double sum = 0;
  for (std::size_t j = 0; j < n; ++j) sum += (x[j] / s[j]) * (x[j] / s[j]);
  return sum / static_cast<double>(n);
}

double heterogeneity_of_size(const double* x, const double* s, const double* scale, std::size_t n) {
  double total = 0, sum = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double t = scale ? scale[j] : 1.0, w = (t / s[j]) * (t / s[j]);
    total += w;
    sum += w * std::fabs(x[j]) / t;
  }
  const double mean = sum / total;
  double q = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double t = scale ? scale[j] : 1.0, e = (std::fabs(x[j]) / t - mean) * t / s[j];
    q += e * e;
  }
  return q;
}

// ------------------------------------------------------------------------ many pairs

namespace {

// Share of the total sum of squares below which Q is summed anew: differences of sums carry the
// rounding of by^2/sy^2, residuals only that of by/sy.
template <class Real>
constexpr double kCancelled = sizeof(Real) == 4 ? 1e-3 : 1e-8;
constexpr std::size_t kSums = 6;  // w, |bx| w, bx^2 w, sign by w, bx by w, by^2 w

struct alignas(64) Sums {
  double s[kSums][kWidest];
  double n[kWidest];
};

// Adds `Rows` SNPs of a block to the sums, turned so that the exposure association is positive.
template <class Real, std::size_t Rows>
MRFAST_INLINE void add_rows(const Real* block, std::size_t stride, const std::int64_t* rows,
                            const double* bx, std::size_t width, Sums& sums) {
  const Real *w[Rows], *p[Rows], *q[Rows];
  double x[Rows], g[Rows];
  for (std::size_t k = 0; k < Rows; ++k) {
    w[k] = block + static_cast<std::size_t>(rows[k]) * 3 * stride;
    p[k] = w[k] + stride;
    q[k] = p[k] + stride;
    x[k] = std::fabs(bx[k]);
    g[k] = bx[k] < 0 ? -1.0 : 1.0;
  }
  double *const s0 = sums.s[0], *const s1 = sums.s[1], *const s2 = sums.s[2];
  double *const s3 = sums.s[3], *const s4 = sums.s[4], *const s5 = sums.s[5];
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#elif defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#endif
  for (std::size_t o = 0; o < width; ++o) {
    double t0 = s0[o], t1 = s1[o], t2 = s2[o], t3 = s3[o], t4 = s4[o], t5 = s5[o];
    for (std::size_t k = 0; k < Rows; ++k) {
      const double a = static_cast<double>(w[k][o]), b = g[k] * static_cast<double>(p[k][o]);
      const double xa = x[k] * a;
      t0 += a;
      t1 += xa;
      t2 += x[k] * xa;
      t3 += b;
      t4 += x[k] * b;
      t5 += static_cast<double>(q[k][o]);
    }
    s0[o] = t0, s1[o] = t1, s2[o] = t2, s3[o] = t3, s4[o] = t4, s5[o] = t5;
  }
}

template <class Real>
MRFAST_INLINE void sum_block(const Real* block, std::size_t stride, const std::int64_t* rows,
                             const double* bx, std::size_t j, std::size_t width, bool counted,
                             Sums& sums) {
  for (auto& plane : sums.s) std::fill(plane, plane + width, 0.0);
  std::size_t k = 0;
  for (; k + 4 <= j; k += 4) add_rows<Real, 4>(block, stride, rows + k, bx + k, width, sums);
  for (; k < j; ++k) add_rows<Real, 1>(block, stride, rows + k, bx + k, width, sums);
  std::fill(sums.n, sums.n + width, counted ? 0.0 : static_cast<double>(j));
  for (k = 0; counted && k < j; ++k) {
    const Real* const w = block + static_cast<std::size_t>(rows[k]) * 3 * stride;
    for (std::size_t o = 0; o < width; ++o) sums.n[o] += w[o] > Real{0} ? 1.0 : 0.0;
  }
}

MRFAST_INLINE void finish_block(const Sums& sums, std::size_t width, double* const* out) {
  double *const o0 = out[0], *const o1 = out[1], *const o2 = out[2], *const o3 = out[3];
  double *const o4 = out[4], *const o5 = out[5], *const o6 = out[6], *const o7 = out[7];
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#elif defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#endif
  for (std::size_t o = 0; o < width; ++o) {
    const double s = sums.s[0][o], sx = sums.s[1][o], sxx = sums.s[2][o];
    const double sy = sums.s[3][o], sxy = sums.s[4][o], syy = sums.s[5][o], n = sums.n[o];
    const double theta = sxy / sxx, q = std::max(0.0, syy - theta * sxy);
    const double df = std::max(1.0, n - 1);
    const bool any = sxx > 0;
    o0[o] = any ? theta : kNaN;
    o1[o] = any ? std::sqrt(std::max(1.0, q / df) / sxx) : kNaN;
    o2[o] = any ? q : kNaN;
    const double determinant = s * sxx - sx * sx;
    const bool line = n >= 3 && determinant > kCollinear * s * sxx;
    const double inverse = 1.0 / (line ? determinant : 1.0);
    const double slope = (s * sxy - sx * sy) * inverse, intercept = (sxx * sy - sx * sxy) * inverse;
    const double rest = std::max(0.0, syy - intercept * sy - slope * sxy);
    const double scale = std::max(1.0, rest / std::max(1.0, n - 2)) * inverse;
    o3[o] = line ? slope : kNaN;
    o4[o] = line ? std::sqrt(s * scale) : kNaN;
    o5[o] = line ? intercept : kNaN;
    o6[o] = line ? std::sqrt(sxx * scale) : kNaN;
    o7[o] = line ? rest : kNaN;
  }
}

// Q summed over residuals, and standard errors from it, where the difference of sums has cancelled.
template <class Real>
void mend(const Real* block, std::size_t stride, const std::int64_t* rows, const double* bx,
          std::size_t j, std::size_t width, const Sums& sums, double* const* out) {
  for (std::size_t o = 0; o < width; ++o) {
    const double limit = kCancelled<Real> * sums.s[5][o], n = sums.n[o];
    if (!(out[kIvwQ][o] < limit || out[kEggerQ][o] < limit)) continue;
    const auto residual = [&](double slope, double intercept) {
      double q = 0;
      for (std::size_t k = 0; k < j; ++k) {
        const Real* const row = block + static_cast<std::size_t>(rows[k]) * 3 * stride + o;
        const double w = static_cast<double>(row[0]);
        if (!(w > 0)) continue;
        const double g = bx[k] < 0 ? -1.0 : 1.0, x = std::fabs(bx[k]);
        const double e = g * static_cast<double>(row[stride]) - w * (intercept + slope * x);
        q += e * e / w;
      }
      return q;
    };
    if (out[kIvwQ][o] < limit) {
      const double q = n > 1 ? residual(out[kIvw][o], 0.0) : 0.0;
      out[kIvwQ][o] = q;
      out[kIvwError][o] = std::sqrt(std::max(1.0, q / std::max(1.0, n - 1)) / sums.s[2][o]);
    }
    if (out[kEggerQ][o] < limit) {
      const double s = sums.s[0][o], sx = sums.s[1][o], sxx = sums.s[2][o];
      const double q = residual(out[kEgger][o], out[kIntercept][o]);
      const double scale = std::max(1.0, q / std::max(1.0, n - 2)) / (s * sxx - sx * sx);
      out[kEggerQ][o] = q;
      out[kEggerError][o] = std::sqrt(s * scale);
      out[kInterceptError][o] = std::sqrt(sxx * scale);
    }
  }
}

MRFAST_DISPATCH void run_float(const float* block, std::size_t stride, const std::int64_t* rows,
                               const double* bx, std::size_t j, std::size_t width, bool counted,
                               Sums& sums, double* const* out) {
  sum_block(block, stride, rows, bx, j, width, counted, sums);
  finish_block(sums, width, out);
}
MRFAST_DISPATCH void run_double(const double* block, std::size_t stride, const std::int64_t* rows,
                                const double* bx, std::size_t j, std::size_t width, bool counted,
                                Sums& sums, double* const* out) {
  sum_block(block, stride, rows, bx, j, width, counted, sums);
  finish_block(sums, width, out);
}

template <class Real>
void all_pairs(const OutcomePanel<Real>& panel, const ExposureLists& lists, double* out,
               std::int32_t* counts, std::size_t threads, Monitor& monitor) {
  const std::size_t stride = panel.width;
  const std::size_t blocks = (panel.outcomes + stride - 1) / stride;
  const std::size_t plane = lists.exposures * panel.outcomes;
  parallel_for(blocks, threads, monitor, [&](std::size_t number) {
    const std::size_t from = number * stride, width = std::min(stride, panel.outcomes - from);
    const Real* const block = panel.data + number * panel.snps * 3 * stride;
    Sums sums;
    for (std::size_t e = 0; e < lists.exposures && !monitor.stopped(); ++e) {
      const auto start = static_cast<std::size_t>(lists.starts[e]);
      const auto j = static_cast<std::size_t>(lists.starts[e + 1]) - start;
      const std::int64_t* const rows = lists.rows + start;
      const double* const bx = lists.bx + start;
      double* at[kPairPlanes];
      for (std::size_t k = 0; k < kPairPlanes; ++k)
        at[k] = out + k * plane + e * panel.outcomes + from;
      if constexpr (sizeof(Real) == sizeof(float))
        run_float(block, stride, rows, bx, j, width, counts != nullptr, sums, at);
      else
        run_double(block, stride, rows, bx, j, width, counts != nullptr, sums, at);
      mend(block, stride, rows, bx, j, width, sums, at);
      if (counts)
        for (std::size_t o = 0; o < width; ++o)
          counts[e * panel.outcomes + from + o] = static_cast<std::int32_t>(sums.n[o]);
      if (e % 64 == 63) monitor.step(64 * width);
    }
  });
}

}  // namespace

void fit_pairs(const OutcomePanel<float>& panel, const ExposureLists& lists, double* out,
               std::int32_t* counts, std::size_t threads, Monitor& monitor) {
  all_pairs(panel, lists, out, counts, threads, monitor);
}
void fit_pairs(const OutcomePanel<double>& panel, const ExposureLists& lists, double* out,
               std::int32_t* counts, std::size_t threads, Monitor& monitor) {
  all_pairs(panel, lists, out, counts, threads, monitor);
}

}  // namespace mrfast
