#include "mrfast/exact.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "mrfast/quadrature.hpp"
#include "mrfast/random.hpp"
#include "mrfast/small.hpp"

namespace mrfast {

namespace {

constexpr double kReach = 9;      // confounding coefficients end at so many sd
constexpr double kCoarse = 0.4;   // first step in u
constexpr double kBend = 0.9;     // largest second difference in u: trapezoid error 1e-9
constexpr double kDrop = 18;      // nodes below exp(-kDrop) of the largest are left out
constexpr double kScanDrop = 28;  // intervals of beta whose profile is lower are left out
constexpr double kTail = 7;       // sd of m that are integrated over
constexpr std::size_t kMostRatios = 400;
constexpr double kStep = 2e-4;  // of d1 and d3, at which Newton's method ends
constexpr int kMostHalvings = 14;
const double kNothing = -std::numeric_limits<double>::infinity();
const double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct Sample {
  std::int64_t key;
  double value;
};

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNothing ? a : a + std::log1p(std::exp(b - a));
}

}  // namespace

// Where the previous inner integral at the same effect found its mass.
struct ExactIntegrator::Inner {
  bool known = false;
  double step = kCoarse, old_step = kCoarse;  // to be used, and of the keys
  std::vector<std::int64_t> keys;
  double d1 = 0, d3 = 0;  // d3 less its likeliest value given m
};

ExactIntegrator::ExactIntegrator(const AssociationData& data, const ScaleFreePrior& prior)
    : data_(data), posterior_(data, prior), sd_(data.sd_slope / data.eta) {}

// Largest |u| at which a confounding coefficient is within its reach.
double ExactIntegrator::reach(double c) const {
  const double ac = std::max(std::abs(c), 1e-12);
  const double rho = ac * std::sqrt(1 + ac * ac);
  const double end = kReach * posterior_.prior().confounding_sd;
  return std::max(1.2, 0.5 * std::log(end * end / rho));
}

// max over u with the variances at their estimates: a grid, then steps halved around its local
// maxima.
double ExactIntegrator::refined_maximum(double beta, double m) const {
  const double end = reach(m - beta);
  const double d3 = data_.likeliest_d3(m);
  constexpr int kHalf = 11;
  const double step = end / kHalf;
  double value[2 * kHalf + 1];
  Point<double> points[2 * kHalf + 1];
  for (int i = -kHalf; i <= kHalf; ++i) points[i + kHalf] = {beta, m, i * step, 0, d3};
  posterior_.values(points, 2 * kHalf + 1, value);
  double best = *std::max_element(value, value + 2 * kHalf + 1);
  const double threshold = best;
  for (int i = 0; i <= 2 * kHalf; ++i) {
    const double here = value[i];
    const double left = i > 0 ? value[i - 1] : kNothing;
    const double right = i < 2 * kHalf ? value[i + 1] : kNothing;
    if (here < left || here < right) continue;
    // What a parabola through the three points could still gain.
    const double bend = 2 * here - std::max(left, -1e300) - std::max(right, -1e300);
    if (here + 0.25 * std::min(bend, 1e6) < threshold) continue;
    double centre = (i - kHalf) * step, top = here, h = step;
    for (int level = 0; level < 12; ++level) {
      h *= 0.5;
      const Point<double> sides[2] = {{beta, m, centre - h, 0, d3}, {beta, m, centre + h, 0, d3}};
      double beside[2];
      posterior_.values(sides, 2, beside);
      const double lower = beside[0], upper = beside[1];
      const double gain = std::max(lower, upper) - top;
      if (gain > 0) {
        centre += lower > upper ? -h : h;
        top += gain;
      }
      if (2 * top - lower - upper < 0.5) break;
    }
    best = std::max(best, top);
  }
  return best;
}

// Largest log density over m and u, roughly: m at its estimate, or just beside beta.
double ExactIntegrator::profile(double beta) const {
  const double m = data_.slope / data_.eta;
  const double gap = m - beta;
  const double shift = std::abs(gap) < 0.5 * sd_ ? std::copysign(0.5 * sd_, gap) - gap : 0;
  return refined_maximum(beta, m + shift);
}

bool ExactIntegrator::laplace(double beta, double m, double u, double step, double log_weight,
                              double& d1, double& d3, std::vector<ExactNode>& out) const {
  double x = d1, y = d3;
  Jet<2> f = posterior_.curvature(beta, m, u, x, y);
  const double floor = std::max(1.0, 0.5 * std::min(data_.n1, data_.n2));
  for (int iteration = 0; iteration < 30; ++iteration) {
    double p00 = -f.hessian[0][0], p10 = -f.hessian[0][1], p11 = -f.hessian[1][1];
    bool definite = p00 > 0 && p11 > 0 && p00 * p11 > p10 * p10;
    for (int guard = 0; !definite && guard < 60; ++guard) {
      const double lift = std::ldexp(floor, guard);
      const double q00 = p00 + lift, q11 = p11 + lift;
      if (q00 > 0 && q11 > 0 && q00 * q11 > p10 * p10) {
        p00 = q00, p11 = q11;
        break;
      }
    }
    const double determinant = p00 * p11 - p10 * p10;
    if (!(determinant > 0)) return false;
    const double sx = (p11 * f.gradient[0] - p10 * f.gradient[1]) / determinant;
    const double sy = (p00 * f.gradient[1] - p10 * f.gradient[0]) / determinant;
    const double decrement = sx * f.gradient[0] + sy * f.gradient[1];
    // The determinant is that of the last point: its error is of the order of the step.
    if (definite && std::max(std::abs(sx), std::abs(sy)) < kStep && decrement < 0.05) {
      d1 = x + sx, d3 = y + sy;
      const double l00 = std::sqrt(p00), l10 = p10 / l00;
      const double l11 = std::sqrt(p11 - l10 * l10);
      const double log_node =
          f.value + 0.5 * decrement + kLogTwoPi - std::log(l00 * l11) + std::log(step) + log_weight;
      out.push_back({beta, m, u, d1, d3, log_node, l00, l10, l11, step, 0});
      return true;
    }
    double factor = std::min(1.0, 0.5 / std::max(std::abs(sx), std::abs(sy)));
    for (int halving = 0;; ++halving) {
      const Jet<2> next = posterior_.curvature(beta, m, u, x + factor * sx, y + factor * sy);
      if (next.value >= f.value - 1e-12 * std::abs(f.value)) {
        x += factor * sx, y += factor * sy;
        f = next;
        break;
      }
      if (halving == 30) return false;
      factor *= 0.5;
    }
  }
  return false;
}

// The same beside a node already found, with its curvature: the gradient by differences, one step.
void ExactIntegrator::beside(double u, const ExactNode& known, double log_weight,
                             std::vector<ExactNode>& out) const {
  const double h = posterior_.difference();
  const Point<double> points[3] = {{known.beta, known.m, u, known.d1, known.d3},
                                   {known.beta, known.m, u, known.d1 + h, known.d3},
                                   {known.beta, known.m, u, known.d1, known.d3 + h}};
  double f[3];
  posterior_.values(points, 3, f);
  const double p00 = known.l00 * known.l00, p10 = known.l00 * known.l10;
  const double p11 = known.l10 * known.l10 + known.l11 * known.l11;
  const double g0 = (f[1] - f[0]) / h + 0.5 * h * p00, g1 = (f[2] - f[0]) / h + 0.5 * h * p11;
  const double determinant = p00 * p11 - p10 * p10;
  const double sx = (p11 * g0 - p10 * g1) / determinant;
  const double sy = (p00 * g1 - p10 * g0) / determinant;
  ExactNode node = known;
  node.u = u, node.d1 += sx, node.d3 += sy;
  node.log_weight = f[0] + 0.5 * (sx * g0 + sy * g1) + kLogTwoPi - std::log(known.l00 * known.l11) +
                    std::log(known.step) + log_weight;
  out.push_back(node);
}

void ExactIntegrator::inner(double beta, double m, double log_weight, Inner& state,
                            std::vector<ExactNode>& out, Monitor* monitor) const {
  const double likeliest = data_.likeliest_d3(m);
  std::vector<Point<double>> points;
  std::vector<double> values;
  // Evaluates the samples that are not known yet.
  const auto evaluate = [&](std::vector<Sample>& list, double width) {
    points.clear();
    for (const auto& s : list)
      if (std::isnan(s.value))
        points.push_back(
            {beta, m, static_cast<double>(s.key) * width, state.d1, likeliest + state.d3});
    values.resize(points.size());
    posterior_.values(points.data(), points.size(), values.data());
    std::size_t next = 0;
    for (auto& s : list)
      if (std::isnan(s.value)) s.value = values[next++];
  };
  std::vector<Sample> samples;
  double step = kCoarse;
  const double end = reach(m - beta);
  bool done = false;
  const auto top_of = [&] {
    double top = kNothing;
    for (const auto& s : samples) top = std::max(top, s.value);
    return top;
  };
  // Largest second difference among the points that count.
  const auto bend = [&](double top) {
    double largest = 0;
    for (std::size_t i = 1; i + 1 < samples.size(); ++i) {
      if (samples[i].value < top - 12 || samples[i + 1].key != samples[i].key + 1 ||
          samples[i - 1].key != samples[i].key - 1)
        continue;
      largest = std::max(
          largest, std::abs(samples[i + 1].value - 2 * samples[i].value + samples[i - 1].value) /
                       (1 + (top - samples[i].value)));
    }
    return largest;
  };
  if (state.known) {
    step = state.step;
    // The same runs of u on the step that their curvature asks for.
    for (std::size_t i = 0; i < state.keys.size();) {
      std::size_t last = i;
      while (last + 1 < state.keys.size() && state.keys[last + 1] == state.keys[last] + 1) ++last;
      const double from = static_cast<double>(state.keys[i]) * state.old_step / step;
      const double to = static_cast<double>(state.keys[last]) * state.old_step / step;
      auto key = static_cast<std::int64_t>(std::floor(from + 0.5));
      if (!samples.empty()) key = std::max(key, samples.back().key + 1);
      for (; key <= static_cast<std::int64_t>(std::floor(to + 0.5)) || samples.empty(); ++key)
        samples.push_back({key, kUnknown});
      i = last + 1;
    }
    evaluate(samples, step);
    double top = top_of();
    // Grow both ends of every run until it has died away.
    for (int round = 0; round < 400; ++round) {
      std::vector<Sample> grown;
      bool any = false;
      for (std::size_t i = 0; i < samples.size(); ++i) {
        const auto& s = samples[i];
        const bool first = i == 0 || samples[i - 1].key != s.key - 1;
        const bool last = i + 1 == samples.size() || samples[i + 1].key != s.key + 1;
        const bool alive = s.value > top - kDrop;
        if (first && alive && (grown.empty() || grown.back().key != s.key - 1)) {
          grown.push_back({s.key - 1, kUnknown});
          any = true;
        }
        grown.push_back(s);
        if (last && alive) {
          grown.push_back({s.key + 1, kUnknown});
          any = true;
        }
      }
      samples.swap(grown);
      evaluate(samples, step);
      top = top_of();
      if (!any) break;
    }
    done = bend(top) < kBend * 1.2;
  }
  if (!done) {
    samples.clear();
    step = kCoarse;
    const auto last = static_cast<std::int64_t>(std::ceil(end / step));
    for (std::int64_t key = -last; key <= last; ++key) samples.push_back({key, kUnknown});
    evaluate(samples, step);
    for (int level = 0; level < kMostHalvings; ++level) {
      const double top = top_of();
      const double largest = bend(top);
      // At the top the neighbours must be there for the curvature to be known.
      if (largest < kBend) break;
      const double keep = top - (3 * kDrop + 10) - 2 * largest;
      std::vector<Sample> finer;
      for (std::size_t i = 0; i < samples.size(); ++i) {
        const auto& s = samples[i];
        const bool left = i > 0 && samples[i - 1].key == s.key - 1 && samples[i - 1].value > keep;
        const bool right = i + 1 < samples.size() && samples[i + 1].key == s.key + 1 &&
                           samples[i + 1].value > keep;
        if (!(s.value > keep || left || right)) continue;
        const std::int64_t key = 2 * s.key;
        if (finer.empty() || finer.back().key < key - 1) finer.push_back({key - 1, kUnknown});
        finer.push_back({key, s.value});
        finer.push_back({key + 1, kUnknown});
      }
      samples.swap(finer);
      step *= 0.5;
      evaluate(samples, step);
    }
  }
  // From the top outwards, each node started from its neighbour's variances.
  std::size_t best = 0;
  for (std::size_t i = 1; i < samples.size(); ++i)
    if (samples[i].value > samples[best].value) best = i;
  const double top = samples[best].value;
  double d1 = state.d1, d3 = likeliest + state.d3;
  if (!laplace(beta, m, static_cast<double>(samples[best].key) * step, step, log_weight, d1, d3,
               out))
    return;
  const double top1 = d1, top3 = d3;
  const ExactNode peak = out.back();
  // Blocks of candidates are dear, and where people are many the curvature hardly changes with u.
  const bool quick =
      !data_.blocks.empty() && std::min(data_.n1, data_.n2) > 100 * static_cast<double>(data_.size);
  state.keys.clear();
  state.keys.push_back(samples[best].key);
  for (int side = 0; side < 2; ++side) {
    d1 = top1, d3 = top3;
    for (std::size_t k = 1; k < samples.size(); ++k) {
      const bool outside = side == 0 ? k > best : best + k >= samples.size();
      if (outside || (monitor != nullptr && monitor->step(0))) break;
      const auto& s = side == 0 ? samples[best - k] : samples[best + k];
      if (s.value < top - kDrop) continue;
      if (quick) {
        beside(static_cast<double>(s.key) * step, peak, log_weight, out);
        state.keys.push_back(s.key);
        continue;
      }
      if (laplace(beta, m, static_cast<double>(s.key) * step, step, log_weight, d1, d3, out))
        state.keys.push_back(s.key);
    }
  }
  std::sort(state.keys.begin(), state.keys.end());
  state.known = true;
  state.old_step = step;
  state.step =
      std::min(kCoarse, step * std::min(1.8, std::sqrt(0.9 * kBend / std::max(1e-3, bend(top)))));
  state.d1 = top1, state.d3 = top3 - likeliest;
}

EffectNode ExactIntegrator::effect(double beta, Monitor* monitor) const {
  // On each side of no confounding, m = beta +- L t^3: the cube removes the log singularity, and a
  // Gauss rule in t with the normal law of m as its weight takes care of the rest.
  static const Rule legendre = gauss_legendre(64);
  EffectNode out;
  out.beta = beta;
  const double centre = data_.slope / data_.eta;
  const double z = (beta - centre) / sd_;
  const double distance = std::abs(z);
  // Wide against the law of c, the integrand is no longer nearly the normal law.
  const double sk = posterior_.prior().confounding_sd;
  const double spread = sd_ / std::min(1.0, sk * sk);
  const std::size_t more = spread < 0.03 ? 0 : spread < 0.1 ? 6 : 14;
  const std::size_t order = more + (distance < 6 ? 6 : distance < 12 ? 5 : distance < 40 ? 4 : 3);
  std::vector<double> x(legendre.node.size()), weight(legendre.node.size());
  for (const double side : {-1.0, 1.0}) {
    const double length = kTail - side * z;  // sd from beta to where m has died away
    if (length <= 0) continue;
    const double first = std::cbrt(std::max(0.0, -side * z - kTail) / length);
    double mass = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = first + (1 - first) * legendre.node[i];
      const double at = z + side * length * x[i] * x[i] * x[i];
      weight[i] =
          3 * length * x[i] * x[i] * (1 - first) * legendre.weight[i] * std::exp(-0.5 * at * at);
      mass += weight[i];
    }
    if (mass < 1e-8) continue;
    const Rule rule = gauss_from_measure(x, weight, order);
    Inner state;
    std::vector<std::size_t> sorted(rule.node.size());
    std::iota(sorted.begin(), sorted.end(), std::size_t{0});
    std::sort(sorted.begin(), sorted.end(),
              [&](std::size_t p, std::size_t q) { return rule.node[p] > rule.node[q]; });
    for (const std::size_t i : sorted) {
      if (monitor != nullptr && monitor->step(0)) return out;
      const double t = rule.node[i], at = z + side * length * t * t * t;
      inner(beta, beta + side * length * sd_ * t * t * t,
            std::log(rule.weight[i] * sd_) + 0.5 * at * at, state, out.nodes, monitor);
    }
  }
  double top = kNothing;
  for (const auto& node : out.nodes) top = std::max(top, node.log_weight);
  if (top == kNothing) {
    out.log_density = kNothing;
    return out;
  }
  std::vector<ExactNode> kept;
  double sum = 0, slope = 0;
  for (const auto& node : out.nodes) {
    if (node.log_weight < top - kDrop) continue;
    const double share = std::exp(node.log_weight - top);
    sum += share;
    const double turn = std::exp(0.5 * (node.d3 - node.d1));
    const double c = (node.m - beta) / turn;
    const auto k = confounding(std::abs(c) < 1e-12 ? std::copysign(1e-12, c) : c, node.u);
    slope += share * turn * k.k1 / std::sqrt(k.k2);
    kept.push_back(node);
  }
  out.nodes.swap(kept);
  out.log_density = top + std::log(sum);
  out.log_slope = std::log(slope / sum * data_.eta);
  return out;
}

namespace {

// Candidate effects: ratios of the single variants, their weighted mean, and grids around 0 and
// around the observed slope; with the points in the middle.
std::vector<double> candidates(const AssociationData& d, double sd) {
  std::vector<double> out;
  double weight = 0, sum = 0;
  for (std::size_t i = 0; i < d.size; ++i) {
    const double a = d.h1[i] / std::sqrt(d.s11), b = d.h2[i] / std::sqrt(d.s221);
    if (std::abs(a) > 2 * std::sqrt(d.n11[i])) out.push_back(b / a);
    weight += a * a / d.n22[i];
    sum += a * b / d.n22[i];
  }
  std::sort(out.begin(), out.end());
  if (out.size() > kMostRatios) {
    std::vector<double> quantiles;
    for (std::size_t i = 0; i < kMostRatios; ++i)
      quantiles.push_back(out[(2 * i + 1) * out.size() / (2 * kMostRatios)]);
    out.swap(quantiles);
  }
  if (weight > 0) {
    const double mean = sum / weight, error = 1 / std::sqrt(weight);
    for (const double k : {-3.0, 0.0, 3.0}) out.push_back(mean + k * error);
  }
  const double centre = d.slope / d.eta;
  constexpr int kGrid = 30;
  for (int i = -kGrid; i <= kGrid; ++i) {
    const double x = std::sinh(7.5 * i / kGrid) / 10;  // to 90
    out.push_back(x);
    out.push_back(centre + x);
  }
  for (const double k : {0.2, 1.0, 3.0, 6.0}) {
    out.push_back(centre - k * sd);
    out.push_back(centre + k * sd);
  }
  std::sort(out.begin(), out.end());
  std::vector<double> with_middles;
  for (const double x : out) {
    if (!with_middles.empty()) {
      const double before = with_middles.back();
      if (x - before < 1e-9 * (1 + std::abs(x))) continue;
      with_middles.push_back(0.5 * (before + x));
    }
    with_middles.push_back(x);
  }
  return with_middles;
}

void integrate(Panel& panel) {
  double top = kNothing;
  for (const auto& p : panel.points) top = std::max(top, p.log_density);
  panel.log_integral = panel.log_error = kNothing;
  if (top == kNothing) return;
  const double half = 0.5 * (panel.upper - panel.lower);
  double kronrod = 0, gauss = 0, mean = 0, spread = 0;
  for (std::size_t i = 0; i < panel.points.size(); ++i)
    kronrod += Kronrod15::weight(i) * std::exp(panel.points[i].log_density - top);
  mean = 0.5 * kronrod;
  for (std::size_t i = 0; i < panel.points.size(); ++i) {
    const double value = std::exp(panel.points[i].log_density - top);
    gauss += Kronrod15::gauss_weight(i) * value;
    spread += Kronrod15::weight(i) * std::abs(value - mean);
  }
  double error = std::abs(kronrod - gauss);
  if (spread > 0 && error > 0) error = spread * std::min(1.0, std::pow(200 * error / spread, 1.5));
  panel.log_integral = top + std::log(kronrod * half);
  panel.log_error = error > 0 ? top + std::log(error * half) : kNothing;
}

}  // namespace

ExactReport ExactIntegrator::run(const ExactOptions& options, Monitor& monitor) const {
  ExactReport report;
  const auto grid = candidates(data_, sd_);
  std::vector<double> value(grid.size(), kNothing);
  parallel_for(grid.size(), options.threads, monitor, [&](std::size_t i) {
    value[i] = profile(grid[i]);
    monitor.step();
  });
  if (monitor.stopped()) return report;
  const double top = *std::max_element(value.begin(), value.end());

  // Half-widths of the peaks of the profile, and break points around them.
  std::vector<double> breaks;
  for (std::size_t i = 0; i < grid.size(); ++i)
    if (value[i] > top - kScanDrop) {
      breaks.push_back(grid[i > 0 ? i - 1 : i]);
      breaks.push_back(grid[i]);
      breaks.push_back(grid[i + 1 < grid.size() ? i + 1 : i]);
    }
  const double centre = data_.slope / data_.eta;
  std::vector<double> wanted = {0, centre};
  std::vector<std::size_t> peaks;
  for (std::size_t i = 1; i + 1 < grid.size(); ++i)
    if (value[i] >= value[i - 1] && value[i] >= value[i + 1] && value[i] > top - kScanDrop)
      peaks.push_back(i);
  struct Peak {
    double at, width;
  };
  std::vector<Peak> found(peaks.size());
  parallel_for(peaks.size(), options.threads, monitor, [&](std::size_t p) {
    const std::size_t i = peaks[p];
    double x = grid[i], best = value[i];
    double h = 0.5 * std::max(grid[i] - grid[i - 1], grid[i + 1] - grid[i]);
    double width = h;
    for (int level = 0; level < 40 && !monitor.stopped(); ++level) {
      const double lower = profile(x - h), upper = profile(x + h);
      monitor.step();
      if (std::max(lower, upper) > best) {
        x += lower > upper ? -h : h;
        best = std::max(lower, upper);
        continue;
      }
      width = h;
      const double bend = 2 * best - lower - upper;
      if (bend < 1) {
        width = h / std::sqrt(std::max(bend, 1e-3));
        break;
      }
      h *= bend > 50 ? 0.2 : 0.5;
    }
    found[p] = {x, std::min(width, 10 * h)};
  });
  if (monitor.stopped()) return report;
  for (const auto& peak : found)
    for (const double k : {-7.0, -2.5, 2.5, 7.0}) wanted.push_back(peak.at + k * peak.width);
  std::sort(breaks.begin(), breaks.end());
  const double lowest = breaks.front(), highest = breaks.back();
  // The rule in m changes its number of nodes at 6, 12 and 40 sd.
  for (const double k : {1.0, 6.0, 12.0, 40.0}) {
    wanted.push_back(centre - k * sd_);
    wanted.push_back(centre + k * sd_);
  }
  std::vector<double> edges = {lowest, highest};
  for (const double x : wanted)
    if (x > lowest && x < highest) edges.push_back(x);
  // The scan's own points only where nothing else divides a long way.
  std::sort(edges.begin(), edges.end());
  std::vector<double> final_edges;
  double narrowest = std::numeric_limits<double>::infinity();
  for (const auto& peak : found) narrowest = std::min(narrowest, peak.width);
  for (const double x : edges) {
    const bool special = x == 0 || x == centre;
    if (!final_edges.empty() && x - final_edges.back() < 0.5 * narrowest) {
      if (!special) continue;
      if (final_edges.size() > 1 && final_edges.back() != 0 && final_edges.back() != centre)
        final_edges.pop_back();
      if (x <= final_edges.back()) continue;
    }
    final_edges.push_back(x);
  }
  // Which panels may hold something: by the scan's values within them.
  const auto alive = [&](double lower, double upper) {
    double best = kNothing;
    for (std::size_t i = 0; i < grid.size(); ++i) {
      const bool inside = grid[i] >= lower && grid[i] <= upper;
      const bool beside = (i + 1 < grid.size() && grid[i] < lower && grid[i + 1] > lower) ||
                          (i > 0 && grid[i] > upper && grid[i - 1] < upper);
      if (inside || beside) best = std::max(best, value[i]);
    }
    for (const auto& peak : found)
      if (peak.at >= lower && peak.at <= upper) best = top;
    return best > top - kScanDrop;
  };
  std::vector<Panel> fresh, panels;
  for (std::size_t i = 0; i + 1 < final_edges.size(); ++i)
    if (alive(final_edges[i], final_edges[i + 1]))
      fresh.push_back({final_edges[i], final_edges[i + 1], 0, 0, {}});

  double total = kNothing, error = kNothing;
  for (int sweep = 0; sweep < 60; ++sweep) {
    for (auto& panel : fresh) panel.points.resize(Kronrod15::kPoints);
    parallel_for(fresh.size() * Kronrod15::kPoints, options.threads, monitor, [&](std::size_t k) {
      Panel& panel = fresh[k / Kronrod15::kPoints];
      const std::size_t i = k % Kronrod15::kPoints;
      const double half = 0.5 * (panel.upper - panel.lower);
      const double middle = 0.5 * (panel.upper + panel.lower);
      panel.points[i] = effect(middle + half * Kronrod15::node(i), &monitor);
      panel.points[i].weight = half * Kronrod15::weight(i);
      monitor.step();
    });
    if (monitor.stopped()) return report;
    for (auto& panel : fresh) {
      integrate(panel);
      panels.push_back(std::move(panel));
    }
    fresh.clear();
    std::sort(panels.begin(), panels.end(),
              [](const Panel& p, const Panel& q) { return p.lower < q.lower; });
    total = error = kNothing;
    for (const auto& panel : panels) {
      total = log_add(total, panel.log_integral);
      error = log_add(error, panel.log_error);
    }
    if (error - total < std::log(options.tolerance)) {
      report.converged = true;
      break;
    }
    if (panels.size() >= options.max_panels) break;
    std::vector<std::size_t> worst(panels.size());
    std::iota(worst.begin(), worst.end(), std::size_t{0});
    std::stable_sort(worst.begin(), worst.end(), [&](std::size_t p, std::size_t q) {
      return panels[p].log_error > panels[q].log_error;
    });
    const double share = total + std::log(0.1 * options.tolerance);
    std::vector<Panel> kept;
    std::vector<bool> split(panels.size(), false);
    for (std::size_t k = 0; k < worst.size() && k < 8; ++k)
      if (k == 0 || panels[worst[k]].log_error > share) split[worst[k]] = true;
    for (std::size_t i = 0; i < panels.size(); ++i) {
      if (!split[i]) {
        kept.push_back(std::move(panels[i]));
        continue;
      }
      const double middle = 0.5 * (panels[i].lower + panels[i].upper);
      fresh.push_back({panels[i].lower, middle, 0, 0, {}});
      fresh.push_back({middle, panels[i].upper, 0, 0, {}});
    }
    panels.swap(kept);
  }
  report.quadrature_error = std::exp(error - total);
  report.log_evidence = total + 2 * std::log(data_.eta) + std::log(2.0) + posterior_.log_constant();
  report.panels = std::move(panels);
  report.zero = effect(0, &monitor);
  // Shares of the whole.
  std::uint32_t index = 0;
  for (auto& panel : report.panels)
    for (auto& point : panel.points) {
      for (auto& node : point.nodes) {
        node.effect = index;
        node.log_weight += std::log(point.weight) - total;
      }
      ++index;
    }
  return report;
}

Certificate certify(const CollapsedPosterior& posterior, const std::vector<ExactNode>& nodes,
                    std::size_t draws, std::size_t threads, Monitor& monitor) {
  constexpr double kDegrees = 30;
  Certificate out;
  out.draws = draws;
  if (nodes.empty() || draws == 0) return out;
  std::vector<double> cumulative(nodes.size());
  double sum = 0;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    cumulative[i] = sum += std::exp(nodes[i].log_weight);
  std::vector<double> ratio(draws, 0), normal(draws, 0);
  const auto gaussian = [](Philox& stream) {
    const double u = 1 - stream.uniform(), v = stream.uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586477 * v);
  };
  parallel_for(draws, threads, monitor, [&](std::size_t i) {
    Philox stream(20201, i);
    // Stratified over the nodes.
    const double u = (static_cast<double>(i) + stream.uniform()) / static_cast<double>(draws) * sum;
    const auto found = std::lower_bound(cumulative.begin(), cumulative.end(), u);
    const auto& node =
        nodes[std::min(nodes.size() - 1, static_cast<std::size_t>(found - cumulative.begin()))];
    double chi = 0;
    for (int k = 0; k < static_cast<int>(kDegrees); k += 2)
      chi -= 2 * std::log(1 - stream.uniform());
    const double scale = std::sqrt(kDegrees / chi);
    const double z0 = gaussian(stream) * scale, z1 = gaussian(stream) * scale;
    // (d1, d3) = mode + L^-T z.
    const double y = z1 / node.l11, x = (z0 - node.l10 * y) / node.l00;
    const double f = posterior.value({node.beta, node.m, node.u, node.d1 + x, node.d3 + y});
    const double mode = posterior.value({node.beta, node.m, node.u, node.d1, node.d3});
    // Ratio to the Laplace term: f exp(...) / (t density) over 2 pi / |L|; that of the normal law
    // itself has the mean 1.
    const double log_density =
        -kLogTwoPi - 0.5 * (kDegrees + 2) * std::log1p((z0 * z0 + z1 * z1) / kDegrees);
    ratio[i] = std::exp(f - mode - log_density - kLogTwoPi);
    normal[i] = std::exp(-0.5 * (z0 * z0 + z1 * z1) - log_density - kLogTwoPi);
    monitor.step();
  });
  double mean = 0, square = 0, shift = 0, shift2 = 0;
  for (std::size_t i = 0; i < draws; ++i) {
    const double gap = ratio[i] - normal[i];
    mean += ratio[i];
    square += ratio[i] * ratio[i];
    shift += gap;
    shift2 += gap * gap;
  }
  const double n = static_cast<double>(draws);
  mean /= n, square /= n, shift /= n, shift2 /= n;
  out.log_mean = std::log(std::max(1 + shift, 1e-300));
  out.std_error =
      std::sqrt(std::max(0.0, shift2 - shift * shift) / n) / std::max(1 + shift, 1e-300);
  out.effective = mean * mean / square;
  return out;
}

}  // namespace mrfast
