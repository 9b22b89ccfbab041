#include "mrfast/median.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "mrfast/dispatch.hpp"
#include "mrfast/vector8.hpp"

namespace mrfast {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kPasses = 8;           // that narrow the interval of a median
constexpr std::size_t kFew = 12;     // values for which a few passes are enough
constexpr int kSteps = 12;           // from neighbour to neighbour, before all are put in order
constexpr double kStrong = 5;        // bx / sx from which bx* is never negative
constexpr std::size_t kNodes = 16;   // Gauss-Legendre on (0, 7)
constexpr std::size_t kDraws = 128;  // of one piece of work
constexpr std::size_t kBlock = 64;   // outcomes of one piece of work

constexpr double kHalfNodes[kNodes / 2][2] = {
    {0.0950125098376374402, 0.1894506104550684963}, {0.2816035507792589132, 0.1826034150449235889},
    {0.4580167776572273863, 0.1691565193950025382}, {0.6178762444026437484, 0.1495959888165767321},
    {0.7554044083550030339, 0.1246289712555338720}, {0.8656312023878317439, 0.0951585116824927848},
    {0.9445750230732325761, 0.0622535239386478929}, {0.9894009349916499326, 0.0271524594117540949}};

MRFAST_INLINE void add_where_below(const Vector8& value, const Vector8& limit,
                                   const Vector8& weight, Vector8& sum) {
#if defined(__GNUC__) || defined(__clang__)
  const Vector8 zero = {};
  sum += value <= limit ? weight : zero;
#else
  for (std::size_t l = 0; l < kLanes; ++l)
    sum.lane[l] += value.lane[l] <= limit.lane[l] ? weight.lane[l] : 0.0;
#endif
}

template <bool kShared>
MRFAST_INLINE void weights_below_of(const double* values, const double* weights, std::size_t n,
                                    const double* limits, double* sums) {
  Vector8 limit, sum[4];
  load(limits, limit);
  for (auto& s : sum) fill(0.0, s);
  const auto add = [&](std::size_t j, Vector8& s) {
    Vector8 value, weight;
    load(values + kLanes * j, value);
    if (kShared)
      fill(weights[j], weight);
    else
      load(weights + kLanes * j, weight);
    add_where_below(value, limit, weight, s);
  };
  std::size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (std::size_t i = 0; i < 4; ++i) add(j + i, sum[i]);
  for (; j < n; ++j) add(j, sum[0]);
  sum[0] += sum[1];
  sum[2] += sum[3];
  sum[0] += sum[2];
  store(sum[0], sums);
}

// The neighbours of limits: the last of the largest values up to there and the first of the
// smallest beyond, with their weights.
struct Neighbours {
  double below[kLanes];  // weight up to the limit
  double low[kLanes], low_weight[kLanes], high[kLanes], high_weight[kLanes];
};

MRFAST_INLINE void meet(const Vector8& value, const Vector8& limit, const Vector8& weight,
                        Vector8& sum, Vector8& low, Vector8& low_weight, Vector8& high,
                        Vector8& high_weight) {
#if defined(__GNUC__) || defined(__clang__)
  const Vector8 zero = {}, least = zero - kInfinity, most = zero + kInfinity;
  sum += value <= limit ? weight : zero;
  const Vector8 lower = value <= limit ? value : least;
  const Vector8 higher = value > limit ? value : most;
  low_weight = lower >= low ? weight : low_weight;
  low = lower >= low ? lower : low;
  high_weight = higher < high ? weight : high_weight;
  high = higher < high ? higher : high;
#else
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double v = value.lane[l];
    if (v <= limit.lane[l]) {
      sum.lane[l] += weight.lane[l];
      if (v >= low.lane[l]) {
        low.lane[l] = v;
        low_weight.lane[l] = weight.lane[l];
      }
    } else if (v < high.lane[l]) {
      high.lane[l] = v;
      high_weight.lane[l] = weight.lane[l];
    }
  }
#endif
}

template <bool kShared>
MRFAST_INLINE void neighbours_of(const double* values, const double* weights, std::size_t n,
                                 const double* limits, Neighbours& out) {
  Vector8 limit, sum, low, low_weight, high, high_weight;
  load(limits, limit);
  fill(0.0, sum);
  fill(0.0, low_weight);
  fill(0.0, high_weight);
  fill(-kInfinity, low);
  fill(kInfinity, high);
  for (std::size_t j = 0; j < n; ++j) {
    Vector8 value, weight;
    load(values + kLanes * j, value);
    if (kShared)
      fill(weights[j], weight);
    else
      load(weights + kLanes * j, weight);
    meet(value, limit, weight, sum, low, low_weight, high, high_weight);
  }
  store(sum, out.below);
  store(low, out.low);
  store(low_weight, out.low_weight);
  store(high, out.high);
  store(high_weight, out.high_weight);
}

MRFAST_DISPATCH void neighbours_shared(const double* values, const double* weights, std::size_t n,
                                       const double* limits, Neighbours& out) {
  neighbours_of<true>(values, weights, n, limits, out);
}

MRFAST_DISPATCH void neighbours_own(const double* values, const double* weights, std::size_t n,
                                    const double* limits, Neighbours& out) {
  neighbours_of<false>(values, weights, n, limits, out);
}

MRFAST_DISPATCH void weights_below_shared(const double* values, const double* weights,
                                          std::size_t n, const double* limits, double* sums) {
  weights_below_of<true>(values, weights, n, limits, sums);
}

MRFAST_DISPATCH void weights_below_own(const double* values, const double* weights, std::size_t n,
                                       const double* limits, double* sums) {
  weights_below_of<false>(values, weights, n, limits, sums);
}

struct Entry {
  double value, weight;
};

// The median between two neighbours, at their places in the cumulative weight.
MRFAST_INLINE double between(double low, double low_place, double high, double high_place) {
  const double gap = high_place - low_place;
  if (!(gap > 0)) return low;
  const double part = std::min(1.0, std::max(0.0, (0.5 - low_place) / gap));
  return low + (high - low) * part;
}

double median_in_order(std::vector<Entry>& all) {
  std::stable_sort(all.begin(), all.end(),
                   [](const Entry& a, const Entry& b) { return a.value < b.value; });
  double sum = 0, last_place = 0;
  for (std::size_t j = 0; j < all.size(); ++j) {
    const double place = sum + all[j].weight / 2;
    if (place > 0.5)
      return j == 0 ? all[j].value : between(all[j - 1].value, last_place, all[j].value, place);
    sum += all[j].weight;
    last_place = place;
  }
  return all.empty() ? kNaN : all.back().value;
}

// Narrows eight intervals (low, high] around the medians; below: weight up to low.
struct Brackets {
  double low[kLanes], high[kLanes], below[kLanes], upto[kLanes];
};

template <class Sums>
void narrow(const Sums& sums, const double* start, const double* scale, int passes, Brackets& b) {
  double t[kLanes], s[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) {
    b.low[l] = -kInfinity;
    b.high[l] = kInfinity;
    b.below[l] = 0;
    b.upto[l] = 1;
    t[l] = start[l];
  }
  for (int pass = 0; pass < passes; ++pass) {
    sums(t, s);
    for (std::size_t l = 0; l < kLanes; ++l) {
      if (s[l] <= 0.5) {
        b.low[l] = t[l];
        b.below[l] = s[l];
      } else {
        b.high[l] = t[l];
        b.upto[l] = s[l];
      }
      const bool low = b.low[l] > -kInfinity, high = b.high[l] < kInfinity;
      if (low && high) {
        const double width = b.high[l] - b.low[l];
        // A little beyond the line, towards the other side, so that both ends move.
        double part = (0.5 - b.below[l]) / (b.upto[l] - b.below[l]);
        part += part < 0.5 ? 0.06 : -0.06;
        t[l] = b.low[l] + width * (pass % 3 == 2 ? 0.5 : std::min(0.95, std::max(0.05, part)));
      } else {
        const double step = std::abs(0.5 - s[l]) * 3 + 0.1;
        t[l] += (low ? step : -step) * scale[l] * (1 << pass);
      }
    }
  }
}

}  // namespace

double weighted_median(const double* values, const double* weights, std::size_t n) {
  std::vector<Entry> all(n);
  for (std::size_t j = 0; j < n; ++j) all[j] = {values[j], weights[j]};
  return median_in_order(all);
}

template <bool kShared>
void MedianLanes::run(const double* values, const double* weights, std::size_t n,
                      const double* start, const double* scale, double* medians) {
  Brackets b;
  narrow(
      [&](const double* t, double* s) {
        if (kShared)
          weights_below_shared(values, weights, n, t, s);
        else
          weights_below_own(values, weights, n, t, s);
      },
      start, scale, n > kFew ? kPasses : 3, b);
  double limit[kLanes];
  bool done[kLanes] = {};
  for (std::size_t l = 0; l < kLanes; ++l) limit[l] = b.low[l] > -kInfinity ? b.low[l] : b.high[l];
  std::size_t left = kLanes;
  for (int step = 0; step < kSteps && left > 0; ++step) {
    Neighbours found;
    if (kShared)
      neighbours_shared(values, weights, n, limit, found);
    else
      neighbours_own(values, weights, n, limit, found);
    for (std::size_t l = 0; l < kLanes; ++l) {
      if (done[l]) continue;
      const double low_place = found.below[l] - found.low_weight[l] / 2;
      const double high_place = found.below[l] + found.high_weight[l] / 2;
      const bool has_low = found.low[l] > -kInfinity, has_high = found.high[l] < kInfinity;
      if (has_low && low_place > 0.5) {
        limit[l] = std::nextafter(found.low[l], -kInfinity);
      } else if (has_high && high_place <= 0.5) {
        limit[l] = found.high[l];
      } else {
        medians[l] = !has_low    ? found.high[l]
                     : !has_high ? found.low[l]
                                 : between(found.low[l], low_place, found.high[l], high_place);
        done[l] = true;
        --left;
      }
    }
  }
  for (std::size_t l = 0; l < kLanes && left > 0; ++l) {  // ties, or values far apart
    if (done[l]) continue;
    std::vector<Entry> all;
    for (std::size_t j = 0; j < n; ++j)
      if (!std::isnan(values[kLanes * j + l]))
        all.push_back({values[kLanes * j + l], weights[kShared ? j : kLanes * j + l]});
    medians[l] = median_in_order(all);
  }
}

void MedianLanes::operator()(const double* values, const double* weights, std::size_t n,
                             const double* start, const double* scale, double* medians) {
  run<true>(values, weights, n, start, scale, medians);
}

void MedianLanes::own_weights(const double* values, const double* weights, std::size_t n,
                              const double* start, const double* scale, double* medians) {
  run<false>(values, weights, n, start, scale, medians);
}

// ---- bootstrap law ----

namespace {

struct LawSums {
  double mean = 0, variance = 0, third = 0;         // sums of w F, w^2 F(1-F), w^3 F(1-F)(1-2F)
  double density = 0, weighted = 0, weighted2 = 0;  // sums of f, w f, w^2 f with f >= 0
  double slope = 0;                                 // sum of w f
  double robust = 0;                                // kernel density at t
};

constexpr std::size_t round_up(std::size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Everything that the law needs, padded to lanes: pads have no weight and no density.
struct LawData {
  std::size_t n = 0;
  std::vector<double> memory;
  double *bx, *sx2, *by, *sy2, *w, *correction;
  struct Weak {
    std::size_t index;
    double weight[kNodes];  // 2 phi(a + z) dz
    double x[kNodes], by, inverse_sy;
  };
  std::vector<Weak> weak;

  explicit LawData(const WeightedRatios& data) : n(round_up(data.n)), memory(6 * n, 0.0) {
    double** const columns[] = {&bx, &sx2, &by, &sy2, &w, &correction};
    for (std::size_t c = 0; c < 6; ++c) *columns[c] = memory.data() + c * n;
    std::fill(sy2, sy2 + n, 1.0);
    for (std::size_t j = 0; j < data.n; ++j) {
      const double sign = data.bx[j] < 0 ? -1.0 : 1.0;
      bx[j] = sign * data.bx[j];
      by[j] = sign * data.by[j];
      sx2[j] = data.sx[j] * data.sx[j];
      sy2[j] = data.sy[j] * data.sy[j];
      w[j] = data.weights[j];
      const double a = bx[j] / data.sx[j];
      if (a >= kStrong) continue;
      Weak snp{j, {}, {}, by[j], 1 / data.sy[j]};
      for (std::size_t i = 0; i < kNodes; ++i) {
        const auto& node = kHalfNodes[i / 2];
        const double z = 3.5 * (1 + (i % 2 == 0 ? node[0] : -node[0]));
        snp.weight[i] = 3.5 * node[1] * kNormalPeak * std::exp(-0.5 * (a + z) * (a + z));
        snp.x[i] = -data.sx[j] * z;
      }
      weak.push_back(snp);
    }
  }
};

// Integral over negative bx*: phi(a + z) (1 - 2 Phi((t x - by) / sy)).
MRFAST_DISPATCH void correct_weak(const double* weight, const double* x, double by,
                                  double inverse_sy, double t, double* out) {
  double sum[kNodes];
  for (std::size_t i = 0; i < kNodes; ++i) {
    const double u = (t * x[i] - by) * inverse_sy;
    sum[i] = weight[i] * (1 - 2 * normal_cdf(u, fast_exp(-0.5 * u * u)));
  }
  double total = 0;
  for (double s : sum) total += s;
  *out = total;
}

MRFAST_DISPATCH void law_sums(std::size_t n, const double* __restrict bx,
                              const double* __restrict sx2, const double* __restrict by,
                              const double* __restrict sy2, const double* __restrict w,
                              const double* __restrict correction, double t, double* out) {
  double sums[7][kLanes] = {};
  for (std::size_t j = 0; j < n; j += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j + l;
      const double inverse = 1 / std::sqrt(sy2[i] + t * t * sx2[i]);
      const double u = (t * bx[i] - by[i]) * inverse;
      const double gauss = fast_exp(-0.5 * u * u);
      const double cdf = normal_cdf(u, gauss) + correction[i];
      const double f = kNormalPeak * gauss * (bx[i] * sy2[i] + t * sx2[i] * by[i]) *
                       (inverse * inverse * inverse);
      const double g = f > 0 ? f : 0.0;
      const double wi = w[i], spread = cdf * (1 - cdf), w2 = wi * wi;
      sums[0][l] += wi * cdf;
      sums[1][l] += w2 * spread;
      sums[2][l] += w2 * wi * spread * (1 - 2 * cdf);
      sums[3][l] += g;
      sums[4][l] += wi * g;
      sums[5][l] += w2 * g;
      sums[6][l] += wi * f;
    }
  for (std::size_t k = 0; k < 7; ++k) {
    const double* const v = sums[k];
    out[k] = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  }
}

MRFAST_DISPATCH double robust_density(std::size_t n, const double* __restrict bx,
                                      const double* __restrict sx2, const double* __restrict by,
                                      const double* __restrict sy2, const double* __restrict w,
                                      double b) {
  double sum[kLanes] = {};
  for (std::size_t j = 0; j < n; j += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j + l;
      // bx by / bx^2 so that pads, with bx = 0, need no division by it.
      const double bx2 = bx[i] * bx[i];
      const double v = sy2[i] * bx2 + by[i] * by[i] * sx2[i];  // bx^4 V2
      const double inverse = bx2 / (kRobustWidth * std::sqrt(v > 0 ? v : 1.0));
      const double u = (b - (bx2 > 0 ? by[i] / bx[i] : 0.0)) * inverse;
      sum[l] += w[i] * fast_exp(-0.5 * u * u) * inverse;
    }
  return kNormalPeak *
         (((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])));
}

class MedianLaw {
 public:
  explicit MedianLaw(const WeightedRatios& data) : data_(data) {}

  LawSums at(double t, bool corrected = true) {
    for (const auto& snp : data_.weak)
      if (corrected)
        correct_weak(snp.weight, snp.x, snp.by, snp.inverse_sy, t, data_.correction + snp.index);
      else
        data_.correction[snp.index] = 0;
    double s[7];
    law_sums(data_.n, data_.bx, data_.sx2, data_.by, data_.sy2, data_.w, data_.correction, t, s);
    return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], 0};
  }

  // Normal score of t, and about how fast it rises.
  double score(double t, double& slope) {
    const LawSums s = at(t);
    const double variance = std::max(s.variance, 1e-300);
    double m1 = 0, m2 = 0;
    if (s.density > 0) {
      m1 = s.weighted / s.density;
      m2 = s.weighted2 / s.density;
    }
    const double total = variance + m2 / 6 - m1 * m1 / 12, root = std::sqrt(total);
    const double z0 = (s.mean - 0.5) * (1 + m1 * m1 / (6 * variance)) / root;
    const double gamma = std::min(1.0, std::max(-1.0, s.third / (total * root)));
    const double bounded = std::min(3.0, std::max(-3.0, z0));
    slope = s.slope / root;
    return z0 + gamma * (bounded * bounded - 1) / 6;
  }

  double root(double target, double start, double unit) {
    double low = -kInfinity, high = kInfinity, t = start;
    double previous_t = kNaN, previous_z = kNaN, reach = 3 * unit;
    for (int i = 0; i < 200; ++i) {
      double slope;
      const double z = score(t, slope) - target;
      if (std::abs(z) < 1e-9) return t;
      (z < 0 ? low : high) = t;
      if (high - low < 4e-16 * (std::abs(low) + std::abs(high))) return t;
      double rise = (z - previous_z) / (t - previous_t);
      if (!(rise > 0) || !std::isfinite(rise)) rise = slope;
      double step = rise > 0 ? -z / rise : (z < 0 ? reach : -reach);
      step = std::min(reach, std::max(-reach, step));
      if (i > 8) reach *= 2;
      double next = t + step;
      if (low > -kInfinity && high < kInfinity) {
        if (!(next > low && next < high) || i > 20) next = low + (high - low) / 2;
        if (std::abs(next - t) < 1e-13 * unit) return next;
      } else if (z < 0 && next <= t) {
        next = t + reach;
      } else if (z > 0 && next >= t) {
        next = t - reach;
      }
      previous_t = t;
      previous_z = z;
      t = next;
    }
    return kNaN;
  }

  double robust(double estimate) const {
    double squares = 0;
    for (std::size_t j = 0; j < data_.n; ++j) squares += data_.w[j] * data_.w[j];
    return 0.5 * std::sqrt(squares) /
           robust_density(data_.n, data_.bx, data_.sx2, data_.by, data_.sy2, data_.w, estimate);
  }

  // Standard error from one evaluation: what the law's own roots start from.
  double bahadur(double estimate) {
    const LawSums s = at(estimate, false);
    return s.slope > 0 ? std::sqrt(s.variance) / s.slope : kInfinity;
  }

  // A unit of length even where there is no density at the estimate.
  double unit(const WeightedRatios& data, double found) const {
    if (found > 0 && std::isfinite(found)) return found;
    double sum = 0;
    for (std::size_t j = 0; j < data.n; ++j)
      sum += data.weights[j] * data.sy[j] / std::abs(data.bx[j]);
    return sum;
  }

 private:
  LawData data_;
};

// Distance between the neighbours of the estimate over the sum of their standard errors.
double gap_at(const WeightedRatios& data, double estimate) {
  double low = -kInfinity, high = kInfinity, low_error = 0, high_error = 0;
  for (std::size_t j = 0; j < data.n; ++j) {
    const double r = data.by[j] / data.bx[j];
    const double spread = r * data.sx[j];
    const double error =
        std::sqrt(data.sy[j] * data.sy[j] + spread * spread) / std::abs(data.bx[j]);
    if (r <= estimate && r >= low) {
      low = r;
      low_error = error;
    }
    if (r > estimate && r < high) {
      high = r;
      high_error = error;
    }
  }
  if (low == -kInfinity || high == kInfinity) return 0;
  return (high - low) / (low_error + high_error);
}

}  // namespace

MedianErrors median_errors(const WeightedRatios& data, double estimate) {
  MedianLaw law(data);
  MedianErrors out;
  out.bahadur = law.bahadur(estimate);
  const double unit = law.unit(data, out.bahadur);
  out.halfwidth = (law.root(1, estimate + unit, unit) - law.root(-1, estimate - unit, unit)) / 2;
  out.robust = law.robust(estimate);
  out.gap = gap_at(data, estimate);
  return out;
}

void median_quantiles(const WeightedRatios& data, double estimate, const double* scores,
                      std::size_t count, double* quantiles) {
  MedianLaw law(data);
  const double unit = law.unit(data, law.bahadur(estimate));
  for (std::size_t i = 0; i < count; ++i)
    quantiles[i] = law.root(scores[i], estimate + scores[i] * unit, unit);
}

void median_scores(const WeightedRatios& data, const double* t, std::size_t count, double* scores) {
  MedianLaw law(data);
  double slope;
  for (std::size_t i = 0; i < count; ++i) scores[i] = law.score(t[i], slope);
}

// ---- bootstrap ----

namespace {

MRFAST_DISPATCH void draw_ratios(const WeightedRatios& data, const NormalStream& stream,
                                 std::uint32_t first_draw, double* ratios) {
  for (std::size_t j = 0; j < data.n; ++j) {
    double zx[kLanes], zy[kLanes];
    normal_pairs(stream, static_cast<std::uint32_t>(j), first_draw, zx, zy);
    double* const out = ratios + kLanes * j;
    for (std::size_t l = 0; l < kLanes; ++l)
      out[l] = (data.by[j] + data.sy[j] * zy[l]) / (data.bx[j] + data.sx[j] * zx[l]);
  }
}

}  // namespace

void bootstrap_medians(const WeightedRatios& data, const NormalStream& stream, double estimate,
                       double scale, std::size_t draws, double* medians, std::size_t threads,
                       Monitor& monitor) {
  double start[kLanes], unit[kLanes];
  std::fill(start, start + kLanes, estimate);
  std::fill(unit, unit + kLanes, scale);
  const auto piece = [&](std::size_t p) {
    std::vector<double> ratios(kLanes * data.n);
    MedianLanes lanes;
    const std::size_t end = std::min(draws, (p + 1) * kDraws);
    for (std::size_t d = p * kDraws; d < end; d += kLanes) {
      draw_ratios(data, stream, static_cast<std::uint32_t>(d), ratios.data());
      double found[kLanes];
      lanes(ratios.data(), data.weights, data.n, start, unit, found);
      std::copy(found, found + std::min(kLanes, end - d), medians + d);
    }
    monitor.step();
  };
  parallel_for((draws + kDraws - 1) / kDraws, threads, monitor, piece);
}

// ---- many exposures and outcomes ----

namespace {

// What eight outcomes have in common with one exposure, value j of outcome l at [8 j + l].
struct RatioLanes {
  std::vector<double> ratios;   // NaN where missing: no neighbour of a median
  std::vector<double> weights;  // sum 1
  std::vector<double> inverse;  // 1 / (c s), the kernel of the robust standard error
  // Mean and half the standard deviation under the weights, sum of squared weights, SNPs.
  double start[kLanes], scale[kLanes], squares[kLanes], known[kLanes];

  explicit RatioLanes(std::size_t n) : ratios(kLanes * n), weights(ratios), inverse(ratios) {}
};

// Variances of the ratios are constant + first sy^2 / bx^2 + second by^2 sx^2 / bx^4.
struct VarianceParts {
  double constant, first, second;
};

template <class Real>
MRFAST_INLINE void ratios_of(const Real* by, const Real* sy, std::size_t width,
                             const std::int64_t* ids, const double* bx, const double* sx,
                             std::size_t n, const VarianceParts& parts, double* __restrict ratios,
                             double* __restrict weights, double* __restrict inverse,
                             double* __restrict sums) {
  Vector8 sum[5];
  for (auto& s : sum) fill(0.0, s);
  for (std::size_t j = 0; j < n; ++j) {
    const Real* const y = by + static_cast<std::size_t>(ids[j]) * width;
    const Real* const s = sy + static_cast<std::size_t>(ids[j]) * width;
    const double one_over = 1 / bx[j], ex = sx[j] * one_over;
    double r[kLanes], w[kLanes], known[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double yl = y[l], sl = s[l];
      const double finite = yl - yl == 0 ? 1.0 : 0.0;
      const double positive = sl > 0 ? finite : 0.0;
      known[l] = sl < kInfinity ? positive : 0.0;
      r[l] = known[l] > 0 ? yl * one_over : 0.0;
      const double e = known[l] > 0 ? sl * one_over : 1.0;
      const double d = r[l] * ex, v1 = e * e, v2 = d * d;
      w[l] = known[l] / (parts.constant + parts.first * v1 + parts.second * v2);
      ratios[kLanes * j + l] = known[l] > 0 ? r[l] : kNaN;
      weights[kLanes * j + l] = w[l];
      inverse[kLanes * j + l] = 1 / (kRobustWidth * std::sqrt(v1 + v2));
    }
    Vector8 weight, ratio, product, count;
    load(w, weight);
    load(r, ratio);
    load(known, count);
    product = weight * ratio;
    sum[0] += weight;
    sum[1] += product;
    sum[2] += product * ratio;
    sum[3] += weight * weight;
    sum[4] += count;
  }
  for (std::size_t i = 0; i < 5; ++i) store(sum[i], sums + kLanes * i);
  double norm[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) norm[l] = sums[l] > 0 ? 1 / sums[l] : 0.0;
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l) weights[kLanes * j + l] *= norm[l];
}

MRFAST_DISPATCH void ratios_double(const double* by, const double* sy, std::size_t width,
                                   const std::int64_t* ids, const double* bx, const double* sx,
                                   std::size_t n, const VarianceParts& parts, double* ratios,
                                   double* weights, double* inverse, double* sums) {
  ratios_of(by, sy, width, ids, bx, sx, n, parts, ratios, weights, inverse, sums);
}

MRFAST_DISPATCH void ratios_float(const float* by, const float* sy, std::size_t width,
                                  const std::int64_t* ids, const double* bx, const double* sx,
                                  std::size_t n, const VarianceParts& parts, double* ratios,
                                  double* weights, double* inverse, double* sums) {
  ratios_of(by, sy, width, ids, bx, sx, n, parts, ratios, weights, inverse, sums);
}

template <class Real>
void fill_lanes(const Real* by, const Real* sy, std::size_t width, const std::int64_t* ids,
                const double* bx, const double* sx, std::size_t n, RatioWeights kind,
                RatioLanes& out) {
  const VarianceParts parts = kind == RatioWeights::kSimple       ? VarianceParts{1, 0, 0}
                              : kind == RatioWeights::kFirstOrder ? VarianceParts{0, 1, 0}
                                                                  : VarianceParts{0, 1, 1};
  double sums[5 * kLanes];
  if constexpr (sizeof(Real) == sizeof(double))
    ratios_double(by, sy, width, ids, bx, sx, n, parts, out.ratios.data(), out.weights.data(),
                  out.inverse.data(), sums);
  else
    ratios_float(by, sy, width, ids, bx, sx, n, parts, out.ratios.data(), out.weights.data(),
                 out.inverse.data(), sums);
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double norm = sums[l] > 0 ? 1 / sums[l] : 0.0;
    out.start[l] = sums[kLanes + l] * norm;
    const double variance = sums[2 * kLanes + l] * norm - out.start[l] * out.start[l];
    out.scale[l] = variance > 0 ? 0.5 * std::sqrt(variance) : 1.0;
    out.squares[l] = sums[3 * kLanes + l] * norm * norm;
    out.known[l] = sums[4 * kLanes + l];
  }
}

MRFAST_DISPATCH void robust_lanes(const double* __restrict ratios, const double* __restrict weights,
                                  const double* __restrict inverse, std::size_t n, const double* at,
                                  double* densities) {
  Vector8 sum;
  fill(0.0, sum);
  for (std::size_t j = 0; j < n; ++j) {
    double term[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = kLanes * j + l;
      const double u = ratios[i] == ratios[i] ? (at[l] - ratios[i]) * inverse[i] : 0.0;
      term[l] = weights[i] * inverse[i] * fast_exp(-0.5 * u * u);
    }
    Vector8 t;
    load(term, t);
    sum += t;
  }
  store(sum, densities);
}

}  // namespace

template <class Real>
void median_matrix(const RatioPanel<Real>& panel, RatioWeights kind, std::size_t minimum,
                   double* estimates, double* robust, std::int32_t* counts, std::size_t threads,
                   Monitor& monitor) {
  const std::size_t blocks = (panel.outcomes + kBlock - 1) / kBlock;
  std::size_t most = 0;
  for (std::size_t e = 0; e < panel.exposures; ++e)
    most = std::max(most, static_cast<std::size_t>(panel.offsets[e + 1] - panel.offsets[e]));
  const auto piece = [&](std::size_t b) {
    // The outcomes of this piece, side by side and filled up to whole lanes with missing ones.
    const std::size_t begin = b * kBlock, count = std::min(kBlock, panel.outcomes - begin);
    const std::size_t width = round_up(count);
    std::vector<Real> by(panel.snps * width, std::numeric_limits<Real>::quiet_NaN());
    std::vector<Real> sy(panel.snps * width, Real{1});
    for (std::size_t p = 0; p < panel.snps; ++p) {
      const Real* const y = panel.by + p * panel.outcomes + begin;
      const Real* const s = panel.sy + p * panel.outcomes + begin;
      std::copy(y, y + count, by.begin() + static_cast<std::ptrdiff_t>(p * width));
      std::copy(s, s + count, sy.begin() + static_cast<std::ptrdiff_t>(p * width));
    }
    RatioLanes data(most);
    MedianLanes lanes;
    for (std::size_t e = 0; e < panel.exposures && !monitor.stopped(); ++e) {
      const auto from = static_cast<std::size_t>(panel.offsets[e]);
      const std::size_t n = static_cast<std::size_t>(panel.offsets[e + 1]) - from;
      for (std::size_t o = 0; o < count; o += kLanes) {
        double found[kLanes], density[kLanes];
        fill_lanes(by.data() + o, sy.data() + o, width, panel.ids + from, panel.bx + from,
                   panel.sx + from, n, kind, data);
        lanes.own_weights(data.ratios.data(), data.weights.data(), n, data.start, data.scale,
                          found);
        robust_lanes(data.ratios.data(), data.weights.data(), data.inverse.data(), n, found,
                     density);
        for (std::size_t l = 0; l < std::min(kLanes, count - o); ++l) {
          const std::size_t at = e * panel.outcomes + begin + o + l;
          const bool enough = data.known[l] >= static_cast<double>(minimum);
          estimates[at] = enough ? found[l] : kNaN;
          robust[at] =
              enough ? 0.5 * std::sqrt(data.squares[l]) / (kNormalPeak * density[l]) : kNaN;
          counts[at] = static_cast<std::int32_t>(data.known[l]);
        }
      }
      monitor.step();
    }
  };
  parallel_for(blocks, threads, monitor, piece);
}

template void median_matrix(const RatioPanel<double>&, RatioWeights, std::size_t, double*, double*,
                            std::int32_t*, std::size_t, Monitor&);
template void median_matrix(const RatioPanel<float>&, RatioWeights, std::size_t, double*, double*,
                            std::int32_t*, std::size_t, Monitor&);

}  // namespace mrfast
