#include "mrfast/ratio_mode.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "mrfast/dispatch.hpp"
#include "mrfast/median.hpp"
#include "mrfast/vector8.hpp"

namespace mrfast {

namespace {

constexpr double kMadScale = 1.4826;
constexpr double kSmallestBandwidth = 1e-8;
constexpr std::size_t kPoints = 512;    // of the grid
constexpr double kCut = 3;              // bandwidths beyond the ends
constexpr std::size_t kRun = 16;        // points in a row that are evaluated together
constexpr double kReach = 9;            // bandwidths from which a kernel counts nothing
constexpr double kFineStep = 1.0 / 64;  // of the exact mode, in bandwidths
constexpr std::size_t kMostPoints = std::size_t{1} << 24;
constexpr std::size_t kDraws = 64;  // of one piece of work

double median_of(std::vector<double>& v) {
  const std::size_t half = v.size() / 2;
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(half);
  std::nth_element(v.begin(), middle, v.end());
  if (v.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(v.begin(), middle)) / 2;
}

double rule(double sd, double mad, std::size_t n, double factor) {
  const double spread = std::min(sd, kMadScale * mad);
  return std::max(kSmallestBandwidth,
                  factor * 0.9 * spread / std::pow(static_cast<double>(n), 0.2));
}

// A few Newton steps on the slope of the log density, from next to its maximum.
double polish(const double* ratios, std::size_t stride, const double* weights, std::size_t n,
              double h, double t) {
  for (int i = 0; i < 6; ++i) {
    double sum = 0, slope = 0, curve = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const double u = (ratios[stride * j] - t) / h;
      if (std::abs(u) > kReach) continue;
      const double k = weights[j] * std::exp(-0.5 * u * u);
      sum += k;
      slope += k * u;
      curve += k * (u * u - 1);
    }
    if (!(curve < 0) || !(sum > 0)) return t;
    const double step = std::min(2 * kFineStep, std::max(-2 * kFineStep, -slope / curve));
    t += step * h;
    if (std::abs(step) < 1e-12) break;
  }
  return t;
}

#if defined(__GNUC__) && !defined(__clang__)
#define MRFAST_UNROLL _Pragma("GCC unroll 16")
#elif defined(__clang__)
#define MRFAST_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MRFAST_UNROLL
#endif

// Where eight rows stand from the first of their points, in bandwidths, and the weight if any of
// their points is within reach (else 0, at 0).
MRFAST_INLINE void stand(const double* value, double weight, const Vector8& x0,
                         const Vector8& inverse, const Vector8& reach, Vector8& from,
                         Vector8& counts) {
#if defined(__GNUC__) || defined(__clang__)
  const Vector8 zero = {};
  Vector8 v;
  load(value, v);
  from = (x0 - v) * inverse;
  counts = from < zero + kReach ? zero + weight : zero;
  counts = from + reach > zero - kReach ? counts : zero;
  from = counts > zero ? from : zero;
#else
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double u = (x0.lane[l] - value[l]) * inverse.lane[l];
    const bool near = u < kReach && u + reach.lane[l] > -kReach;
    counts.lane[l] = near ? weight : 0.0;
    from.lane[l] = near ? u : 0.0;
  }
#endif
}

// Sums of weights exp(-(x0 + k e - r)^2 / 2) at k = 0, ..., 15 of eight rows, in bandwidths.
// kSmooth: the steps e are at most 1/2, and products of factors may stand for exponentials.
template <bool kSmooth>
MRFAST_INLINE void kernel_sums_of(const double* __restrict values, const double* __restrict weights,
                                  std::size_t n, const double* x0, const double* h, const double* e,
                                  double* __restrict sums) {
  double inverse[kLanes], reach[kLanes], factor[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) {
    inverse[l] = 1 / h[l];
    reach[l] = e[l] * static_cast<double>(kRun - 1);
    factor[l] = fast_exp(-e[l] * e[l]);
  }
  Vector8 sum[kRun], first, scale, length, ratio;
  for (auto& s : sum) fill(0.0, s);
  load(x0, first);
  load(inverse, scale);
  load(reach, length);
  load(factor, ratio);
  for (std::size_t j = 0; j < n; ++j) {
    Vector8 from, counts, g, q;
    stand(values + kLanes * j, weights[j], first, scale, length, from, counts);
    if (sum_of_lanes(counts) == 0) continue;
    double u[kLanes], weight[kLanes], kernel[kLanes], next[kLanes];
    store(from, u);
    store(counts, weight);
    if constexpr (kSmooth) {
      for (std::size_t l = 0; l < kLanes; ++l) {
        kernel[l] = weight[l] * fast_exp(-0.5 * u[l] * u[l]);
        next[l] = fast_exp(-e[l] * (u[l] + 0.5 * e[l]));
      }
      load(kernel, g);
      load(next, q);
      MRFAST_UNROLL
      for (std::size_t k = 0; k < kRun; ++k) {
        sum[k] += g;
        g = g * q;
        q = q * ratio;
      }
    } else {
      for (std::size_t k = 0; k < kRun; ++k) {
        for (std::size_t l = 0; l < kLanes; ++l) {
          const double at = u[l] + e[l] * static_cast<double>(k);
          kernel[l] = weight[l] * fast_exp(-0.5 * at * at);
        }
        load(kernel, g);
        sum[k] += g;
      }
    }
  }
  for (std::size_t k = 0; k < kRun; ++k) store(sum[k], sums + kLanes * k);
}

MRFAST_DISPATCH void smooth_sums(const double* values, const double* weights, std::size_t n,
                                 const double* x0, const double* h, const double* e, double* sums) {
  kernel_sums_of<true>(values, weights, n, x0, h, e, sums);
}

MRFAST_DISPATCH void direct_sums(const double* values, const double* weights, std::size_t n,
                                 const double* x0, const double* h, const double* e, double* sums) {
  kernel_sums_of<false>(values, weights, n, x0, h, e, sums);
}

void kernel_sums(const double* values, const double* weights, std::size_t n, const double* x0,
                 const double* h, const double* e, bool smooth, double* sums) {
  (smooth ? smooth_sums : direct_sums)(values, weights, n, x0, h, e, sums);
}

MRFAST_DISPATCH void moments_of_lanes(const double* __restrict values, std::size_t n, double* sd,
                                      double* smallest, double* largest) {
  double sum[kLanes] = {}, square[kLanes] = {};
  for (std::size_t l = 0; l < kLanes; ++l) smallest[l] = largest[l] = values[l];
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double v = values[kLanes * j + l];
      sum[l] += v;
      smallest[l] = v < smallest[l] ? v : smallest[l];
      largest[l] = v > largest[l] ? v : largest[l];
    }
  for (std::size_t l = 0; l < kLanes; ++l) sum[l] /= static_cast<double>(n);
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double d = values[kLanes * j + l] - sum[l];
      square[l] += d * d;
    }
  for (std::size_t l = 0; l < kLanes; ++l)
    sd[l] = std::sqrt(square[l] / static_cast<double>(n - 1));
}

MRFAST_DISPATCH void draw_values(const RatioSample& data, const NormalStream& stream,
                                 std::uint32_t first_draw, double* values) {
  for (std::size_t j = 0; j < data.n; j += 2) {
    double z[2][kLanes];
    normal_pairs(stream, static_cast<std::uint32_t>(j / 2), first_draw, z[0], z[1]);
    for (std::size_t i = 0; i < std::min<std::size_t>(2, data.n - j); ++i)
      for (std::size_t l = 0; l < kLanes; ++l)
        values[kLanes * (j + i) + l] = data.ratios[j + i] + data.errors[j + i] * z[i][l];
  }
}

MRFAST_DISPATCH void distances(const double* __restrict values, std::size_t n, const double* from,
                               double* __restrict out) {
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l)
      out[kLanes * j + l] = std::abs(values[kLanes * j + l] - from[l]);
}

// Modes of eight samples side by side. Every stride-th point first, at most half a bandwidth
// apart; as the density f of a maximum F falls no faster than F (1 - t^2 / 2) at t bandwidths
// (f'' >= -f / h^2), the maximum is next to a point whose f is not below that: only there all
// points are evaluated.
class ModeLanes {
 public:
  ModeLanes(const double* weights, std::size_t n, double factor, bool exact, double middle,
            double spread)
      : weights_(weights),
        n_(n),
        factor_(factor),
        exact_(exact),
        buffer_(kLanes * n),
        equal_(n, 1 / static_cast<double>(n)) {
    std::fill(middle_, middle_ + kLanes, middle);
    std::fill(spread_, spread_ + kLanes, spread);
  }

  // `coarse`: rows whose points are further apart than the bandwidth.
  void operator()(const double* values, double* modes, bool* coarse) {
    prepare(values);
    scan(values);
    refine(values);
    for (std::size_t l = 0; l < kLanes; ++l) {
      modes[l] = low_[l] + static_cast<double>(best_index_[l]) * step_[l];
      if (exact_) modes[l] = polish(values + l, kLanes, weights_, n_, h_[l], modes[l]);
      coarse[l] = step_[l] > h_[l];
    }
  }

 private:
  void prepare(const double* values) {
    double sd[kLanes], largest[kLanes], median[kLanes], mad[kLanes];
    moments_of_lanes(values, n_, sd, low_, largest);
    medians_(values, equal_.data(), n_, middle_, spread_, median);
    distances(values, n_, median, buffer_.data());
    medians_(buffer_.data(), equal_.data(), n_, spread_, spread_, mad);
    smooth_ = true;
    most_ = 0;
    for (std::size_t l = 0; l < kLanes; ++l) {
      h_[l] = rule(sd[l], mad[l], n_, factor_);
      low_[l] -= kCut * h_[l];
      const double range = largest[l] + kCut * h_[l] - low_[l];
      count_[l] = kPoints;
      step_[l] = range / static_cast<double>(kPoints - 1);
      if (exact_) {
        const double wanted = std::ceil(range / (h_[l] * kFineStep));
        count_[l] = static_cast<std::size_t>(
                        std::min(static_cast<double>(kMostPoints), std::max(1.0, wanted))) +
                    1;
        step_[l] = range / static_cast<double>(count_[l] - 1);
      }
      stride_[l] = static_cast<std::size_t>(std::max(1.0, std::floor(0.5 * h_[l] / step_[l])));
      points_[l] = (count_[l] - 2) / stride_[l] + 2;  // the last may lie beyond the end
      most_ = std::max(most_, points_[l]);
      spacing_[l] = static_cast<double>(stride_[l]) * step_[l];
      apart_[l] = spacing_[l] / h_[l];
      smooth_ = smooth_ && apart_[l] <= 0.5;
    }
  }

  void scan(const double* values) {
    most_ = (most_ + kRun - 1) / kRun * kRun;
    density_.resize(kLanes * most_);
    for (std::size_t k = 0; k < most_; k += kRun) {
      double x0[kLanes];
      for (std::size_t l = 0; l < kLanes; ++l)
        x0[l] = low_[l] + static_cast<double>(k) * spacing_[l];
      kernel_sums(values, weights_, n_, x0, h_, apart_, smooth_, density_.data() + kLanes * k);
    }
  }

  void refine(const double* values) {
    std::array<std::vector<std::size_t>, kLanes> runs;  // first points
    std::size_t rounds = 0;
    double fine[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) {
      double peak = -1;
      for (std::size_t k = 0; k < points_[l]; ++k) {
        const double f = density_[kLanes * k + l];
        if (f > peak) {
          peak = f;
          best_index_[l] = std::min(k * stride_[l], count_[l] - 1);
        }
      }
      fine[l] = step_[l] / h_[l];
      if (stride_[l] == 1) continue;
      const double t = apart_[l] / 2 + fine[l];
      const double enough = peak * (1 - 0.55 * t * t);
      const std::size_t half = stride_[l] / 2 + 1;
      std::size_t next = 0;  // the first point that is not in a run yet
      for (std::size_t k = 0; k < points_[l]; ++k) {
        if (density_[kLanes * k + l] < enough) continue;
        const std::size_t at = k * stride_[l];
        const std::size_t end = std::min(count_[l], at + half + 1);
        next = std::max(next, at > half ? at - half : 0);
        for (; next < end; next += kRun) runs[l].push_back(next);
      }
      rounds = std::max(rounds, runs[l].size());
    }
    double best[kLanes];
    std::fill(best, best + kLanes, -1.0);
    bool smooth = true;
    for (std::size_t l = 0; l < kLanes; ++l) {
      if (runs[l].empty()) fine[l] = 0;  // nothing is asked of this row
      smooth = smooth && fine[l] <= 0.5;
    }
    for (std::size_t r = 0; r < rounds; ++r) {
      double x0[kLanes], sums[kLanes * kRun];
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t first = r < runs[l].size() ? runs[l][r] : 0;
        x0[l] = low_[l] + static_cast<double>(first) * step_[l];
      }
      kernel_sums(values, weights_, n_, x0, h_, fine, smooth, sums);
      for (std::size_t l = 0; l < kLanes; ++l) {
        if (r >= runs[l].size()) continue;
        for (std::size_t k = 0; k < kRun && runs[l][r] + k < count_[l]; ++k)
          if (sums[kLanes * k + l] > best[l]) {
            best[l] = sums[kLanes * k + l];
            best_index_[l] = runs[l][r] + k;
          }
      }
    }
  }

  const double* weights_;
  std::size_t n_;
  double factor_;
  bool exact_, smooth_ = true;
  std::vector<double> buffer_, equal_, density_;
  MedianLanes medians_;
  double middle_[kLanes], spread_[kLanes], h_[kLanes], low_[kLanes], step_[kLanes],
      spacing_[kLanes], apart_[kLanes];
  std::size_t count_[kLanes], stride_[kLanes], points_[kLanes], best_index_[kLanes], most_ = 0;
};

// Median and scaled median absolute deviation, where those of the draws are looked for.
void centre_of(const double* ratios, std::size_t n, double& middle, double& spread) {
  std::vector<double> v(ratios, ratios + n);
  middle = median_of(v);
  for (std::size_t j = 0; j < n; ++j) v[j] = std::abs(ratios[j] - middle);
  spread = std::max(median_of(v), 1e-12 + 1e-6 * std::abs(middle));
}

}  // namespace

double mode_bandwidth(const double* ratios, std::size_t n, double factor) {
  std::vector<double> v(ratios, ratios + n);
  const double middle = median_of(v);
  double mean = 0, square = 0;
  for (std::size_t j = 0; j < n; ++j) mean += ratios[j];
  mean /= static_cast<double>(n);
  for (std::size_t j = 0; j < n; ++j) {
    square += (ratios[j] - mean) * (ratios[j] - mean);
    v[j] = std::abs(ratios[j] - middle);
  }
  return rule(std::sqrt(square / static_cast<double>(n - 1)), median_of(v), n, factor);
}

ModeEstimate binned_mode(const RatioSample& data, double factor) {
  ModeEstimate out;
  const double h = out.bandwidth = mode_bandwidth(data.ratios, data.n, factor);
  const auto [smallest, largest] = std::minmax_element(data.ratios, data.ratios + data.n);
  const double from = *smallest - kCut * h, to = *largest + kCut * h;
  const double low = from - 4 * h, high = to + 4 * h;
  const double bin = (high - low) / (kPoints - 1);
  std::vector<double> mass(kPoints + 1, 0.0), kernel(kPoints), density(kPoints, 0.0);
  for (std::size_t j = 0; j < data.n; ++j) {
    const double place = (data.ratios[j] - low) / bin;
    const auto i = std::min(static_cast<std::size_t>(place), kPoints - 2);
    const double part = place - static_cast<double>(i);
    mass[i] += data.weights[j] * (1 - part);
    mass[i + 1] += data.weights[j] * part;
  }
  // The distances of the kernel are those of 1024 points on twice the range, as in R.
  const double apart = 2 * (high - low) / (2 * kPoints - 1) / h;
  for (std::size_t k = 0; k < kPoints; ++k) {
    const double u = static_cast<double>(k) * apart;
    kernel[k] = fast_exp(-0.5 * u * u);
  }
  for (std::size_t i = 0; i < kPoints; ++i) {
    if (mass[i] == 0) continue;
    for (std::size_t k = 0; k < i; ++k) density[k] += mass[i] * kernel[i - k];
    for (std::size_t k = i; k < kPoints; ++k) density[k] += mass[i] * kernel[k - i];
  }
  const double step = (to - from) / (kPoints - 1);
  double peak = -1;
  for (std::size_t k = 0; k < kPoints; ++k) {
    const double x = from + static_cast<double>(k) * step, place = (x - low) / bin;
    const auto i = std::min(static_cast<std::size_t>(place), kPoints - 2);
    const double f = density[i] + (density[i + 1] - density[i]) * (place - static_cast<double>(i));
    if (f > peak) {
      peak = f;
      out.mode = x;
    }
  }
  return out;
}

ModeEstimate exact_mode(const RatioSample& data, double factor) {
  std::vector<double> values(kLanes * data.n);
  for (std::size_t j = 0; j < data.n; ++j)
    std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(kLanes * j), kLanes, data.ratios[j]);
  double middle, spread, modes[kLanes];
  bool coarse[kLanes];
  centre_of(data.ratios, data.n, middle, spread);
  ModeLanes(data.weights, data.n, factor, true, middle, spread)(values.data(), modes, coarse);
  return {modes[0], mode_bandwidth(data.ratios, data.n, factor)};
}

double mode_law_error(const RatioSample& data, const ModeEstimate& mode) {
  const double h2 = mode.bandwidth * mode.bandwidth;
  constexpr double kRootPi = 1.7724538509055160273;
  double variance = 0, slope = 0;
  for (std::size_t j = 0; j < data.n; ++j) {
    const double s2 = data.errors[j] * data.errors[j], d = data.ratios[j] - mode.mode;
    const double v = h2 + s2, v2 = h2 / 2 + s2;
    const double normal = kNormalPeak / std::sqrt(v) * std::exp(-0.5 * d * d / v);
    const double normal2 = kNormalPeak / std::sqrt(v2) * std::exp(-0.5 * d * d / v2);
    const double mean = d * (h2 / v) * normal;
    const double m = d * (h2 / 2) / v2, q = (h2 / 2) * s2 / v2;
    const double square = (m * m + q) * normal2 / (2 * mode.bandwidth * kRootPi);
    const double w = data.weights[j];
    variance += w * w * (square - mean * mean);
    slope += w * (-(h2 / v)) * normal * (1 - d * d / v);
  }
  return slope == 0 ? std::numeric_limits<double>::infinity()
                    : std::sqrt(std::max(0.0, variance)) / std::abs(slope);
}

double bootstrap_modes(const RatioSample& data, const NormalStream& stream, double factor,
                       bool exact, std::size_t draws, double* modes, std::size_t threads,
                       Monitor& monitor) {
  double middle, spread;
  centre_of(data.ratios, data.n, middle, spread);
  std::atomic<std::size_t> too_coarse{0};
  const auto piece = [&](std::size_t p) {
    std::vector<double> values(kLanes * data.n);
    ModeLanes lanes(data.weights, data.n, factor, exact, middle, spread);
    const std::size_t end = std::min(draws, (p + 1) * kDraws);
    std::size_t count = 0;
    for (std::size_t d = p * kDraws; d < end; d += kLanes) {
      draw_values(data, stream, static_cast<std::uint32_t>(d), values.data());
      double found[kLanes];
      bool coarse[kLanes];
      lanes(values.data(), found, coarse);
      for (std::size_t l = 0; l < std::min(kLanes, end - d); ++l) {
        modes[d + l] = found[l];
        count += coarse[l] ? 1 : 0;
      }
    }
    too_coarse += count;
    monitor.step();
  };
  parallel_for((draws + kDraws - 1) / kDraws, threads, monitor, piece);
  return static_cast<double>(too_coarse.load()) / static_cast<double>(draws);
}

void modes_of(const double* samples, const double* weights, std::size_t draws, std::size_t n,
              double factor, bool exact, double* modes) {
  std::vector<double> values(kLanes * n);
  double middle, spread;
  centre_of(samples, n, middle, spread);
  ModeLanes lanes(weights, n, factor, exact, middle, spread);
  for (std::size_t d = 0; d < draws; d += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l)
      for (std::size_t j = 0; j < n; ++j)
        values[kLanes * j + l] = samples[std::min(d + l, draws - 1) * n + j];
    double found[kLanes];
    bool coarse[kLanes];
    lanes(values.data(), found, coarse);
    std::copy(found, found + std::min(kLanes, draws - d), modes + d);
  }
}

}  // namespace mrfast
