#include "mrfast/identified.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <tuple>
#include <utility>

#include "mrfast/dispatch.hpp"
#include "mrfast/quadrature.hpp"
#include "mrfast/small.hpp"
#include "mrfast/vector_log.hpp"

#if defined(_MSC_VER)
#define MRFAST_RESTRICT __restrict
#else
#define MRFAST_RESTRICT __restrict__
#endif

namespace mrfast {

namespace {

constexpr std::size_t kChunk = 64;     // candidates whose intermediate values stay in the cache
constexpr std::size_t kGroup = 6;      // slab probabilities multiplied side by side
constexpr double kNegligible = 1e-13;  // posterior weight of a family that is not worth a sum
constexpr std::size_t kModes = 16;     // local maxima of the scan that are looked at
constexpr double kWorthKeeping = 27;   // log posterior below the mode of a node that is kept

// The Kronrod rule of a panel, with the polynomials through its nodes.
struct PanelRule {
  double node[kPanelNodes], kronrod[kPanelNodes], gauss[kPanelNodes], barycentric[kPanelNodes];
  PanelRule() {
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      node[i] = Kronrod15::node(i);
      kronrod[i] = Kronrod15::weight(i);
      gauss[i] = Kronrod15::gauss_weight(i);
    }
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      double product = 1;
      for (std::size_t j = 0; j < kPanelNodes; ++j)
        if (j != i) product *= 2 * (node[i] - node[j]);
      barycentric[i] = 1 / product;
    }
  }
  static const PanelRule& get() {
    static const PanelRule rule;
    return rule;
  }
  // Values at t in (-1, 1) of the polynomials that are 1 at one node and 0 at the others.
  void basis(double t, double* out) const {
    double sum = 0;
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      const double gap = t - node[i];
      if (gap == 0) {
        std::fill(out, out + kPanelNodes, 0.0);
        out[i] = 1;
        return;
      }
      out[i] = barycentric[i] / gap;
      sum += out[i];
    }
    for (std::size_t i = 0; i < kPanelNodes; ++i) out[i] /= sum;
  }
};

struct RuleValue {
  double value, error;
};

// Integral over a panel of half width `half` and QUADPACK's estimate of its error.
RuleValue apply_rule(const double* f, double half) {
  const PanelRule& rule = PanelRule::get();
  double kronrod = 0, gauss = 0;
  for (std::size_t i = 0; i < kPanelNodes; ++i) {
    kronrod += rule.kronrod[i] * f[i];
    gauss += rule.gauss[i] * f[i];
  }
  double deviation = 0;
  for (std::size_t i = 0; i < kPanelNodes; ++i)
    deviation += rule.kronrod[i] * std::abs(f[i] - 0.5 * kronrod);
  double error = std::abs(kronrod - gauss);
  if (deviation > 0 && error > 0)
    error = deviation * std::min(1.0, std::pow(200 * error / deviation, 1.5));
  return {kronrod * half, error * half};
}

// ---------------------------------------------------------------- loops over candidates and lanes
// Arrays hold kLanes effects side by side for each of n candidates.

MRFAST_DISPATCH
void spike_terms(std::size_t n, double a0_square, const double* MRFAST_RESTRICT residual,
                 const double* MRFAST_RESTRICT variance, double* MRFAST_RESTRICT total,
                 double* MRFAST_RESTRICT inverse, double* MRFAST_RESTRICT half_square,
                 double* MRFAST_RESTRICT sums) {
  double product[kLanes], square[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) product[l] = 1, square[l] = 0;
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      total[i] = variance[i] + a0_square;
      inverse[i] = 1 / total[i];
      half_square[i] = 0.5 * residual[i] * residual[i] * inverse[i];
      square[l] += half_square[i];
      product[l] *= total[i];
    }
    if (j % 4 == 3)
      for (std::size_t l = 0; l < kLanes; ++l) {
        square[l] += 0.5 * fast_log(product[l]);
        product[l] = 1;
      }
  }
  for (std::size_t l = 0; l < kLanes; ++l)
    sums[l] = -(square[l] + 0.5 * fast_log(product[l])) - 0.5 * kLogTwoPi * static_cast<double>(n);
}

MRFAST_DISPATCH
void slab_terms(std::size_t n, double a1_square, const double* MRFAST_RESTRICT spike_total,
                double* MRFAST_RESTRICT inverse, double* MRFAST_RESTRICT ratio) {
  for (std::size_t i = 0; i < n * kLanes; ++i) {
    inverse[i] = 1 / (spike_total[i] + a1_square);
    ratio[i] = std::sqrt(spike_total[i] * inverse[i]);
  }
}

// Densities of spike and slab relative to the larger of their exponentials and the spike's
// normalising factor: s, and d = slab - spike; the exponents taken out are added to `gain`.
MRFAST_DISPATCH
void component_pairs(std::size_t n, double shift, const double* MRFAST_RESTRICT direction,
                     const double* MRFAST_RESTRICT residual,
                     const double* MRFAST_RESTRICT half_square,
                     const double* MRFAST_RESTRICT slab_inverse,
                     const double* MRFAST_RESTRICT ratio, double* MRFAST_RESTRICT spike,
                     double* MRFAST_RESTRICT difference, double* MRFAST_RESTRICT gain) {
  double sum[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) sum[l] = gain[l];
  for (std::size_t j = 0; j < n; ++j) {
    const double mean = shift * direction[j];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      const double r = residual[i] - mean;
      const double advantage = half_square[i] - 0.5 * r * r * slab_inverse[i];
      const double e = fast_exp(-std::abs(advantage));
      const bool slab = advantage > 0;
      const double s = slab ? e : 1.0;
      const double t = ratio[i] * (slab ? 1.0 : e);
      sum[l] += slab ? advantage : 0.0;
      spike[i] = s;
      difference[i] = t - s;
    }
  }
  for (std::size_t l = 0; l < kLanes; ++l) gain[l] = sum[l];
}

template <std::size_t count>
MRFAST_INLINE void mixture_group(std::size_t n, std::size_t run, const double* MRFAST_RESTRICT pi,
                                 const double* MRFAST_RESTRICT spike,
                                 const double* MRFAST_RESTRICT difference,
                                 double* MRFAST_RESTRICT out) {
  for (std::size_t start = 0; start < n; start += run) {
    const std::size_t end = n - start < run ? n : start + run;
    double product[count][kLanes];
    for (std::size_t p = 0; p < count; ++p)
      for (std::size_t l = 0; l < kLanes; ++l) product[p][l] = 1;
    for (std::size_t j = start; j < end; ++j) {
      const double* s = spike + j * kLanes;
      const double* d = difference + j * kLanes;
      for (std::size_t p = 0; p < count; ++p)
        for (std::size_t l = 0; l < kLanes; ++l) product[p][l] *= s[l] + pi[p] * d[l];
    }
    for (std::size_t p = 0; p < count; ++p)
      for (std::size_t l = 0; l < kLanes; ++l) out[p * kLanes + l] += fast_log(product[p][l]);
  }
}

// Adds sum_j log((1 - pi) spike_j + pi slab_j) for each of `count` <= kGroup probabilities; `run`
// factors in a row stay within the normal numbers.
MRFAST_DISPATCH
void mixture_logs(std::size_t n, std::size_t run, std::size_t count,
                  const double* MRFAST_RESTRICT pi, const double* MRFAST_RESTRICT spike,
                  const double* MRFAST_RESTRICT difference, double* MRFAST_RESTRICT out) {
  switch (count) {
    case 1:
      return mixture_group<1>(n, run, pi, spike, difference, out);
    case 2:
      return mixture_group<2>(n, run, pi, spike, difference, out);
    case 3:
      return mixture_group<3>(n, run, pi, spike, difference, out);
    case 4:
      return mixture_group<4>(n, run, pi, spike, difference, out);
    case 5:
      return mixture_group<5>(n, run, pi, spike, difference, out);
    default:
      return mixture_group<kGroup>(n, run, pi, spike, difference, out);
  }
}

// Terms (H, kLanes) become shares that sum to 1; `log_sum` their log sums.
MRFAST_DISPATCH
void softmax(std::size_t n, const double* MRFAST_RESTRICT log_weight, double* MRFAST_RESTRICT terms,
             double* MRFAST_RESTRICT log_sum) {
  double top[kLanes], sum[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) top[l] = -1e300, sum[l] = 0;
  for (std::size_t h = 0; h < n; ++h)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double value = terms[h * kLanes + l] + log_weight[h];
      terms[h * kLanes + l] = value;
      top[l] = value > top[l] ? value : top[l];
    }
  for (std::size_t h = 0; h < n; ++h)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double e = fast_exp(terms[h * kLanes + l] - top[l]);
      terms[h * kLanes + l] = e;
      sum[l] += e;
    }
  for (std::size_t l = 0; l < kLanes; ++l) {
    log_sum[l] = top[l] + fast_log(sum[l]);
    sum[l] = 1 / sum[l];
  }
  for (std::size_t h = 0; h < n; ++h)
    for (std::size_t l = 0; l < kLanes; ++l) terms[h * kLanes + l] *= sum[l];
}

template <std::size_t count>
MRFAST_INLINE void slab_group(std::size_t n, const double* MRFAST_RESTRICT pi,
                              const double* MRFAST_RESTRICT weight,
                              const double* MRFAST_RESTRICT spike,
                              const double* MRFAST_RESTRICT difference,
                              double* MRFAST_RESTRICT probability) {
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      double q = 0;
      for (std::size_t p = 0; p < count; ++p) {
        const double pd = pi[p] * difference[i];
        q += weight[p * kLanes + l] * ((pi[p] * spike[i] + pd) / (spike[i] + pd));
      }
      probability[i] += q;
    }
}

// Adds the posterior probability of the slab, summed over `count` <= kGroup probabilities of a
// family with weights (count, kLanes).
MRFAST_DISPATCH
void slab_probability(std::size_t n, std::size_t count, const double* MRFAST_RESTRICT pi,
                      const double* MRFAST_RESTRICT weight, const double* MRFAST_RESTRICT spike,
                      const double* MRFAST_RESTRICT difference,
                      double* MRFAST_RESTRICT probability) {
  switch (count) {
    case 1:
      return slab_group<1>(n, pi, weight, spike, difference, probability);
    case 2:
      return slab_group<2>(n, pi, weight, spike, difference, probability);
    case 3:
      return slab_group<3>(n, pi, weight, spike, difference, probability);
    case 4:
      return slab_group<4>(n, pi, weight, spike, difference, probability);
    case 5:
      return slab_group<5>(n, pi, weight, spike, difference, probability);
    default:
      return slab_group<kGroup>(n, pi, weight, spike, difference, probability);
  }
}

// What a family adds to the moments of the pleiotropic effect, given its slab's probability.
MRFAST_DISPATCH
void slab_moments(std::size_t n, double shift, const double* MRFAST_RESTRICT direction,
                  double scale_square, const double* MRFAST_RESTRICT residual,
                  const double* MRFAST_RESTRICT variance,
                  const double* MRFAST_RESTRICT slab_inverse,
                  const double* MRFAST_RESTRICT probability, double* MRFAST_RESTRICT inclusion,
                  double* MRFAST_RESTRICT first, double* MRFAST_RESTRICT second) {
  for (std::size_t j = 0; j < n; ++j) {
    const double mean = shift * direction[j];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      const double q = probability[i];
      const double shrink = scale_square * slab_inverse[i];
      const double a = mean + shrink * (residual[i] - mean);
      inclusion[i] += q;
      first[i] += q * a;
      second[i] += q * (a * a + shrink * variance[i]);
    }
  }
}

MRFAST_DISPATCH
void spike_moments(std::size_t n, double a0_square, const double* MRFAST_RESTRICT weight,
                   const double* MRFAST_RESTRICT slab, const double* MRFAST_RESTRICT residual,
                   const double* MRFAST_RESTRICT variance, const double* MRFAST_RESTRICT inverse,
                   double* MRFAST_RESTRICT inclusion, double* MRFAST_RESTRICT first,
                   double* MRFAST_RESTRICT second) {
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      const double rest = weight[l] - slab[i];
      const double shrink = a0_square * inverse[i];
      const double a = shrink * residual[i];
      inclusion[i] += slab[i];
      first[i] += rest * a;
      second[i] += rest * (a * a + shrink * variance[i]);
    }
}

double quadratic_peak(const double* x, const double* f, double* sd) {
  // The parabola through three points; sd = 0 where it has no maximum.
  const double d1 = (f[1] - f[0]) / (x[1] - x[0]), d2 = (f[2] - f[1]) / (x[2] - x[1]);
  const double curvature = 2 * (d2 - d1) / (x[2] - x[0]);
  *sd = curvature < 0 ? 1 / std::sqrt(-curvature) : 0.0;
  if (!(curvature < 0)) return x[1];
  const double peak = 0.5 * (x[0] + x[1]) - d1 / curvature;
  return std::clamp(peak, x[0], x[2]);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

}  // namespace

// ---------------------------------------------------------------------- first-stage variance

FirstStageVariance first_stage_variance(const std::vector<double>& x,
                                        const std::vector<double>& n11, double threshold,
                                        std::size_t selected) {
  // log P(|N(0, v)| > threshold sqrt(n11)) and its derivative by log v.
  const auto selection = [&](double ratio, double* slope) {
    const double a = threshold * std::sqrt(ratio);
    const double density = std::exp(-0.5 * a * a) / std::sqrt(2 * std::numbers::pi);
    if (a > 30) {  // Mills' ratio where erfc runs out of exponents
      const double mills = (1 - 1 / (a * a)) / a;
      *slope = 0.5 * a / mills;
      return -0.5 * a * a + std::log(mills * 2 / std::sqrt(2 * std::numbers::pi));
    }
    const double tail = std::erfc(a * std::numbers::sqrt2 / 2);
    *slope = density * a / tail;
    return std::log(tail);
  };
  struct Point {
    double value, slope;  // log likelihood and its derivative by log g
  };
  const auto evaluate = [&](double log_g) {
    const double g = std::exp(log_g);
    Point out{0, 0};
    for (std::size_t j = 0; j < x.size(); ++j) {
      const double v = n11[j] + g, square = x[j] * x[j] / v;
      double tail = 0, tail_slope = 0;
      if (threshold > 0 && j < selected) tail = selection(n11[j] / v, &tail_slope);
      out.value += -0.5 * (std::log(v) + square) - tail;
      out.slope += g / v * (0.5 * (square - 1) - tail_slope);
    }
    return out;
  };
  const auto [smallest, largest] = std::minmax_element(n11.begin(), n11.end());
  double top = *largest;
  for (const double value : x) top = std::max(top, value * value);
  const double low = std::log(*smallest) - 14, high = std::log(top) + 3;
  const auto steps = static_cast<std::size_t>(std::ceil((high - low) / 1.2));
  const auto place = [&](std::size_t i) {
    return low + (high - low) * static_cast<double>(i) / static_cast<double>(steps);
  };
  FirstStageVariance best{0.0, true};
  Point before = evaluate(low);
  double best_value = before.value;
  if (before.slope > 0) best_value = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 1; i <= steps; ++i) {
    const Point here = evaluate(place(i));
    if (before.slope > 0 && here.slope <= 0) {  // a maximum in between: root of the derivative
      double a = place(i - 1), b = place(i), fa = before.slope, fb = here.slope;
      for (int step = 0; step < 200 && b - a > 4e-16 * std::max(1.0, std::abs(a)); ++step) {
        double middle = (a * fb - b * fa) / (fb - fa);
        if (step % 3 == 2 || !(middle > a && middle < b)) middle = 0.5 * (a + b);
        const Point found = evaluate(middle);
        if (found.slope > 0) {
          fa = found.slope;
          if (a == middle) break;
          a = middle;
        } else {
          fb = found.slope;
          if (b == middle) break;
          b = middle;
        }
        if (found.slope == 0) break;
      }
      const double root = std::abs(fa) < std::abs(fb) ? a : b;
      const double value = evaluate(root).value;
      if (value > best_value) {
        best_value = value;
        best = {std::exp(root), false};
      }
    }
    before = here;
  }
  if (best.at_boundary) best.value = 0;
  return best;
}

// ------------------------------------------------------------------------------- the likelihood

struct IdentifiedModel::Workspace {
  Workspace(const IdentifiedModel& model, const Plan& plan)
      : residual(model.lanes_size_),
        variance(model.lanes_size_),
        terms(plan.node.size() * kLanes),
        buffer(9 * kChunk * kLanes) {}

  double* part(std::size_t i) { return buffer.data() + i * kChunk * kLanes; }

  std::vector<double> residual, variance;  // (J, kLanes)
  std::vector<double> terms;               // (nodes of the plan, kLanes)
  std::vector<double> buffer;
  std::vector<double> moments;  // (3, J, kLanes)
  double log_sum[kLanes];
};

IdentifiedModel::IdentifiedModel(const Associations& data, const HyperTable& table, double g,
                                 const std::vector<bool>& independent, const ExtraLikelihood* extra)
    : size_(data.x.size()), table_(table), extra_(extra), slope_(data.slope) {
  for (std::size_t j = 0; j < size_; ++j)
    if (independent.empty() || independent[j]) member_.push_back(j);
  lanes_size_ = member_.size() * kLanes;
  unit_ = std::sqrt(median(data.n22));
  double square = 0;
  for (const double value : data.x) square += value * value;
  const double rms = std::sqrt(square / static_cast<double>(size_));
  const double least_a0 = *std::min_element(table_.a0.begin(), table_.a0.end());
  const auto note = [&](const Line& line, double share) {
    if (line.gradient == 0) return;
    const double gradient2 = line.gradient * line.gradient;
    const double ratio = line.intercept / line.gradient, gap = ratio - line.center;
    information_ += share * gradient2 / (line.base + least_a0 * least_a0);
    ratios_.push_back({ratio, share * gradient2 / (line.base + line.steep * gap * gap)});
  };
  for (const std::size_t j : member_) {
    const double n11 = data.n11[j], x = data.x[j];
    const double keep = g / (n11 + g);
    const Line line = line_of(data, j, g);
    note(line, 1);
    intercept_.push_back(line.intercept);
    gradient_.push_back(line.gradient);
    base_.push_back(line.base);
    steep_.push_back(line.steep);
    center_.push_back(line.center);
    sign_.push_back(x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0);
    proportional_.push_back(rms > 0 ? x / rms : 0.0);
    shrunk_.push_back(keep * x);
    spread_.push_back(keep * n11);
  }

  if (extra_ != nullptr) {
    const Associations directions = extra_->directions();
    for (std::size_t k = 0; k < directions.x.size(); ++k) note(line_of(directions, k, g), 1);
    // Their own ratios are looked at too, but tell nothing that their directions do not.
    for (std::size_t j = 0; j < size_; ++j)
      if (!independent[j]) note(line_of(data, j, g), 1e-6);
  }
  std::sort(ratios_.begin(), ratios_.end());
  log_normaliser_ = static_cast<double>(member_.size()) * std::log(unit_);
  everything_ = make_plan(std::vector<char>(table_.size(), 1));
  // A slab proportional to x that holds most candidates shifts the effect by as much.
  for (std::size_t h = 0; h < table_.size() && rms > 0; ++h)
    if (table_.mean[h] == SlabMean::kProportional)
      shifts_.push_back(table_.rho[h] * table_.a1[h] * unit_ / rms);
  std::sort(shifts_.begin(), shifts_.end());
  shifts_.erase(std::unique(shifts_.begin(), shifts_.end(),
                            [](double p, double q) { return q - p <= 0.02 * std::abs(p); }),
                shifts_.end());
  zero_.assign(size_, 0.0);
}

IdentifiedModel::Line IdentifiedModel::line_of(const Associations& data, std::size_t j,
                                               double g) const {
  const double n11 = data.n11[j], n22 = data.n22[j], n12 = data.n12[j], x = data.x[j];
  const double mu = data.slope, square = unit_ * unit_;
  const double keep = g / (n11 + g);
  const double rest = std::max(n22 - n12 * n12 / n11, 0.0);
  return {(data.y[j] - n12 * mu * x / (n11 + g)) / unit_, keep * x / unit_,
          (n22 + mu * mu * rest) / square, keep * n11 / square, mu * n12 / n11};
}

IdentifiedModel::Plan IdentifiedModel::make_plan(const std::vector<char>& keep) const {
  const auto key = [&](std::size_t h) {
    return std::make_tuple(table_.a0[h], table_.a1[h], static_cast<int>(table_.mean[h]),
                           table_.rho[h]);
  };
  Plan plan;
  for (std::size_t h = 0; h < table_.size(); ++h)
    if (keep[h]) plan.node.push_back(h);
  std::stable_sort(plan.node.begin(), plan.node.end(),
                   [&](std::size_t h, std::size_t k) { return key(h) < key(k); });
  for (std::size_t i = 0; i < plan.node.size(); ++i) {
    const std::size_t h = plan.node[i];
    plan.pi.push_back(table_.pi[h]);
    plan.log_weight.push_back(std::log(table_.weight[h]));
    const bool new_spike = i == 0 || table_.a0[h] != table_.a0[plan.node[i - 1]];
    const bool new_slab = new_spike || table_.a1[h] != table_.a1[plan.node[i - 1]];
    if (new_spike) plan.spike_scales.push_back({table_.a0[h], plan.slab_scales.size(), 0});
    if (new_slab) {
      plan.slab_scales.push_back({table_.a1[h], plan.families.size(), 0});
      ++plan.spike_scales.back().count;
    }
    if (new_slab || key(h) != key(plan.node[i - 1])) {
      plan.families.push_back({table_.mean[h], table_.rho[h], i, 0});
      ++plan.slab_scales.back().count;
    }
    ++plan.families.back().count;
  }
  return plan;
}

// About a twentieth of the table, of all kinds, to find out where the posterior has its modes.
IdentifiedModel::Plan IdentifiedModel::scan_plan() const {
  const auto thin = [](std::vector<double> values, std::size_t first, std::size_t last) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    const std::size_t n = values.size();
    return std::array<double, 2>{values[first * (n - 1) / 3], values[last * (n - 1) / 3]};
  };
  const auto a1 = thin(table_.a1, 1, 3);
  std::vector<char> keep(table_.size(), 0);
  for (const SlabMean mean : {SlabMean::kCentred, SlabMean::kSign, SlabMean::kProportional}) {
    std::vector<double> pi, rho;
    for (std::size_t h = 0; h < table_.size(); ++h)
      if (table_.mean[h] == mean) {
        pi.push_back(table_.pi[h]);
        rho.push_back(std::abs(table_.rho[h]));
      }
    if (pi.empty()) continue;
    const auto some_pi = thin(pi, 1, 3), some_rho = thin(rho, 2, 2);
    for (std::size_t h = 0; h < table_.size(); ++h)
      keep[h] |= table_.mean[h] == mean && std::abs(table_.rho[h]) == some_rho[0] &&
                 std::count(a1.begin(), a1.end(), table_.a1[h]) > 0 &&
                 std::count(some_pi.begin(), some_pi.end(), table_.pi[h]) > 0;
  }
  if (std::count(keep.begin(), keep.end(), 1) == 0) return everything_;
  return make_plan(keep);
}

const double* IdentifiedModel::direction(SlabMean mean) const {
  switch (mean) {
    case SlabMean::kSign:
      return sign_.data();
    case SlabMean::kProportional:
      return proportional_.data();
    default:
      return zero_.data();
  }
}

void IdentifiedModel::prepare(const double* b, Workspace& w) const {
  for (std::size_t j = 0; j < member_.size(); ++j)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double gap = b[l] - center_[j];
      w.residual[j * kLanes + l] = intercept_[j] - b[l] * gradient_[j];
      w.variance[j * kLanes + l] = base_[j] + steep_[j] * gap * gap;
    }
}

// Log likelihoods of the nodes of the plan at kLanes effects.
void IdentifiedModel::evaluate(const Plan& plan, const double* b, Workspace& w) const {
  prepare(b, w);
  std::fill(w.terms.begin(), w.terms.end(), 0.0);
  const double least = base_.empty() ? 1.0 : *std::min_element(base_.begin(), base_.end());
  double *total = w.part(0), *inverse0 = w.part(1), *half = w.part(2), *inverse1 = w.part(3),
         *ratio = w.part(4), *spike = w.part(5), *difference = w.part(6);
  for (std::size_t start = 0; start < member_.size(); start += kChunk) {
    const std::size_t n = std::min(kChunk, member_.size() - start);
    const double* residual = w.residual.data() + start * kLanes;
    const double* variance = w.variance.data() + start * kLanes;
    for (const SpikeScale& outer : plan.spike_scales) {
      double base[kLanes];
      const double a0_square = outer.a0 * outer.a0;
      spike_terms(n, a0_square, residual, variance, total, inverse0, half, base);
      for (std::size_t k = outer.first; k < outer.first + outer.count; ++k) {
        const SlabScale& inner = plan.slab_scales[k];
        const double a1_square = inner.a1 * inner.a1;
        slab_terms(n, a1_square, total, inverse1, ratio);
        const double least_ratio = std::sqrt((least + a0_square) / (least + a0_square + a1_square));
        for (std::size_t f = inner.first; f < inner.first + inner.count; ++f) {
          const Family& family = plan.families[f];
          double gain[kLanes];
          std::copy(base, base + kLanes, gain);
          component_pairs(n, family.rho * inner.a1, direction(family.mean) + start, residual, half,
                          inverse1, ratio, spike, difference, gain);
          for (std::size_t p = 0; p < family.count; p += kGroup) {
            const std::size_t count = std::min(kGroup, family.count - p);
            const double* pi = plan.pi.data() + family.first + p;
            double smallest = 1;
            for (std::size_t i = 0; i < count; ++i)
              smallest = std::min({smallest, 1 - pi[i], pi[i] * least_ratio});
            const double run = -680 / std::log(std::min(smallest, 0.5));
            double* terms = w.terms.data() + (family.first + p) * kLanes;
            for (std::size_t i = 0; i < count; ++i)
              for (std::size_t l = 0; l < kLanes; ++l) terms[i * kLanes + l] += gain[l];
            mixture_logs(n, std::max<std::size_t>(1, static_cast<std::size_t>(run)), count, pi,
                         spike, difference, terms);
          }
        }
      }
    }
  }
  if (extra_ != nullptr) extra_->add(b, plan.node.data(), plan.node.size(), w.terms.data());
}

template <class Use>
void IdentifiedModel::for_each(const Plan& plan, const double* b, std::size_t n,
                               std::size_t threads, Monitor& monitor, const Use& use) const {
  parallel_for((n + kLanes - 1) / kLanes, threads, monitor, [&](std::size_t block) {
    Workspace w(*this, plan);
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = b[std::min(block * kLanes + l, n - 1)];
    evaluate(plan, lanes, w);
    softmax(plan.node.size(), plan.log_weight.data(), w.terms.data(), w.log_sum);
    for (std::size_t l = 0; l < kLanes && block * kLanes + l < n; ++l)
      use(block * kLanes + l, l, w);
    monitor.step();
  });
}

void IdentifiedModel::log_likelihood(const double* b, std::size_t n, double* out) const {
  Workspace w(*this, everything_);
  for (std::size_t start = 0; start < n; start += kLanes) {
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = b[std::min(start + l, n - 1)];
    evaluate(everything_, lanes, w);
    for (std::size_t l = 0; l < std::min(kLanes, n - start); ++l)
      for (std::size_t i = 0; i < hyper_size(); ++i)
        out[(start + l) * hyper_size() + everything_.node[i]] =
            w.terms[i * kLanes + l] - log_normaliser_;
  }
}

std::vector<double> IdentifiedModel::log_marginal(const std::vector<double>& b, std::size_t threads,
                                                  Monitor& monitor) const {
  std::vector<double> out(b.size());
  for_each(everything_, b.data(), b.size(), threads, monitor,
           [&](std::size_t i, std::size_t l, const Workspace& w) {
             out[i] = w.log_sum[l] - log_normaliser_;
           });
  return out;
}

double IdentifiedModel::law_of_c(double b) const {
  return slope_prior_ == nullptr ? 0.0 : slope_prior_->log_smoothed(slope_ - b, slope_sd_);
}

double IdentifiedModel::log_prior(double b, double effect_sd) const {
  const double z = b / effect_sd;
  return -0.5 * (z * z + kLogTwoPi) - std::log(effect_sd) + law_of_c(b);
}

// ------------------------------------------------------------------------------- integration

struct IdentifiedModel::Panels {
  struct Panel {
    double lower, upper;
    std::size_t first = 0;  // of its nodes
    double value = 0, error = 0;
    double law[kPanelNodes] = {};  // log of the law of c, smoothed where it is too sharp
  };
  Plan plan;                            // what counts of the table
  std::vector<double> node, log_value;  // log marginal likelihood plus the normal prior
  std::vector<double> share;            // (nodes, nodes of the plan)
  std::vector<Panel> panel;             // in ascending order
  double top = 0;                       // largest log value with the law of c
  std::size_t evaluations = 0;
};

// Where the posterior may have modes: ratios of the candidates, their weighted mean, the
// observational slope, the prior.
std::vector<double> IdentifiedModel::scan_points(double effect_sd) const {
  constexpr std::size_t kRatios = 48;
  constexpr double kSteps[] = {0, 0.5, 1, 2, 3};
  double weight = 0, mean = 0;
  for (const auto& [ratio, w] : ratios_) {
    weight += w;
    mean += w * ratio;
  }
  const double prior_precision = 1 / (effect_sd * effect_sd);
  const double sd = 1 / std::sqrt(information_ + prior_precision);
  std::vector<double> out;
  for (const double step : kSteps)
    for (const double side : {-1.0, 1.0}) {
      out.push_back(side * step * effect_sd);
      out.push_back((weight > 0 ? mean / (weight + prior_precision) : 0.0) + side * 2 * step * sd);
      if (slope_prior_ != nullptr) out.push_back(slope_ + side * step * 4 * slope_sd_);
    }
  if (ratios_.size() <= kRatios) {
    for (const auto& [ratio, w] : ratios_) out.push_back(ratio);
  } else {  // quantiles by information and by number
    double below = 0;
    std::size_t next = 0;
    for (std::size_t i = 0; i < ratios_.size(); ++i) {
      below += ratios_[i][1];
      const auto rank = static_cast<std::size_t>(below / weight * kRatios);
      const bool counted =
          i * (kRatios / 2) / ratios_.size() != (i + 1) * (kRatios / 2) / ratios_.size();
      if (rank > next || counted) out.push_back(ratios_[i][0]);
      next = std::max(next, rank);
    }
  }
  std::sort(out.begin(), out.end());
  std::vector<double> apart;
  for (const double b : out)
    if (apart.empty() || b - apart.back() > 0.4 * sd) apart.push_back(b);
  return apart;
}

void IdentifiedModel::run(double effect_sd, const IdentifiedOptions& options, Monitor& monitor,
                          Panels& out) const {
  const PanelRule& rule = PanelRule::get();
  const double least_sd = 1 / std::sqrt(information_ + 1 / (effect_sd * effect_sd));
  const auto smooth_prior = [&](double b) {  // all but the law of c
    const double z = b / effect_sd;
    return -0.5 * (z * z + kLogTwoPi) - std::log(effect_sd);
  };
  using Scan = std::vector<std::array<double, 2>>;  // effects in ascending order, log posteriors
  const auto look = [&](const Plan& plan, const std::vector<double>& b, Scan& scan) {
    std::vector<double> value(b.size());
    for_each(plan, b.data(), b.size(), options.threads, monitor,
             [&](std::size_t i, std::size_t l, const Workspace& w) {
               value[i] = w.log_sum[l] - log_normaliser_;
             });
    out.evaluations += b.size();
    for (std::size_t i = 0; i < b.size(); ++i)
      scan.push_back({b[i], value[i] + smooth_prior(b[i]) + law_of_c(b[i])});
    std::sort(scan.begin(), scan.end());
    scan.erase(std::unique(scan.begin(), scan.end(),
                           [](const auto& p, const auto& q) { return p[0] == q[0]; }),
               scan.end());
  };
  const auto highest = [](const Scan& scan) {
    double top = -std::numeric_limits<double>::infinity();
    for (const auto& point : scan) top = std::max(top, point[1]);
    return top;
  };
  struct Mode {
    double at, sd, height;
  };
  const auto find_modes = [&](const Scan& scan, double depth) {
    const double top = highest(scan);
    std::vector<Mode> found;
    for (std::size_t i = 0; i < scan.size(); ++i) {
      const bool first = i == 0, last = i + 1 == scan.size();
      if (scan[i][1] < top - depth || (!first && scan[i][1] < scan[i - 1][1]) ||
          (!last && scan[i][1] <= scan[i + 1][1]))
        continue;
      Mode mode{scan[i][0], least_sd, scan[i][1]};
      if (!first && !last) {
        const double x[3] = {scan[i - 1][0], scan[i][0], scan[i + 1][0]};
        const double f[3] = {scan[i - 1][1], scan[i][1], scan[i + 1][1]};
        double sd = 0;
        mode.at = quadratic_peak(x, f, &sd);
        mode.sd = std::max(sd, 0.5 * least_sd);
      }
      found.push_back(mode);
    }
    return found;
  };

  // Where the modes are, by a small part of the table; then all of it there and around.
  Scan rough, scan;
  const Plan rough_plan = scan_plan();
  look(rough_plan, scan_points(effect_sd), rough);
  if (monitor.stopped()) return;
  std::vector<Mode> rough_modes = find_modes(rough, 1e300);
  for (int round = 0; round < 20; ++round) {  // narrow what lies far above both its neighbours
    std::vector<double> points;
    const double floor = highest(rough) - options.depth - 8;
    for (std::size_t i = 1; i + 1 < rough.size(); ++i) {
      const double rise = rough[i][1] - std::max(rough[i - 1][1], rough[i + 1][1]);
      const double width = rough[i + 1][0] - rough[i - 1][0];
      if (rise > 12 && rough[i][1] + rise > floor && width > 1e-9 * std::abs(rough[i][0]))
        for (std::size_t l = 1; l <= kLanes; ++l)
          points.push_back(rough[i - 1][0] + width * static_cast<double>(l) / (kLanes + 1));
    }
    if (points.empty() || monitor.stopped()) break;
    look(rough_plan, points, rough);
    rough_modes = find_modes(rough, 1e300);
  }
  std::stable_sort(rough_modes.begin(), rough_modes.end(),
                   [](const Mode& p, const Mode& q) { return p.height > q.height; });
  if (rough_modes.size() > kModes) rough_modes.resize(kModes);
  std::vector<double> around, level, share;
  const auto evaluate_new = [&] {
    const std::size_t done = level.size();
    level.resize(around.size());
    share.resize(around.size() * hyper_size());
    for_each(everything_, around.data() + done, around.size() - done, options.threads, monitor,
             [&](std::size_t n, std::size_t l, const Workspace& w) {
               const std::size_t i = done + n;
               level[i] =
                   w.log_sum[l] - log_normaliser_ + smooth_prior(around[i]) + law_of_c(around[i]);
               for (std::size_t k = 0; k < hyper_size(); ++k)
                 share[i * hyper_size() + k] = w.terms[k * kLanes + l];
             });
    out.evaluations += around.size() - done;
  };
  for (const Mode& mode : rough_modes) around.push_back(mode.at);
  const std::size_t first_shift = around.size();
  for (const double shift : shifts_) around.push_back(rough_modes.front().at - shift);
  evaluate_new();
  if (monitor.stopped()) return;
  // What is tried may lie off a mode's peak; a shift counts where it stands out.
  const double first_summit = *std::max_element(level.begin(), level.end());
  std::vector<std::size_t> order(around.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t k) { return around[i] < around[k]; });
  for (std::size_t n = 0; n < order.size(); ++n) {
    const std::size_t i = order[n];
    const bool peak = (n == 0 || level[i] > level[order[n - 1]]) &&
                      (n + 1 == order.size() || level[i] > level[order[n + 1]]);
    if (level[i] < first_summit - options.depth - 8 || (i >= first_shift && !peak)) continue;
    const double sd = i < first_shift ? rough_modes[i].sd : 1.5 * least_sd;
    for (const double step : {-4.0, -2.4, -1.2, -0.4, 0.4, 1.2, 2.4, 4.0})
      around.push_back(around[i] + step * sd);
  }
  evaluate_new();
  if (monitor.stopped()) return;
  const double summit = *std::max_element(level.begin(), level.end());
  std::vector<char> keep(hyper_size(), 0);
  for (std::size_t i = 0; i < around.size(); ++i) {
    scan.push_back({around[i], level[i]});
    const double least = std::exp(std::min(summit - level[i] - kWorthKeeping, 700.0));
    for (std::size_t k = 0; k < hyper_size(); ++k)
      if (share[i * hyper_size() + k] > least) keep[everything_.node[k]] = 1;
  }
  std::sort(scan.begin(), scan.end());
  out.plan = make_plan(keep);

  // Where the density has died away on both sides.
  const auto outside = [&](const std::array<double, 2>& point) {
    return point[1] < highest(scan) - options.depth;
  };
  const double rough_floor = highest(rough) - options.depth - 3;
  for (const bool left : {true, false}) {
    if (left == false) std::reverse(rough.begin(), rough.end());
    std::size_t inner = 0;
    while (rough[inner][1] < rough_floor) ++inner;
    std::vector<double> points;
    if (inner > 0)
      for (std::size_t l = 0; l < kLanes; ++l)
        points.push_back(rough[inner - 1][0] +
                         (rough[inner][0] - rough[inner - 1][0]) * static_cast<double>(l) / kLanes);
    const auto tip = [&] { return left ? scan.front() : scan.back(); };
    if (!points.empty()) look(out.plan, points, scan);
    for (int tries = 0; tries < 40 && !outside(tip()) && !monitor.stopped(); ++tries) {
      points.clear();
      double step = (left ? -1.5 : 1.5) * least_sd;
      for (std::size_t l = 0; l < kLanes; ++l, step *= 2) points.push_back(tip()[0] + step);
      look(out.plan, points, scan);
    }
  }
  if (monitor.stopped()) return;
  std::size_t begin = 0, end = scan.size() - 1;
  while (begin + 1 < end && outside(scan[begin + 1])) ++begin;
  while (end > begin + 1 && outside(scan[end - 1])) --end;
  out.top = highest(scan);

  // Panels between the flanks of the modes that matter.
  std::vector<std::array<double, 2>> edges = {{scan[begin][0], 0.0}, {scan[end][0], 0.0}};
  for (const Mode& mode : find_modes(scan, 14.0))
    for (const double step : {-7.5, -4.4, -1.5, 1.5, 4.4, 7.5}) {
      const double at = mode.at + step * mode.sd;
      if (at > scan[begin][0] && at < scan[end][0]) edges.push_back({at, mode.sd});
    }
  std::sort(edges.begin(), edges.end());
  const auto fill = [&](const std::vector<std::size_t>& fresh) {
    const std::size_t first = out.node.size(), width = out.plan.node.size();
    for (const std::size_t p : fresh) {
      Panels::Panel& panel = out.panel[p];
      panel.first = out.node.size();
      // The law of c has panels of its own, see finish(): its peak does not count here.
      const double middle = 0.5 * (panel.lower + panel.upper);
      const double half = 0.5 * (panel.upper - panel.lower);
      const bool near = std::abs(slope_ - middle) < 2 * half;
      for (std::size_t i = 0; i < kPanelNodes; ++i) {
        const double b = middle + half * rule.node[i];
        out.node.push_back(b);
        if (slope_prior_ != nullptr)
          panel.law[i] =
              slope_prior_->log_smoothed(slope_ - b, near ? std::max(slope_sd_, half) : slope_sd_);
      }
    }
    out.log_value.resize(out.node.size());
    out.share.resize(out.node.size() * width);
    for_each(out.plan, out.node.data() + first, out.node.size() - first, options.threads, monitor,
             [&](std::size_t i, std::size_t l, const Workspace& w) {
               const std::size_t node = first + i;
               out.log_value[node] = w.log_sum[l] - log_normaliser_ + smooth_prior(out.node[node]);
               double* target = out.share.data() + node * width;
               for (std::size_t k = 0; k < width; ++k) target[k] = w.terms[k * kLanes + l];
             });
    out.evaluations += out.node.size() - first;
  };
  std::vector<std::size_t> fresh;
  double lower = edges.front()[0];
  for (std::size_t i = 1; i < edges.size(); ++i) {
    const bool last = i + 1 == edges.size();
    if (!last &&
        (edges[i][0] - lower < edges[i][1] || edges.back()[0] - edges[i][0] < 0.5 * edges[i][1]))
      continue;
    fresh.push_back(out.panel.size());
    out.panel.push_back({lower, edges[i][0]});
    lower = edges[i][0];
  }
  fill(fresh);
  for (;;) {
    if (monitor.stopped()) return;
    double total = 0, error = 0;
    for (auto& panel : out.panel) {
      double f[kPanelNodes];
      for (std::size_t i = 0; i < kPanelNodes; ++i)
        f[i] = std::exp(out.log_value[panel.first + i] + panel.law[i] - out.top);
      const RuleValue result = apply_rule(f, 0.5 * (panel.upper - panel.lower));
      panel.value = result.value;
      panel.error = result.error;
      total += result.value;
      error += result.error;
    }
    if (error <= options.tolerance * total || out.panel.size() >= options.max_panels) break;
    // Halve every panel whose error is more than its share.
    const double limit = options.tolerance * total / static_cast<double>(out.panel.size());
    std::vector<Panels::Panel> next;
    fresh.clear();
    for (const auto& panel : out.panel) {
      const double middle = 0.5 * (panel.lower + panel.upper);
      if (panel.error <= limit || !(middle > panel.lower && middle < panel.upper)) {
        next.push_back(panel);
        continue;
      }
      for (const auto& [a, b] : {std::pair{panel.lower, middle}, std::pair{middle, panel.upper}}) {
        fresh.push_back(next.size());
        next.push_back({a, b});
      }
    }
    if (fresh.empty()) break;
    out.panel = std::move(next);
    fill(fresh);
  }
}

// The law of b: the likelihood, interpolated within its panels, times the law of c on panels of its
// own, which follow the peak of the latter at the observational slope.
EffectLaw IdentifiedModel::finish(const Panels& panels, const IdentifiedOptions& options,
                                  std::vector<double>* node_weight) const {
  const PanelRule& rule = PanelRule::get();
  struct Piece {
    double lower, upper;
    std::size_t owner;
    double log_value[kPanelNodes];
    double value, error;
  };
  const auto fill = [&](Piece& piece) {
    const auto& panel = panels.panel[piece.owner];
    const double* source = panels.log_value.data() + panel.first;
    const double half = 0.5 * (piece.upper - piece.lower);
    const double middle = 0.5 * (piece.lower + piece.upper);
    const bool whole = piece.lower == panel.lower && piece.upper == panel.upper;
    double f[kPanelNodes];
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      const double b = middle + half * rule.node[i];
      double log_value = source[i];
      if (!whole) {
        double basis[kPanelNodes];
        rule.basis((2 * b - panel.lower - panel.upper) / (panel.upper - panel.lower), basis);
        log_value = 0;
        for (std::size_t k = 0; k < kPanelNodes; ++k) log_value += basis[k] * source[k];
      }
      log_value += law_of_c(b);
      piece.log_value[i] = log_value;
      f[i] = std::exp(log_value - panels.top);
    }
    const RuleValue result = apply_rule(f, half);
    piece.value = result.value;
    piece.error = result.error;
  };
  std::vector<Piece> pieces;
  for (std::size_t p = 0; p < panels.panel.size(); ++p) {
    const auto& panel = panels.panel[p];
    std::vector<double> cuts = {panel.lower, panel.upper};
    if (slope_prior_ != nullptr)
      for (double reach = 2.5 * slope_sd_; reach < 1e4 * (panel.upper - panel.lower); reach *= 3) {
        const double margin = 0.2 * std::min(reach, panel.upper - panel.lower);
        for (const double at : {slope_ - reach, slope_ + reach})
          if (at > panel.lower + margin && at < panel.upper - margin) cuts.push_back(at);
      }
    std::sort(cuts.begin(), cuts.end());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      pieces.push_back({cuts[i], cuts[i + 1], p, {}, 0, 0});
      fill(pieces.back());
    }
  }
  double total = 0, error = 0;
  for (;;) {
    total = error = 0;
    for (const Piece& piece : pieces) total += piece.value, error += piece.error;
    if (error <= options.tolerance * total || pieces.size() >= options.max_panels) break;
    const double limit = options.tolerance * total / static_cast<double>(pieces.size());
    std::vector<Piece> next;
    for (const Piece& piece : pieces) {
      const double middle = 0.5 * (piece.lower + piece.upper);
      if (piece.error <= limit || !(middle > piece.lower && middle < piece.upper)) {
        next.push_back(piece);
        continue;
      }
      next.push_back({piece.lower, middle, piece.owner, {}, 0, 0});
      fill(next.back());
      next.push_back({middle, piece.upper, piece.owner, {}, 0, 0});
      fill(next.back());
    }
    if (next.size() == pieces.size()) break;
    pieces = std::move(next);
  }
  for (const auto& panel : panels.panel) error += panel.error;

  EffectLaw law;
  law.log_evidence = panels.top + std::log(total);
  law.error = error / total;
  law.evaluations = panels.evaluations;
  law.edges.push_back(pieces.front().lower);
  for (const Piece& piece : pieces) {
    law.edges.push_back(piece.upper);
    for (const double value : piece.log_value) law.log_density.push_back(value - law.log_evidence);
  }
  if (node_weight != nullptr) {
    node_weight->assign(panels.panel.size() * kPanelNodes, 0.0);
    for (const Piece& piece : pieces) {
      const auto& panel = panels.panel[piece.owner];
      const double half = 0.5 * (piece.upper - piece.lower);
      const double middle = 0.5 * (piece.lower + piece.upper);
      const bool whole = piece.lower == panel.lower && piece.upper == panel.upper;
      double* weight = node_weight->data() + piece.owner * kPanelNodes;
      for (std::size_t i = 0; i < kPanelNodes; ++i) {
        const double mass =
            half * rule.kronrod[i] * std::exp(piece.log_value[i] - law.log_evidence);
        if (whole) {
          weight[i] += mass;
          continue;
        }
        const double b = middle + half * rule.node[i];
        double basis[kPanelNodes];
        rule.basis((2 * b - panel.lower - panel.upper) / (panel.upper - panel.lower), basis);
        for (std::size_t k = 0; k < kPanelNodes; ++k) weight[k] += mass * basis[k];
      }
    }
  }
  return law;
}

EffectLaw IdentifiedModel::integrate(double effect_sd, const IdentifiedOptions& options,
                                     Monitor& monitor) const {
  Panels panels;
  run(effect_sd, options, monitor, panels);
  if (monitor.stopped()) return {};
  return finish(panels, options, nullptr);
}

// ---------------------------------------------------------------------------------- summaries

// Adds to sums (5, J) of the candidates the probability of the slab and the first two moments of
// both effects at kLanes effects, where w.terms hold the weights of the nodes of the plan.
void IdentifiedModel::accumulate(const Plan& plan, const double* b, Workspace& w,
                                 double* sums) const {
  prepare(b, w);
  double weight[kLanes] = {};
  for (std::size_t k = 0; k < plan.node.size(); ++k)
    for (std::size_t l = 0; l < kLanes; ++l) weight[l] += w.terms[k * kLanes + l];
  w.moments.resize(3 * kChunk * kLanes);
  double *total = w.part(0), *inverse0 = w.part(1), *half = w.part(2), *inverse1 = w.part(3),
         *ratio = w.part(4), *spike = w.part(5), *difference = w.part(6), *slab = w.part(7),
         *probability = w.part(8);
  for (std::size_t start = 0; start < member_.size(); start += kChunk) {
    const std::size_t n = std::min(kChunk, member_.size() - start);
    const double* residual = w.residual.data() + start * kLanes;
    const double* variance = w.variance.data() + start * kLanes;
    double* inclusion = w.moments.data();
    double* first = inclusion + kChunk * kLanes;
    double* second = first + kChunk * kLanes;
    std::fill(w.moments.begin(), w.moments.end(), 0.0);
    for (const SpikeScale& outer : plan.spike_scales) {
      double unused[kLanes], spike_weight[kLanes] = {};
      const double a0_square = outer.a0 * outer.a0;
      std::fill(slab, slab + n * kLanes, 0.0);
      bool any = false;
      for (std::size_t k = outer.first; k < outer.first + outer.count; ++k) {
        const SlabScale& inner = plan.slab_scales[k];
        bool scaled = false;
        for (std::size_t f = inner.first; f < inner.first + inner.count; ++f) {
          const Family& family = plan.families[f];
          const double* share = w.terms.data() + family.first * kLanes;
          double here[kLanes] = {}, size = 0;
          for (std::size_t p = 0; p < family.count; ++p)
            for (std::size_t l = 0; l < kLanes; ++l) here[l] += share[p * kLanes + l];
          for (std::size_t l = 0; l < kLanes; ++l) size += std::abs(here[l]);
          if (size < kNegligible) continue;
          if (!any) spike_terms(n, a0_square, residual, variance, total, inverse0, half, unused);
          if (!scaled) slab_terms(n, inner.a1 * inner.a1, total, inverse1, ratio);
          any = scaled = true;
          for (std::size_t l = 0; l < kLanes; ++l) spike_weight[l] += here[l];
          const double shift = family.rho * inner.a1;
          const double* where = direction(family.mean) + start;
          component_pairs(n, shift, where, residual, half, inverse1, ratio, spike, difference,
                          unused);
          std::fill(probability, probability + n * kLanes, 0.0);
          for (std::size_t p = 0; p < family.count; p += kGroup)
            slab_probability(n, std::min(kGroup, family.count - p),
                             plan.pi.data() + family.first + p, share + p * kLanes, spike,
                             difference, probability);
          slab_moments(n, shift, where, a0_square + inner.a1 * inner.a1, residual, variance,
                       inverse1, probability, slab, first, second);
        }
      }
      if (any)
        spike_moments(n, a0_square, spike_weight, slab, residual, variance, inverse0, inclusion,
                      first, second);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t j = start + i, column = member_[j];
      double add[5] = {};
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t at = i * kLanes + l;
        add[0] += inclusion[at];
        add[1] += first[at] * unit_;
        add[2] += second[at] * unit_ * unit_;
        // First stage given the pleiotropic effect a: shrunk + coupling (residual - a).
        const double coupling = spread_[j] * (b[l] - center_[j]) / (unit_ * variance[at]);
        const double r = residual[at], m = shrunk_[j] + coupling * r;
        add[3] += weight[l] * m - coupling * first[at];
        add[4] += weight[l] * (m * m + spread_[j] * base_[j] / variance[at]) -
                  2 * m * coupling * first[at] + coupling * coupling * second[at];
      }
      for (std::size_t s = 0; s < 5; ++s) sums[s * size_ + column] += add[s];
    }
  }
  if (extra_ != nullptr)
    extra_->summarise(b, plan.node.data(), plan.node.size(), w.terms.data(), sums);
}

IdentifiedSummary IdentifiedModel::summarise(double effect_sd, const IdentifiedOptions& options,
                                             Monitor& monitor) const {
  IdentifiedSummary out;
  Panels panels;
  run(effect_sd, options, monitor, panels);
  if (monitor.stopped()) return out;
  out.law = finish(panels, options, &out.node_weight);
  const std::size_t count = out.node_weight.size(), width = panels.plan.node.size();
  std::vector<std::size_t> source;
  for (const auto& panel : panels.panel)
    for (std::size_t i = 0; i < kPanelNodes; ++i) source.push_back(panel.first + i);
  out.hyper.assign(hyper_size(), 0.0);
  for (std::size_t k = 0; k < count; ++k) {
    out.node.push_back(panels.node[source[k]]);
    const double* share = panels.share.data() + source[k] * width;
    for (std::size_t h = 0; h < width; ++h)
      out.hyper[panels.plan.node[h]] += out.node_weight[k] * share[h];
  }

  const std::size_t blocks = (count + kLanes - 1) / kLanes;
  std::vector<double> partial(blocks * 5 * size_, 0.0);
  parallel_for(blocks, options.threads, monitor, [&](std::size_t block) {
    Workspace w(*this, panels.plan);
    double lanes[kLanes];
    std::fill(w.terms.begin(), w.terms.end(), 0.0);
    bool any = false;
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t k = std::min(block * kLanes + l, count - 1);
      lanes[l] = out.node[k];
      if (block * kLanes + l >= count || std::abs(out.node_weight[k]) < 1e-16) continue;
      any = true;
      const double* share = panels.share.data() + source[k] * width;
      for (std::size_t h = 0; h < width; ++h)
        w.terms[h * kLanes + l] = out.node_weight[k] * share[h];
    }
    if (any) accumulate(panels.plan, lanes, w, partial.data() + block * 5 * size_);
    monitor.step();
  });
  std::vector<double> sums(5 * size_, 0.0);
  for (std::size_t block = 0; block < blocks; ++block)
    for (std::size_t i = 0; i < 5 * size_; ++i) sums[i] += partial[block * 5 * size_ + i];
  const auto row = [&](std::size_t s) { return sums.data() + s * size_; };
  out.inclusion.assign(row(0), row(1));
  for (double& value : out.inclusion) value = std::clamp(value, 0.0, 1.0);
  out.pleiotropy_mean.assign(row(1), row(2));
  out.first_stage_mean.assign(row(3), row(4));
  for (std::size_t j = 0; j < size_; ++j) {
    out.pleiotropy_sd.push_back(std::sqrt(std::max(row(2)[j] - row(1)[j] * row(1)[j], 0.0)));
    out.first_stage_sd.push_back(std::sqrt(std::max(row(4)[j] - row(3)[j] * row(3)[j], 0.0)));
  }
  return out;
}

std::vector<double> IdentifiedModel::moments(const double* b, const double* weights, std::size_t n,
                                             std::size_t threads, Monitor& monitor) const {
  const std::size_t blocks = (n + kLanes - 1) / kLanes, width = hyper_size();
  std::vector<double> partial(blocks * 5 * size_, 0.0), sums(5 * size_, 0.0);
  parallel_for(blocks, threads, monitor, [&](std::size_t block) {
    Workspace w(*this, everything_);
    double lanes[kLanes];
    std::fill(w.terms.begin(), w.terms.end(), 0.0);
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = std::min(block * kLanes + l, n - 1);
      lanes[l] = b[i];
      if (block * kLanes + l >= n) continue;
      for (std::size_t k = 0; k < width; ++k)
        w.terms[k * kLanes + l] = weights[i * width + everything_.node[k]];
    }
    accumulate(everything_, lanes, w, partial.data() + block * 5 * size_);
    monitor.step();
  });
  for (std::size_t block = 0; block < blocks; ++block)
    for (std::size_t i = 0; i < 5 * size_; ++i) sums[i] += partial[block * 5 * size_ + i];
  return sums;
}

// -------------------------------------------------------------------------------------- draws

// At the effect of one lane of a prepared workspace, given node h: the independent candidates, then
// the others.
void IdentifiedModel::draw_candidates(double b, std::size_t h, std::size_t lane, const Workspace& w,
                                      const double* uniforms, const double* normals, bool* slab,
                                      double* first_stage, double* pleiotropy) const {
  const double a0_square = table_.a0[h] * table_.a0[h];
  const double a_square = a0_square + table_.a1[h] * table_.a1[h];
  const double pi = table_.pi[h], shift = table_.rho[h] * table_.a1[h];
  const double* where = direction(table_.mean[h]);
  for (std::size_t j = 0; j < member_.size(); ++j) {
    const std::size_t at = j * kLanes + lane, column = member_[j];
    const double r = w.residual[at], v = w.variance[at], mean = shift * where[j];
    const double advantage =
        0.5 * r * r / (v + a0_square) - 0.5 * (r - mean) * (r - mean) / (v + a_square) +
        0.5 * std::log((v + a0_square) / (v + a_square)) + std::log(pi) - std::log1p(-pi);
    const bool in = uniforms[column] < 1 / (1 + std::exp(-advantage));
    const double scale = in ? a_square : a0_square, shrink = scale / (v + scale);
    const double center = in ? mean : 0.0;
    const double a = center + shrink * (r - center) + std::sqrt(shrink * v) * normals[2 * column];
    const double coupling = spread_[j] * (b - center_[j]) / (unit_ * v);
    slab[column] = in;
    pleiotropy[column] = a * unit_;
    first_stage[column] = shrunk_[j] + coupling * (r - a) +
                          std::sqrt(spread_[j] * base_[j] / v) * normals[2 * column + 1];
  }
  if (extra_ != nullptr) extra_->draw(b, h, uniforms, normals, slab, first_stage, pleiotropy);
}

void IdentifiedModel::draw(const double* b, std::size_t n, const double* uniforms,
                           const double* normals, std::int64_t* node, bool* slab,
                           double* first_stage, double* pleiotropy, std::size_t threads,
                           Monitor& monitor) const {
  const auto draw_one = [&](std::size_t i, std::size_t l, const Workspace& w) {
    const double* u = uniforms + i * (1 + size_);
    std::size_t k = 0;
    double below = w.terms[l];
    while (below <= u[0] && k + 1 < hyper_size()) below += w.terms[++k * kLanes + l];
    const std::size_t h = everything_.node[k];
    node[i] = static_cast<std::int64_t>(h);
    draw_candidates(b[i], h, l, w, u + 1, normals + i * 2 * size_, slab + i * size_,
                    first_stage + i * size_, pleiotropy + i * size_);
  };
  for_each(everything_, b, n, threads, monitor, draw_one);
}

void IdentifiedModel::draw_given(const double* b, const std::int64_t* node, std::size_t n,
                                 const double* uniforms, const double* normals, bool* slab,
                                 double* first_stage, double* pleiotropy, std::size_t threads,
                                 Monitor& monitor) const {
  parallel_for((n + kLanes - 1) / kLanes, threads, monitor, [&](std::size_t block) {
    Workspace w(*this, everything_);
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = b[std::min(block * kLanes + l, n - 1)];
    prepare(lanes, w);
    for (std::size_t l = 0; l < kLanes && block * kLanes + l < n; ++l) {
      const std::size_t i = block * kLanes + l;
      draw_candidates(b[i], static_cast<std::size_t>(node[i]), l, w, uniforms + i * size_,
                      normals + i * 2 * size_, slab + i * size_, first_stage + i * size_,
                      pleiotropy + i * size_);
    }
    monitor.step(0);
  });
}

}  // namespace mrfast
