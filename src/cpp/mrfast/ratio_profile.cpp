#include "mrfast/ratio_profile.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

constexpr double kHalfTurn = std::numbers::pi;
constexpr std::size_t kAngles = 32;      // even steps of the angle among the starting points
constexpr std::size_t kAllRatios = 160;  // up to which every ratio is one
constexpr std::size_t kQuantiles = 80;   // of the ratios, by rank and by weight, beyond
constexpr std::size_t kFewQuantiles = 16;
constexpr std::size_t kFewAngles = 12;
constexpr std::size_t kSteps = 16;  // of the coarse grid of tau2
constexpr double kSteepest = 1.5;   // angle of an effect that a scale of tau2 is taken from
constexpr int kIterations = 200;
constexpr double kEqual = 1e-13;       // of two angles
constexpr double kAngleError = 1e-15;  // relative
constexpr double kTau2Error = 1e-12;   // relative
constexpr double kSolved = 1e-6;       // score of tau2 at a root, over those at its bracket

struct Sum {
  double value, slope;
};

// Data in the coordinates of the angle, padded to whole groups of kLanes with SNPs that add 0.
struct Circle {
  std::size_t groups = 0;
  double scale = 1;
  std::vector<double> y, x, a, b, c;  // by, scale bx, sy^2 + tau2, scale^2 sx^2, -scale psi sx sy
  std::vector<double> sy2;

  explicit Circle(const RatioData& data) {
    double sx = 0, sy = 0;
    for (std::size_t j = 0; j < data.snps; ++j) {
      sx += data.sx[j];
      sy += data.sy[j];
    }
    scale = sy / sx;
    groups = (data.snps + kLanes - 1) / kLanes;
    const std::size_t n = groups * kLanes;
    y.assign(n, 0.0);
    x.assign(n, 0.0);
    sy2.assign(n, 1.0);
    b.assign(n, 1.0);
    c.assign(n, 0.0);
    for (std::size_t j = 0; j < data.snps; ++j) {
      y[j] = data.by[j];
      x[j] = scale * data.bx[j];
      sy2[j] = data.sy[j] * data.sy[j];
      b[j] = scale * data.sx[j] * (scale * data.sx[j]);
      c[j] = -scale * data.overlap * data.sx[j] * data.sy[j];
    }
    a = sy2;
  }

  void set_tau2(double tau2) {
    for (std::size_t j = 0; j < a.size(); ++j) a[j] = sy2[j] + tau2;
  }

  double angle(double theta) const { return std::atan(theta / scale); }
  double theta(double at) const {
    // tan has a pole that no rounded angle meets; angles that near stand for it.
    const double far = std::abs(std::abs(at) - 0.5 * kHalfTurn);
    if (far < kEqual) return std::numeric_limits<double>::infinity();
    return scale * std::tan(at);
  }
};

// rho of a squared residual, and rho'(t)/t.
MRFAST_INLINE void weigh(Loss loss, double square, double k2, double& value, double& weight) {
  if (loss == Loss::kSquare) {
    value = 0.5 * square;
    weight = 1;
  } else if (loss == Loss::kHuber) {
    const double root = std::sqrt(square * k2);  // k |t|
    const bool inside = square <= k2;
    value = inside ? 0.5 * square : root - 0.5 * k2;
    weight = inside ? 1.0 : k2 / root;
  } else {
    const double rest = square < k2 ? 1 - square / k2 : 0.0;
    value = k2 / 6 * (1 - rest * rest * rest);
    weight = rest * rest;
  }
}

template <Loss loss>
MRFAST_INLINE Sum evaluate_as(const Circle& d, double cosine, double sine, double k2) {
  double value[kLanes] = {}, slope[kLanes] = {};
  const double cc = cosine * cosine, ss = sine * sine, sc = sine * cosine, turned = cc - ss;
  for (std::size_t g = 0; g < d.groups; ++g) {
    const double *y = &d.y[g * kLanes], *x = &d.x[g * kLanes], *a = &d.a[g * kLanes],
                 *b = &d.b[g * kLanes], *c = &d.c[g * kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double n = y[l] * cosine - x[l] * sine, dn = -(y[l] * sine + x[l] * cosine);
      const double v = a[l] * cc + 2 * c[l] * sc + b[l] * ss;
      const double half_dv = (b[l] - a[l]) * sc + c[l] * turned;
      const double share = n / v;
      double part, weight;
      weigh(loss, n * share, k2, part, weight);
      value[l] += part;
      slope[l] += weight * share * (dn - share * half_dv);
    }
  }
  Sum out{0, 0};
  for (std::size_t l = 0; l < kLanes; ++l) {
    out.value += value[l];
    out.slope += slope[l];
  }
  return out;
}

MRFAST_DISPATCH Sum square_sum(const Circle& d, double cosine, double sine, double k2) {
  return evaluate_as<Loss::kSquare>(d, cosine, sine, k2);
}
MRFAST_DISPATCH Sum huber_sum(const Circle& d, double cosine, double sine, double k2) {
  return evaluate_as<Loss::kHuber>(d, cosine, sine, k2);
}
MRFAST_DISPATCH Sum tukey_sum(const Circle& d, double cosine, double sine, double k2) {
  return evaluate_as<Loss::kTukey>(d, cosine, sine, k2);
}

Sum evaluate(const Circle& d, LossForm loss, double angle) {
  const double cosine = std::cos(angle), sine = std::sin(angle), k2 = loss.constant * loss.constant;
  switch (loss.kind) {
    case Loss::kHuber:
      return huber_sum(d, cosine, sine, k2);
    case Loss::kTukey:
      return tukey_sum(d, cosine, sine, k2);
    default:
      return square_sum(d, cosine, sine, k2);
  }
}

// A root of `f` between two numbers where it has opposite signs, within `tolerance` relative:
// regula falsi with the Illinois rule, every eighth step a bisection.
template <class Function>
double root_between(double left, double f_left, double right, double f_right, double tolerance,
                    const Function& f) {
  double last = left;
  for (int i = 0; i < kIterations; ++i) {
    const double width = right - left;
    const bool halve = i % 8 == 7;
    double middle = halve ? left + 0.5 * width : left - f_left * width / (f_right - f_left);
    if (!(middle > left && middle < right)) middle = left + 0.5 * width;
    if (!(middle > left && middle < right)) break;
    const double value = f(middle);
    const double close = tolerance * std::abs(middle);
    if (value == 0 || width <= close || (!halve && std::abs(middle - last) <= 0.1 * close))
      return middle;
    last = middle;
    if ((value < 0) == (f_left < 0)) {
      left = middle;
      f_left = value;
      f_right *= 0.5;
    } else {
      right = middle;
      f_right = value;
      f_left *= 0.5;
    }
  }
  return std::abs(f_left) <= std::abs(f_right) ? left : right;
}

// Angles between which stationary points are looked for, over half a turn from -pi/2.
std::vector<double> starting_angles(const RatioData& data, const Circle& d, std::size_t even,
                                    std::size_t quantiles) {
  std::vector<double> angles;
  for (std::size_t i = 0; i < even; ++i)
    angles.push_back(kHalfTurn * (static_cast<double>(i) / static_cast<double>(even) - 0.5));
  std::vector<std::pair<double, double>> ratios;  // angle and weight
  double total = 0;
  for (std::size_t j = 0; j < data.snps; ++j) {
    if (data.bx[j] == 0) continue;
    const double strength = std::abs(data.bx[j]) / data.sy[j];
    ratios.emplace_back(d.angle(data.by[j] / data.bx[j]), strength * strength);
    total += strength * strength;
  }
  if (ratios.size() <= 2 * quantiles) {
    for (const auto& [angle, weight] : ratios) angles.push_back(angle);
  } else {
    std::sort(ratios.begin(), ratios.end());
    const auto count = static_cast<double>(quantiles),
               last = static_cast<double>(ratios.size() - 1);
    for (std::size_t q = 0; q < quantiles; ++q)
      angles.push_back(
          ratios[static_cast<std::size_t>(last * static_cast<double>(q) / (count - 1))].first);
    double below = 0;
    std::size_t q = 0;
    for (const auto& [angle, weight] : ratios) {
      below += weight;
      if (below * count >= total * (static_cast<double>(q) + 0.5)) angles.push_back(angle);
      while (q < quantiles && below * count >= total * (static_cast<double>(q) + 0.5)) ++q;
    }
  }
  std::sort(angles.begin(), angles.end());
  angles.erase(
      std::unique(angles.begin(), angles.end(), [](double p, double q) { return q - p < kEqual; }),
      angles.end());
  return angles;
}

std::vector<double> many_angles(const RatioData& data, const Circle& d) {
  return starting_angles(data, d, kAngles, data.snps <= kAllRatios ? kAllRatios : kQuantiles);
}

std::vector<StationaryPoint> points_on(const Circle& d, LossForm loss,
                                       const std::vector<double>& angles, bool maxima) {
  std::vector<Sum> sums;
  sums.reserve(angles.size());
  for (const double angle : angles) sums.push_back(evaluate(d, loss, angle));
  std::vector<StationaryPoint> out;
  for (std::size_t i = 0; i < angles.size(); ++i) {
    const bool wraps = i + 1 == angles.size();
    const double right = wraps ? angles[0] + kHalfTurn : angles[i + 1];
    const double f = sums[i].slope, g = wraps ? sums[0].slope : sums[i + 1].slope;
    const bool minimum = f < 0 && g >= 0, maximum = f > 0 && g <= 0;
    if (!minimum && !(maximum && maxima)) continue;
    double at = g == 0 ? right
                       : root_between(angles[i], f, right, g, kAngleError,
                                      [&](double angle) { return evaluate(d, loss, angle).slope; });
    if (at >= 0.5 * kHalfTurn) at -= kHalfTurn;
    out.push_back({at, d.theta(at), evaluate(d, loss, at).value, minimum});
  }
  std::sort(out.begin(), out.end(),
            [](const StationaryPoint& p, const StationaryPoint& q) { return p.angle < q.angle; });
  return out;
}

// Of a sum without a strict minimum (all SNPs beyond a redescending loss): any angle will do.
void require_minimum(const Circle& d, LossForm loss, std::vector<StationaryPoint>& points) {
  for (const auto& point : points)
    if (point.minimum) return;
  points.push_back({0, 0, evaluate(d, loss, 0).value, true});
}

}  // namespace

std::size_t lowest(const std::vector<StationaryPoint>& points) {
  std::size_t best = points.size();
  for (std::size_t i = 0; i < points.size(); ++i)
    if (points[i].minimum && (best == points.size() || points[i].value < points[best].value))
      best = i;
  return best;
}

std::vector<StationaryPoint> stationary_points(const RatioData& data, LossForm loss, double tau2) {
  Circle d(data);
  d.set_tau2(tau2);
  auto points = points_on(d, loss, many_angles(data, d), true);
  require_minimum(d, loss, points);
  return points;
}

LevelSet level_set(const RatioData& data, LossForm loss, double tau2,
                   const std::vector<StationaryPoint>& points, double level) {
  Circle d(data);
  d.set_tau2(tau2);
  // Between stationary points the sum is monotone; the pole of theta parts the circle.
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<std::pair<double, double>> nodes;  // angle, value - level
  const double pole = -0.5 * kHalfTurn;
  const double at_pole = evaluate(d, loss, pole).value - level;
  nodes.emplace_back(pole, at_pole);
  for (const auto& point : points)
    if (point.angle > pole + kEqual) nodes.emplace_back(point.angle, point.value - level);
  nodes.emplace_back(pole + kHalfTurn, at_pole);
  LevelSet out{true, {}};
  double start = at_pole <= 0 ? -kInfinity : std::numeric_limits<double>::quiet_NaN();
  bool inside = at_pole <= 0;
  for (std::size_t i = 0; i + 1 < nodes.size(); ++i) {
    const auto [left, f] = nodes[i];
    const auto [right, g] = nodes[i + 1];
    if ((f <= 0) == (g <= 0)) continue;
    const double at = root_between(left, f, right, g, kAngleError, [&](double angle) {
      return evaluate(d, loss, angle).value - level;
    });
    const double theta = d.scale * std::tan(at);
    if (inside)
      out.pieces.emplace_back(start, theta);
    else
      start = theta;
    inside = !inside;
    out.everything = false;
  }
  if (inside) out.pieces.emplace_back(start, kInfinity);
  out.everything = out.everything && inside;
  return out;
}

namespace {

struct Fit {
  double angle, score;
};

// Score of tau2 at the theta that minimises the sum of rho.
Fit score_at(Circle& d, LossForm loss, double delta, double tau2, double scale2,
             std::vector<double> angles, const double* warm) {
  d.set_tau2(tau2);
  if (warm) {
    angles.push_back(*warm);
    std::sort(angles.begin(), angles.end());
  }
  auto points = points_on(d, loss, angles, false);
  require_minimum(d, loss, points);
  const double angle = points[lowest(points)].angle;
  const double cosine = std::cos(angle), sine = std::sin(angle), k2 = loss.constant * loss.constant;
  double score = 0;
  for (std::size_t j = 0; j < d.a.size(); ++j) {
    const double n = d.y[j] * cosine - d.x[j] * sine;
    const double v = d.a[j] * cosine * cosine + 2 * d.c[j] * sine * cosine + d.b[j] * sine * sine;
    const double square = n * n / v;
    double part, weight;
    weigh(loss.kind, square, k2, part, weight);
    score += scale2 * d.b[j] * (weight * square - delta) / v;
  }
  return {angle, score * cosine * cosine};
}

}  // namespace

std::vector<DispersedRoot> dispersed_roots(const RatioData& data, LossForm loss, double delta,
                                           Monitor& monitor) {
  Circle d(data);
  // Padding has to add nothing to the score either.
  for (std::size_t j = data.snps; j < d.b.size(); ++j) d.b[j] = 0;
  const double scale2 = 1 / (d.scale * d.scale);
  const auto all = many_angles(data, d);
  const auto few = starting_angles(data, d, kFewAngles, kFewQuantiles);
  std::vector<DispersedRoot> roots;
  const Fit first = score_at(d, loss, delta, 0, scale2, all, nullptr);
  if (!(first.score > 0)) roots.push_back({0, d.theta(first.angle), 0, 0, false});

  // Above the largest squared residual over delta no SNP is further off than expected; effects
  // near the pole are not worth a scale.
  const double slope = d.scale * std::tan(std::clamp(first.angle, -kSteepest, kSteepest));
  double largest = 0, smallest = std::numeric_limits<double>::infinity();
  for (std::size_t j = 0; j < data.snps; ++j) {
    const double e = data.by[j] - slope * data.bx[j];
    largest = std::max(largest, std::max(e * e, data.by[j] * data.by[j]));
    smallest = std::min(smallest, data.sy[j] * data.sy[j]);
  }
  double top = std::max(2 * largest / delta, smallest);
  double warm = first.angle;
  Fit at_top = score_at(d, loss, delta, top, scale2, few, &warm);
  for (int i = 0; i < 40 && at_top.score >= 0; ++i) {
    top *= 4;
    at_top = score_at(d, loss, delta, top, scale2, few, &warm);
  }

  double left = 0, f_left = first.score;
  for (std::size_t i = 1; i <= kSteps; ++i) {
    if (monitor.step()) return roots;
    const double share = static_cast<double>(i) / static_cast<double>(kSteps);
    const double right = top * share * share * share;
    const Fit fit = score_at(d, loss, delta, right, scale2, few, &warm);
    warm = fit.angle;
    if (f_left > 0 && !(fit.score > 0)) {
      const double size = std::max(f_left, -fit.score);
      double tau2 = right;
      Fit found = fit;
      // With few starting angles, and again with all where those missed the lowest minimum.
      for (const auto* angles : {&few, &all}) {
        if (fit.score < 0)
          tau2 = root_between(left, f_left, right, fit.score, kTau2Error, [&](double at) {
            return score_at(d, loss, delta, at, scale2, *angles, &warm).score;
          });
        found = score_at(d, loss, delta, tau2, scale2, all, &warm);
        if (std::abs(found.score) <= kSolved * size) break;
      }
      roots.push_back(
          {tau2, d.theta(found.angle), left, right, std::abs(found.score) > kSolved * size});
    }
    left = right;
    f_left = fit.score;
  }
  return roots;
}

namespace {

MRFAST_DISPATCH void draw_sums(const RatioData& data, const double* mean, const double* error,
                               const NormalStream& stream, std::uint32_t first, double* out) {
  double sums[kRatioSums][kLanes] = {};
  for (std::size_t j = 0; j < data.snps; ++j) {
    double zx[kLanes], zy[kLanes];
    normal_pairs(stream, static_cast<std::uint32_t>(j), first, zx, zy);
    const double precision = 1 / (data.sy[j] * data.sy[j]), sx2 = data.sx[j] * data.sx[j];
    const double noise = error[j] * error[j] * precision;
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double x = data.bx[j] + data.sx[j] * zx[l], y = mean[j] + error[j] * zy[l];
      const double xx = x * x * precision, xy = x * y * precision;
      sums[0][l] += xy;
      sums[1][l] += xx;
      sums[2][l] += (xx - sx2 * precision) * sx2 * precision;
      sums[3][l] += xy * sx2 * precision;
      sums[4][l] += (xx - sx2 * precision) * noise + y * y * sx2 * precision * precision;
    }
  }
  for (std::size_t s = 0; s < kRatioSums; ++s)
    for (std::size_t l = 0; l < kLanes; ++l) out[kRatioSums * l + s] = sums[s][l];
}

}  // namespace

void ratio_sum_draws(const RatioData& data, const double* mean, const double* error,
                     const NormalStream& stream, std::size_t draws, double* out,
                     std::size_t threads, Monitor& monitor) {
  constexpr std::size_t kChunk = 64 * kLanes;
  parallel_for((draws + kChunk - 1) / kChunk, threads, monitor, [&](std::size_t chunk) {
    const std::size_t end = std::min(draws, (chunk + 1) * kChunk);
    for (std::size_t d = chunk * kChunk; d < end; d += kLanes) {
      double block[kRatioSums * kLanes];
      draw_sums(data, mean, error, stream, static_cast<std::uint32_t>(d), block);
      const std::size_t count = std::min(kLanes, end - d);
      std::copy(block, block + kRatioSums * count, out + kRatioSums * d);
    }
    monitor.step(end - chunk * kChunk);
  });
}

}  // namespace mrfast
