#include "identified.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "dispatch.hpp"
#include "vector_log.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kChunk = 64;       // candidates whose intermediate values stay in the cache
constexpr std::size_t kGroup = 6;        // slab probabilities multiplied side by side
constexpr double kNegligible = 1e-13;    // posterior weight of a family that is not worth a sum
constexpr double kLogTwoPi = 1.8378770664093454836;

// Gauss-Kronrod rule with 7 and 15 nodes on (-1, 1).
constexpr double kKronrodNode[8] = {0.991455371120812639206854697526329,
                                    0.949107912342758524526189684047851,
                                    0.864864423359769072789712788640926,
                                    0.741531185599394439863864773280788,
                                    0.586087235467691130294144691693819,
                                    0.405845151377397166906606412076961,
                                    0.207784955007898467600689403773245,
                                    0.0};
constexpr double kKronrodWeight[8] = {0.022935322010529224963732008058970,
                                      0.063092092629978553290700663189204,
                                      0.104790010322250183839876322541518,
                                      0.140653259715525918745189590510238,
                                      0.169004726639267902826583426598550,
                                      0.190350578064785409913256402421014,
                                      0.204432940075298892414161999234649,
                                      0.209482141084727828012999174891714};
constexpr double kGaussWeight[4] = {0.129484966168869693270611432679082,
                                    0.279705391489276667901467771423780,
                                    0.381830050505118944950369775488975,
                                    0.417959183673469387755102040816327};

struct PanelRule {
  double node[kPanelNodes], kronrod[kPanelNodes], gauss[kPanelNodes], barycentric[kPanelNodes];
  PanelRule() {
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      const std::size_t k = i < 8 ? i : kPanelNodes - 1 - i;
      node[i] = i < 8 ? -kKronrodNode[k] : kKronrodNode[k];
      kronrod[i] = kKronrodWeight[k];
      gauss[i] = k % 2 == 1 ? kGaussWeight[k / 2] : 0.0;
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
void spike_terms(std::size_t n, double a0_square, const double* residual, const double* variance,
                 double* total, double* inverse, double* half_square, double* sums) {
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
    sums[l] = -(square[l] + 0.5 * fast_log(product[l])) -
              0.5 * kLogTwoPi * static_cast<double>(n);
}

MRFAST_DISPATCH
void slab_terms(std::size_t n, double a1_square, const double* spike_total, double* inverse,
                double* ratio) {
  for (std::size_t i = 0; i < n * kLanes; ++i) {
    inverse[i] = 1 / (spike_total[i] + a1_square);
    ratio[i] = std::sqrt(spike_total[i] * inverse[i]);
  }
}

// Densities of spike and slab relative to the larger of their exponentials and the spike's
// normalising factor: s, and d = slab - spike; the exponents taken out are added to `gain`.
MRFAST_DISPATCH
void component_pairs(std::size_t n, double shift, const double* direction, const double* residual,
                     const double* half_square, const double* slab_inverse, const double* ratio,
                     double* spike, double* difference, double* gain) {
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
MRFAST_INLINE void mixture_group(std::size_t n, std::size_t run, const double* pi,
                                 const double* spike, const double* difference, double* out) {
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
void mixture_logs(std::size_t n, std::size_t run, std::size_t count, const double* pi,
                  const double* spike, const double* difference, double* out) {
  switch (count) {
    case 1: return mixture_group<1>(n, run, pi, spike, difference, out);
    case 2: return mixture_group<2>(n, run, pi, spike, difference, out);
    case 3: return mixture_group<3>(n, run, pi, spike, difference, out);
    case 4: return mixture_group<4>(n, run, pi, spike, difference, out);
    case 5: return mixture_group<5>(n, run, pi, spike, difference, out);
    default: return mixture_group<kGroup>(n, run, pi, spike, difference, out);
  }
}

// Terms (H, kLanes) become shares that sum to 1; `log_sum` their log sums.
MRFAST_DISPATCH
void softmax(std::size_t n, const double* log_weight, double* terms, double* log_sum) {
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

// Posterior probability of the slab summed over the probabilities of a family with weights (count,
// kLanes), and what it adds to the moments of the pleiotropic effect.
MRFAST_DISPATCH
void slab_moments(std::size_t n, std::size_t count, const double* pi, const double* weight,
                  double shift, const double* direction, double scale_square,
                  const double* residual, const double* variance, const double* slab_inverse,
                  const double* spike, const double* difference, double* inclusion, double* first,
                  double* second) {
  for (std::size_t j = 0; j < n; ++j) {
    const double mean = shift * direction[j];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t i = j * kLanes + l;
      double q = 0;
      for (std::size_t p = 0; p < count; ++p) {
        const double pd = pi[p] * difference[i];
        q += weight[p * kLanes + l] * ((pi[p] * spike[i] + pd) / (spike[i] + pd));
      }
      const double shrink = scale_square * slab_inverse[i];
      const double a = mean + shrink * (residual[i] - mean);
      inclusion[i] += q;
      first[i] += q * a;
      second[i] += q * (a * a + shrink * variance[i]);
    }
  }
}

MRFAST_DISPATCH
void spike_moments(std::size_t n, double a0_square, const double* weight, const double* slab,
                   const double* residual, const double* variance, const double* inverse,
                   double* inclusion, double* first, double* second) {
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
                                        const std::vector<double>& n11, double threshold) {
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
      if (threshold > 0) tail = selection(n11[j] / v, &tail_slope);
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
  explicit Workspace(const IdentifiedModel& model)
      : residual(model.lanes_size_),
        variance(model.lanes_size_),
        terms(model.hyper_size() * kLanes),
        buffer(8 * kChunk * kLanes) {}

  double* part(std::size_t i) { return buffer.data() + i * kChunk * kLanes; }

  std::vector<double> residual, variance;  // (J, kLanes)
  std::vector<double> terms;               // (H, kLanes)
  std::vector<double> buffer;
  std::vector<double> moments;             // (3, J, kLanes)
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
  const double mu = data.slope;
  for (const std::size_t j : member_) {
    const double n11 = data.n11[j], n22 = data.n22[j], n12 = data.n12[j], x = data.x[j];
    const double keep = g / (n11 + g);
    const double rest = std::max(n22 - n12 * n12 / n11, 0.0);
    intercept_.push_back((data.y[j] - n12 * mu * x / (n11 + g)) / unit_);
    gradient_.push_back(keep * x / unit_);
    base_.push_back((n22 + mu * mu * rest) / (unit_ * unit_));
    steep_.push_back(keep * n11 / (unit_ * unit_));
    center_.push_back(mu * n12 / n11);
    sign_.push_back(x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0);
    proportional_.push_back(rms > 0 ? x / rms : 0.0);
    shrunk_.push_back(keep * x);
    spread_.push_back(keep * n11);
  }

  for (const double w : table_.weight) log_weight_.push_back(std::log(w));
  std::vector<std::size_t> starts;
  const auto same = [&](std::size_t h, std::size_t k) {
    return table_.mean[h] == table_.mean[k] && table_.a0[h] == table_.a0[k] &&
           table_.a1[h] == table_.a1[k] && table_.rho[h] == table_.rho[k];
  };
  for (std::size_t h = 0; h < table_.size(); ++h)
    if (h == 0 || !same(h, h - 1)) starts.push_back(h);
  std::vector<std::size_t> order(starts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t k) {
    const std::size_t h = starts[i], m = starts[k];
    return table_.a0[h] != table_.a0[m] ? table_.a0[h] < table_.a0[m]
                                        : table_.a1[h] < table_.a1[m];
  });
  for (const std::size_t i : order) {
    const std::size_t h = starts[i];
    const std::size_t end = i + 1 < starts.size() ? starts[i + 1] : table_.size();
    const bool new_spike = spike_scales_.empty() || spike_scales_.back().a0 != table_.a0[h];
    if (new_spike) spike_scales_.push_back({table_.a0[h], slab_scales_.size(), 0});
    if (new_spike || slab_scales_.back().a1 != table_.a1[h]) {
      slab_scales_.push_back({table_.a1[h], families_.size(), 0});
      ++spike_scales_.back().count;
    }
    families_.push_back({table_.mean[h], table_.rho[h], h, end - h});
    ++slab_scales_.back().count;
  }
  zero_.assign(size_, 0.0);
}

const double* IdentifiedModel::direction(SlabMean mean) const {
  switch (mean) {
    case SlabMean::kSign: return sign_.data();
    case SlabMean::kProportional: return proportional_.data();
    default: return zero_.data();
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

// Log likelihoods of all nodes of the table at kLanes effects.
void IdentifiedModel::evaluate(const double* b, Workspace& w) const {
  prepare(b, w);
  std::fill(w.terms.begin(), w.terms.end(), 0.0);
  const double least =
      base_.empty() ? 1.0 : *std::min_element(base_.begin(), base_.end());
  double *total = w.part(0), *inverse0 = w.part(1), *half = w.part(2), *inverse1 = w.part(3),
         *ratio = w.part(4), *spike = w.part(5), *difference = w.part(6);
  for (std::size_t start = 0; start < member_.size(); start += kChunk) {
    const std::size_t n = std::min(kChunk, member_.size() - start);
    const double* residual = w.residual.data() + start * kLanes;
    const double* variance = w.variance.data() + start * kLanes;
    for (const SpikeScale& outer : spike_scales_) {
      double base[kLanes];
      const double a0_square = outer.a0 * outer.a0;
      spike_terms(n, a0_square, residual, variance, total, inverse0, half, base);
      for (std::size_t k = outer.first; k < outer.first + outer.count; ++k) {
        const SlabScale& inner = slab_scales_[k];
        const double a1_square = inner.a1 * inner.a1;
        slab_terms(n, a1_square, total, inverse1, ratio);
        const double least_ratio =
            std::sqrt((least + a0_square) / (least + a0_square + a1_square));
        for (std::size_t f = inner.first; f < inner.first + inner.count; ++f) {
          const Family& family = families_[f];
          double gain[kLanes];
          std::copy(base, base + kLanes, gain);
          component_pairs(n, family.rho * inner.a1, direction(family.mean) + start, residual, half,
                          inverse1, ratio, spike, difference, gain);
          for (std::size_t p = 0; p < family.count; p += kGroup) {
            const std::size_t count = std::min(kGroup, family.count - p);
            const double* pi = table_.pi.data() + family.first + p;
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
  if (extra_ != nullptr) extra_->add(b, w.terms.data());
}

void IdentifiedModel::normalise(Workspace& w) const {
  softmax(hyper_size(), log_weight_.data(), w.terms.data(), w.log_sum);
}

void IdentifiedModel::log_likelihood(const double* b, std::size_t n, double* out) const {
  Workspace w(*this);
  const double normaliser = static_cast<double>(member_.size()) * std::log(unit_);
  for (std::size_t start = 0; start < n; start += kLanes) {
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = b[std::min(start + l, n - 1)];
    evaluate(lanes, w);
    for (std::size_t l = 0; l < std::min(kLanes, n - start); ++l)
      for (std::size_t h = 0; h < hyper_size(); ++h)
        out[(start + l) * hyper_size() + h] = w.terms[h * kLanes + l] - normaliser;
  }
}

std::vector<double> IdentifiedModel::log_marginal(const std::vector<double>& b, std::size_t threads,
                                                  Monitor& monitor) const {
  std::vector<double> out(b.size());
  const double normaliser = static_cast<double>(member_.size()) * std::log(unit_);
  parallel_for((b.size() + kLanes - 1) / kLanes, threads, monitor, [&](std::size_t block) {
    Workspace w(*this);
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l)
      lanes[l] = b[std::min(block * kLanes + l, b.size() - 1)];
    evaluate(lanes, w);
    normalise(w);
    for (std::size_t l = 0; l < kLanes && block * kLanes + l < b.size(); ++l)
      out[block * kLanes + l] = w.log_sum[l] - normaliser;
    monitor.step();
  });
  return out;
}

double IdentifiedModel::log_prior(double b, double effect_sd) const {
  const double z = b / effect_sd;
  double out = -0.5 * (z * z + kLogTwoPi) - std::log(effect_sd);
  if (slope_prior_ != nullptr) out += slope_prior_->log_smoothed(slope_ - b, slope_sd_);
  return out;
}

// ------------------------------------------------------------------------------- integration

struct IdentifiedModel::Panels {
  struct Panel {
    double lower, upper;
    std::size_t first;  // of its nodes
    double value, error;
  };
  std::vector<double> node, log_value;  // log marginal likelihood plus the normal prior
  std::vector<double> share;            // (nodes, H)
  std::vector<Panel> panel;             // in ascending order
  double top = 0;                       // largest log value with the prior of c
  std::size_t evaluations = 0;
};

double IdentifiedModel::narrowest() const {
  double information = 0;
  const double a0 = spike_scales_.empty() ? 0.0 : spike_scales_.front().a0;
  for (std::size_t j = 0; j < member_.size(); ++j)
    information += gradient_[j] * gradient_[j] / (base_[j] + a0 * a0);
  return information;
}

// Where the posterior may have modes: ratios of the candidates, their weighted mean, the
// observational slope, the prior.
std::vector<double> IdentifiedModel::scan_points(double effect_sd) const {
  constexpr std::size_t kRatios = 48;
  constexpr double kSteps[] = {0, 0.5, 1, 2, 3};
  std::vector<std::pair<double, double>> ratios;  // with weights
  double weight = 0, mean = 0;
  for (std::size_t j = 0; j < member_.size(); ++j) {
    if (gradient_[j] == 0) continue;
    const double ratio = intercept_[j] / gradient_[j];
    const double gap = ratio - center_[j];
    const double w = gradient_[j] * gradient_[j] / (base_[j] + steep_[j] * gap * gap);
    ratios.emplace_back(ratio, w);
    weight += w;
    mean += w * ratio;
  }
  const double prior_precision = 1 / (effect_sd * effect_sd);
  const double sd = 1 / std::sqrt(narrowest() + prior_precision);
  std::vector<double> out;
  for (const double step : kSteps)
    for (const double side : {-1.0, 1.0}) {
      out.push_back(side * step * effect_sd);
      out.push_back((weight > 0 ? mean / (weight + prior_precision) : 0.0) + side * 2 * step * sd);
      if (slope_prior_ != nullptr) out.push_back(slope_ + side * step * 4 * slope_sd_);
    }
  std::sort(ratios.begin(), ratios.end());
  if (ratios.size() <= kRatios) {
    for (const auto& [ratio, w] : ratios) out.push_back(ratio);
  } else {  // quantiles by information and by number
    double below = 0;
    std::size_t next = 0;
    for (std::size_t i = 0; i < ratios.size(); ++i) {
      below += ratios[i].second;
      const auto rank = static_cast<std::size_t>(below / weight * kRatios);
      const bool counted = i * (kRatios / 2) / ratios.size() !=
                           (i + 1) * (kRatios / 2) / ratios.size();
      if (rank > next || counted) out.push_back(ratios[i].first);
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
  const double width_floor = 1 / std::sqrt(narrowest() + 1 / (effect_sd * effect_sd));
  const auto smooth_prior = [&](double b) {  // all but the law of c
    const double z = b / effect_sd;
    return -0.5 * (z * z + kLogTwoPi) - std::log(effect_sd);
  };
  const auto law_of_c = [&](double b) {
    return slope_prior_ == nullptr ? 0.0 : slope_prior_->log_smoothed(slope_ - b, slope_sd_);
  };

  // Points (b, log posterior) of the scan, in ascending order.
  std::vector<std::pair<double, double>> scan;
  const auto look = [&](const std::vector<double>& b) {
    const std::vector<double> value = log_marginal(b, options.threads, monitor);
    out.evaluations += b.size();
    for (std::size_t i = 0; i < b.size(); ++i)
      scan.emplace_back(b[i], value[i] + smooth_prior(b[i]) + law_of_c(b[i]));
    std::sort(scan.begin(), scan.end());
    scan.erase(std::unique(scan.begin(), scan.end(),
                           [](const auto& p, const auto& q) { return p.first == q.first; }),
               scan.end());
    for (const auto& point : scan) out.top = std::max(out.top, point.second);
  };
  out.top = -std::numeric_limits<double>::infinity();
  look(scan_points(effect_sd));

  // Sharpen the modes, then find where the density has died away on both sides.
  const auto modes = [&](double depth) {
    std::vector<std::array<double, 2>> found;  // mode, sd
    for (std::size_t i = 1; i + 1 < scan.size(); ++i) {
      if (scan[i].second < out.top - depth || scan[i].second < scan[i - 1].second ||
          scan[i].second <= scan[i + 1].second)
        continue;
      const double x[3] = {scan[i - 1].first, scan[i].first, scan[i + 1].first};
      const double f[3] = {scan[i - 1].second, scan[i].second, scan[i + 1].second};
      double sd = 0;
      const double mode = quadratic_peak(x, f, &sd);
      if (sd > 0) found.push_back({mode, std::max(sd, 0.5 * width_floor)});
    }
    return found;
  };
  const auto outside = [&](std::size_t i) { return scan[i].second < out.top - options.depth; };
  for (int sweep = 0; sweep < 2; ++sweep) {
    std::vector<double> points;
    for (const auto& [mode, sd] : modes(sweep == 0 ? options.depth + 8 : 14.0))
      for (const double step : {0.0, -0.7, 0.7, -1.7, 1.7, -3.5, 3.5})
        points.push_back(mode + step * sd);
    if (sweep == 1 && !points.empty()) break;
    if (!points.empty()) look(points);
  }
  for (int side = 0; side < 2; ++side) {
    for (int tries = 0; tries < 40; ++tries) {
      const std::size_t end = side == 0 ? 0 : scan.size() - 1;
      if (outside(end) || monitor.stopped()) break;
      std::vector<double> points;
      double step = (side == 0 ? -1 : 1) * std::max(2 * width_floor, 1e-12);
      for (std::size_t l = 0; l < kLanes; ++l, step *= 2) points.push_back(scan[end].first + step);
      look(points);
    }
    for (int tries = 0; tries < 2; ++tries) {  // the last interval that holds the border, tighter
      std::size_t i = side == 0 ? 0 : scan.size() - 1;
      while (outside(side == 0 ? i + 1 : i - 1)) side == 0 ? ++i : --i;
      const double a = scan[i].first, b = scan[side == 0 ? i + 1 : i - 1].first;
      if (std::abs(b - a) < 3 * width_floor) break;
      std::vector<double> points;
      for (std::size_t l = 1; l <= kLanes; ++l)
        points.push_back(a + (b - a) * static_cast<double>(l) / (kLanes + 1));
      look(points);
    }
  }
  std::size_t begin = 0, end = scan.size() - 1;
  while (begin + 1 < end && outside(begin + 1)) ++begin;
  while (end > begin + 1 && outside(end - 1)) --end;

  // Panels between the modes' flanks.
  std::vector<std::array<double, 2>> edges = {{scan[begin].first, 0.0}, {scan[end].first, 0.0}};
  for (const auto& [mode, sd] : modes(options.depth))
    for (const double step : {-7.5, -2.5, 2.5, 7.5}) {
      const double at = mode + step * sd;
      if (at > scan[begin].first && at < scan[end].first) edges.push_back({at, sd});
    }
  std::sort(edges.begin(), edges.end());
  std::vector<double> cuts = {edges.front()[0]};
  for (std::size_t i = 1; i + 1 < edges.size(); ++i)
    if (edges[i][0] - cuts.back() > edges[i][1] && edges.back()[0] - edges[i][0] > edges[i][1])
      cuts.push_back(edges[i][0]);
  cuts.push_back(edges.back()[0]);

  const auto fill = [&](std::vector<Panels::Panel*> fresh) {
    const std::size_t begin_node = out.node.size();
    for (Panels::Panel* panel : fresh) {
      panel->first = out.node.size();
      const double middle = 0.5 * (panel->lower + panel->upper);
      const double half = 0.5 * (panel->upper - panel->lower);
      for (const double t : rule.node) out.node.push_back(middle + half * t);
    }
    const std::size_t count = out.node.size() - begin_node;
    out.log_value.resize(out.node.size());
    out.share.resize(out.node.size() * hyper_size());
    const double normaliser = static_cast<double>(member_.size()) * std::log(unit_);
    parallel_for((count + kLanes - 1) / kLanes, options.threads, monitor, [&](std::size_t block) {
      Workspace w(*this);
      double lanes[kLanes];
      for (std::size_t l = 0; l < kLanes; ++l)
        lanes[l] = out.node[begin_node + std::min(block * kLanes + l, count - 1)];
      evaluate(lanes, w);
      normalise(w);
      for (std::size_t l = 0; l < kLanes && block * kLanes + l < count; ++l) {
        const std::size_t node = begin_node + block * kLanes + l;
        out.log_value[node] = w.log_sum[l] - normaliser + smooth_prior(out.node[node]);
        double* share = out.share.data() + node * hyper_size();
        for (std::size_t h = 0; h < hyper_size(); ++h) share[h] = w.terms[h * kLanes + l];
      }
      monitor.step();
    });
    out.evaluations += count;
  };
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
    out.panel.push_back({cuts[i], cuts[i + 1], 0, 0, 0});
  {
    std::vector<Panels::Panel*> fresh;
    for (auto& panel : out.panel) fresh.push_back(&panel);
    fill(fresh);
  }
  for (;;) {
    if (monitor.stopped()) return;
    for (const auto& panel : out.panel)
      for (std::size_t i = 0; i < kPanelNodes; ++i)
        out.top = std::max(out.top, out.log_value[panel.first + i] +
                                        (out.log_value[panel.first + i] > out.top - 50
                                             ? law_of_c(out.node[panel.first + i])
                                             : 0.0));
    double total = 0, error = 0;
    for (auto& panel : out.panel) {
      double f[kPanelNodes];
      const double nearest = std::clamp(slope_, panel.lower, panel.upper);
      const double level = law_of_c(nearest) - out.top;
      for (std::size_t i = 0; i < kPanelNodes; ++i)
        f[i] = std::exp(out.log_value[panel.first + i] + level);
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
    std::vector<std::size_t> fresh_index;
    for (const auto& panel : out.panel) {
      const double middle = 0.5 * (panel.lower + panel.upper);
      if (panel.error <= limit || !(middle > panel.lower && middle < panel.upper)) {
        next.push_back(panel);
        continue;
      }
      fresh_index.push_back(next.size());
      next.push_back({panel.lower, middle, 0, 0, 0});
      fresh_index.push_back(next.size());
      next.push_back({middle, panel.upper, 0, 0, 0});
    }
    if (fresh_index.empty()) break;
    out.panel = std::move(next);
    std::vector<Panels::Panel*> fresh;
    for (const std::size_t i : fresh_index) fresh.push_back(&out.panel[i]);
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
      if (slope_prior_ != nullptr) log_value += slope_prior_->log_smoothed(slope_ - b, slope_sd_);
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
// both effects at kLanes effects, where w.terms hold the weights of the nodes of the table.
void IdentifiedModel::accumulate(const double* b, Workspace& w, double* sums) const {
  prepare(b, w);
  double weight[kLanes] = {};
  for (std::size_t h = 0; h < hyper_size(); ++h)
    for (std::size_t l = 0; l < kLanes; ++l) weight[l] += w.terms[h * kLanes + l];
  w.moments.resize(3 * kChunk * kLanes);
  double *total = w.part(0), *inverse0 = w.part(1), *half = w.part(2), *inverse1 = w.part(3),
         *ratio = w.part(4), *spike = w.part(5), *difference = w.part(6), *slab = w.part(7);
  for (std::size_t start = 0; start < member_.size(); start += kChunk) {
    const std::size_t n = std::min(kChunk, member_.size() - start);
    const double* residual = w.residual.data() + start * kLanes;
    const double* variance = w.variance.data() + start * kLanes;
    double* inclusion = w.moments.data();
    double* first = inclusion + kChunk * kLanes;
    double* second = first + kChunk * kLanes;
    std::fill(w.moments.begin(), w.moments.end(), 0.0);
    for (const SpikeScale& outer : spike_scales_) {
      double unused[kLanes], spike_weight[kLanes] = {};
      const double a0_square = outer.a0 * outer.a0;
      std::fill(slab, slab + n * kLanes, 0.0);
      bool any = false;
      for (std::size_t k = outer.first; k < outer.first + outer.count; ++k) {
        const SlabScale& inner = slab_scales_[k];
        bool scaled = false;
        for (std::size_t f = inner.first; f < inner.first + inner.count; ++f) {
          const Family& family = families_[f];
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
          slab_moments(n, family.count, table_.pi.data() + family.first, share, shift, where,
                       a0_square + inner.a1 * inner.a1, residual, variance, inverse1, spike,
                       difference, slab, first, second);
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
        const double coupling =
            spread_[j] * (b[l] - center_[j]) / (unit_ * variance[at]);
        const double r = residual[at], m = shrunk_[j] + coupling * r;
        add[3] += weight[l] * m - coupling * first[at];
        add[4] += weight[l] * (m * m + spread_[j] * base_[j] / variance[at]) -
                  2 * m * coupling * first[at] + coupling * coupling * second[at];
      }
      for (std::size_t s = 0; s < 5; ++s) sums[s * size_ + column] += add[s];
    }
  }
  if (extra_ != nullptr) extra_->summarise(b, w.terms.data(), sums);
}

IdentifiedSummary IdentifiedModel::summarise(double effect_sd, const IdentifiedOptions& options,
                                             Monitor& monitor) const {
  IdentifiedSummary out;
  Panels panels;
  run(effect_sd, options, monitor, panels);
  if (monitor.stopped()) return out;
  out.law = finish(panels, options, &out.node_weight);
  const std::size_t count = out.node_weight.size(), table = hyper_size();
  out.share.resize(count * table);
  out.hyper.assign(table, 0.0);
  for (std::size_t p = 0; p < panels.panel.size(); ++p)
    for (std::size_t i = 0; i < kPanelNodes; ++i) {
      const std::size_t source = panels.panel[p].first + i, k = p * kPanelNodes + i;
      out.node.push_back(panels.node[source]);
      const double* share = panels.share.data() + source * table;
      std::copy(share, share + table, out.share.data() + k * table);
      for (std::size_t h = 0; h < table; ++h) out.hyper[h] += out.node_weight[k] * share[h];
    }

  const std::size_t blocks = (count + kLanes - 1) / kLanes;
  std::vector<double> partial(blocks * 5 * size_, 0.0);
  parallel_for(blocks, options.threads, monitor, [&](std::size_t block) {
    Workspace w(*this);
    double lanes[kLanes];
    std::fill(w.terms.begin(), w.terms.end(), 0.0);
    bool any = false;
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t k = std::min(block * kLanes + l, count - 1);
      lanes[l] = out.node[k];
      if (block * kLanes + l >= count || std::abs(out.node_weight[k]) < 1e-16) continue;
      any = true;
      for (std::size_t h = 0; h < table; ++h)
        w.terms[h * kLanes + l] = out.node_weight[k] * out.share[k * table + h];
    }
    if (any) accumulate(lanes, w, partial.data() + block * 5 * size_);
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

// -------------------------------------------------------------------------------------- draws

void IdentifiedModel::draw(const double* b, std::size_t n, const double* uniforms,
                           const double* normals, std::int64_t* node, bool* slab,
                           double* first_stage, double* pleiotropy, std::size_t threads,
                           Monitor& monitor) const {
  parallel_for((n + kLanes - 1) / kLanes, threads, monitor, [&](std::size_t block) {
    Workspace w(*this);
    double lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = b[std::min(block * kLanes + l, n - 1)];
    evaluate(lanes, w);
    normalise(w);
    for (std::size_t l = 0; l < kLanes && block * kLanes + l < n; ++l) {
      const std::size_t i = block * kLanes + l;
      const double* u = uniforms + i * (1 + size_);
      const double* z = normals + i * 2 * size_;
      std::size_t h = 0;
      double below = w.terms[l];
      while (below <= u[0] && h + 1 < hyper_size()) below += w.terms[++h * kLanes + l];
      node[i] = static_cast<std::int64_t>(h);
      const double a0_square = table_.a0[h] * table_.a0[h];
      const double a_square = a0_square + table_.a1[h] * table_.a1[h];
      const double pi = table_.pi[h], shift = table_.rho[h] * table_.a1[h];
      const double* where = direction(table_.mean[h]);
      for (std::size_t j = 0; j < member_.size(); ++j) {
        const std::size_t at = j * kLanes + l, column = member_[j];
        const double r = w.residual[at], v = w.variance[at], mean = shift * where[j];
        const double advantage = 0.5 * r * r / (v + a0_square) -
                                 0.5 * (r - mean) * (r - mean) / (v + a_square) +
                                 0.5 * std::log((v + a0_square) / (v + a_square)) +
                                 std::log(pi) - std::log1p(-pi);
        const bool in = u[1 + column] < 1 / (1 + std::exp(-advantage));
        const double scale = in ? a_square : a0_square, shrink = scale / (v + scale);
        const double center = in ? mean : 0.0;
        const double a =
            center + shrink * (r - center) + std::sqrt(shrink * v) * z[2 * column];
        const double coupling = spread_[j] * (lanes[l] - center_[j]) / (unit_ * v);
        slab[i * size_ + column] = in;
        pleiotropy[i * size_ + column] = a * unit_;
        first_stage[i * size_ + column] =
            shrunk_[j] + coupling * (r - a) +
            std::sqrt(spread_[j] * base_[j] / v) * z[2 * column + 1];
      }
    }
    monitor.step();
  });
}

}  // namespace mrfast
