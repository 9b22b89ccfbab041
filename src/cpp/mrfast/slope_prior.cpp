#include "mrfast/slope_prior.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "mrfast/quadrature.hpp"

namespace mrfast {

namespace {

constexpr double kReach = 9;  // standard deviations that the smoothing integral covers

}  // namespace

// Nodes as multiples of the scale: (0, 1) through v^5, which leaves nothing of the logarithm at 0,
// then (1, 3), (3, 9) and (9, 18).
struct SlopePrior::Nodes {
  static constexpr std::size_t kPoints = 16;
  static constexpr std::size_t kSize = 4 * kPoints;
  std::array<double, kSize> node, weight, log_node;
  Nodes() {
    const Rule rule = gauss_legendre(kPoints);
    const auto &x = rule.node, &w = rule.weight;
    constexpr std::array<double, 4> kEdges = {1, 3, 9, 18};
    for (std::size_t i = 0; i < kPoints; ++i) {
      node[i] = std::pow(x[i], 5);
      weight[i] = 5 * std::pow(x[i], 4) * w[i];
      for (std::size_t part = 1; part < 4; ++part) {
        const double length = kEdges[part] - kEdges[part - 1];
        node[part * kPoints + i] = kEdges[part - 1] + length * x[i];
        weight[part * kPoints + i] = length * w[i];
      }
    }
    for (std::size_t i = 0; i < kSize; ++i) log_node[i] = std::log(node[i]);
  }
  static const Nodes& get() {
    static const Nodes nodes;
    return nodes;
  }
};

SlopePrior::SlopePrior(double sd_x, double sd_y)
    : sd_x_(sd_x),
      sd_y_(sd_y),
      square_(0.5 / (sd_x * sd_x) + 0.5 / (sd_y * sd_y)),
      product_(1 / (sd_x * sd_y)) {
  first_ = std::log(1e-6 * std::min({1.0, sd_x, sd_y, sd_x * sd_y}));
  const double end = std::log(1e3 * std::max({1.0, sd_x, sd_y}));
  const auto intervals = static_cast<std::size_t>(std::ceil((end - first_) / kWidth));
  last_ = first_ + kWidth * static_cast<double>(intervals);

  // Interpolation at Chebyshev points: coefficients of the Chebyshev series, then of the powers.
  constexpr std::size_t n = kDegree + 1;
  std::array<double, n> value;
  table_.resize(intervals);
  for (std::size_t k = 0; k < intervals; ++k) {
    const double center = first_ + kWidth * (static_cast<double>(k) + 0.5);
    for (std::size_t i = 0; i < n; ++i) {
      const double angle = std::numbers::pi * (static_cast<double>(i) + 0.5) / n;
      value[i] = remainder_by_quadrature(std::exp(center + 0.5 * kWidth * std::cos(angle)));
    }
    std::array<double, n> power{}, before{}, here{};
    here[0] = 1;  // the Chebyshev polynomials T_{d-1} and T_d by their powers
    for (std::size_t d = 0; d < n; ++d) {
      double coefficient = 0;
      for (std::size_t i = 0; i < n; ++i)
        coefficient += value[i] * std::cos(std::numbers::pi * static_cast<double>(d) *
                                           (static_cast<double>(i) + 0.5) / n);
      coefficient *= (d == 0 ? 1.0 : 2.0) / n;
      for (std::size_t i = 0; i <= d; ++i) power[i] += coefficient * here[i];
      std::array<double, n> next{};
      for (std::size_t i = 0; i + 1 < n; ++i) next[i + 1] = (d == 0 ? 1.0 : 2.0) * here[i];
      for (std::size_t i = 0; i < n; ++i) next[i] -= before[i];
      before = here;
      here = next;
    }
    table_[k] = power;
  }
  slope_ = product_ / std::numbers::pi;
  intercept_ = std::exp(remainder_by_quadrature(std::exp(first_))) + slope_ * first_;
  beyond_ = remainder_by_quadrature(std::exp(last_));
}

double SlopePrior::decay(double c) const {
  return square_ * c * c + product_ * c * std::sqrt(1 + c * c);
}

double SlopePrior::remainder_by_quadrature(double c) const {
  const double rho = c * std::sqrt(1 + c * c);
  const double strength = rho * product_;
  const double end = 0.5 * std::acosh(1 + 60 / strength);
  // Errors of the trapezoid rule below 1e-11: strip of analyticity pi / 4, width of the peak.
  const double coarse = std::min(0.18, 0.4 / std::sqrt(strength));
  const auto half = static_cast<int>(std::ceil(end / coarse));
  const double step = end / half;
  const double ratio = sd_x_ / sd_y_;
  double sum = 0;
  for (int i = -half; i <= half; ++i) {
    const double e = std::exp(2 * step * i);
    const double k2 = 1 + 2 * c * c + rho * (ratio * e + 1 / (ratio * e));
    sum += std::sqrt(k2) * std::exp(-strength * (0.5 * (e + 1 / e) - 1));
  }
  return std::log(sum * step * product_ / std::numbers::pi);
}

double SlopePrior::remainder(double log_c) const {
  if (log_c < first_) return std::log(intercept_ - slope_ * log_c);
  if (log_c >= last_) return beyond_;
  const double position = (log_c - first_) / kWidth;
  const auto k = std::min(static_cast<std::size_t>(position), table_.size() - 1);
  const double t = 2 * (position - static_cast<double>(k)) - 1;
  const auto& a = table_[k];
  double p = a[kDegree];
  for (std::size_t d = kDegree; d-- > 0;) p = p * t + a[d];
  return p;
}

double SlopePrior::log_density(double c) const {
  c = std::abs(c);
  if (c == 0) return std::numeric_limits<double>::infinity();
  return remainder_by_quadrature(c) - decay(c);
}

SlopePrior::Peak SlopePrior::find_peak(double center, double sd) const {
  // The exponent is strictly concave; center >= 0.
  const double precision = 1 / (sd * sd);
  double c = 0;
  if (center * precision > product_) {
    double low = 0, high = center;
    c = center * precision / (precision + 4 * square_);
    for (int step = 0; step < 100; ++step) {
      const double root = std::sqrt(1 + c * c);
      const double slope =
          (center - c) * precision - 2 * square_ * c - product_ * (1 + 2 * c * c) / root;
      (slope > 0 ? low : high) = c;
      const double curvature =
          precision + 2 * square_ + product_ * c * (3 + 2 * c * c) / (root * root * root);
      double next = c + slope / curvature;
      if (!(next > low && next < high)) next = 0.5 * (low + high);
      const bool done = std::abs(next - c) <= 1e-9 * next;
      c = next;
      if (done) break;
    }
  }
  const double z = (c - center) / sd;
  return {c, 1 / std::sqrt(precision + 2 * square_), -decay(c) - 0.5 * z * z};
}

double SlopePrior::log_smoothed(double center, double sd) const {
  center = std::min(std::abs(center), 1e80);  // its cube has to be a number
  const Peak peak = find_peak(center, sd);
  const auto integrand = [&](double c, double log_c, double side) {
    const double z = (c - side * center) / sd;
    return std::exp(remainder(log_c) - decay(c) - 0.5 * z * z - peak.top);
  };
  double sum = 0;
  if (peak.at > (kReach - 1) * peak.sd) {
    // Far from the singularity: Gauss-Hermite around the peak, with exact weights while the
    // exponents keep digits behind the point.
    static const Rule kFew = gauss_hermite(9), kMany = gauss_hermite(20);
    const double root = std::sqrt(1 + peak.at * peak.at);
    const double spread =
        1 / std::sqrt(1 / (sd * sd) + 2 * square_ +
                      product_ * peak.at * (3 + 2 * peak.at * peak.at) / (root * root * root));
    const Rule& rule = peak.at > 25 * peak.sd ? kFew : kMany;
    const double scale = spread * std::sqrt(2 * std::numbers::pi);
    if (peak.top < -1e8) sum = scale * std::exp(remainder(std::log(peak.at)));
    for (std::size_t i = 0; i < rule.node.size() && peak.top >= -1e8; ++i) {
      const double z = rule.node[i], c = peak.at + spread * z;
      if (c > 0)
        sum += scale * rule.weight[i] * std::exp(0.5 * z * z) * integrand(c, std::log(c), 1);
    }
  } else {
    const Nodes& rule = Nodes::get();
    const double log_sd = std::log(peak.sd);
    for (std::size_t i = 0; i < Nodes::kSize; ++i) {
      const double c = peak.sd * rule.node[i], log_c = log_sd + rule.log_node[i];
      sum += peak.sd * rule.weight[i] * (integrand(c, log_c, 1) + integrand(c, log_c, -1));
    }
  }
  const double normal = -std::log(sd) - 0.5 * std::log(2 * std::numbers::pi);
  return std::max(peak.top + std::log(sum) + normal, -1e300);
}

double SlopePrior::conditional_quantile(double center, double sd, double probability) const {
  // Masses of cells between points that crowd around 0 by the midpoint rule, then uniform inside.
  const double mirror = center < 0 ? -1 : 1;
  center = std::abs(center);
  if (mirror < 0) probability = 1 - probability;
  const Peak peak = find_peak(center, sd);
  constexpr int kCells = 400;
  const double low = std::max(peak.at - kReach * peak.sd, -kReach * peak.sd);
  const double high = peak.at + kReach * peak.sd;
  const bool split = low < 0;
  // Cells in the cube root of c where the range holds 0.
  const auto place = [&](double t) { return split ? t * t * t : t; };
  const double start = split ? std::cbrt(low) : low, end = split ? std::cbrt(high) : high;
  std::vector<double> edge(kCells + 1), mass(kCells + 1, 0.0);
  for (int i = 0; i <= kCells; ++i)
    edge[static_cast<std::size_t>(i)] = place(start + (end - start) * i / kCells);
  for (std::size_t i = 0; i < kCells; ++i) {
    const double c = place(start + (end - start) * (static_cast<double>(i) + 0.5) / kCells);
    const double z = (c - center) / sd;
    const double size = std::max(std::abs(c), 1e-300);
    mass[i + 1] =
        mass[i] + (edge[i + 1] - edge[i]) *
                      std::exp(remainder(std::log(size)) - decay(size) - 0.5 * z * z - peak.top);
  }
  const double target = probability * mass.back();
  const auto above = std::upper_bound(mass.begin(), mass.end() - 1, target);
  const auto cell = std::max<std::ptrdiff_t>(above - mass.begin() - 1, 0);
  const auto i = static_cast<std::size_t>(cell);
  const double share = mass[i + 1] > mass[i] ? (target - mass[i]) / (mass[i + 1] - mass[i]) : 0.5;
  return mirror * (edge[i] + std::clamp(share, 0.0, 1.0) * (edge[i + 1] - edge[i]));
}

double SlopePrior::confounding_quantile(double c, double probability) const {
  c = std::max(std::abs(c), 1e-300);
  const double rho = c * std::sqrt(1 + c * c);
  const double strength = rho * product_;
  const double end = 0.5 * std::acosh(1 + 40 / strength);
  const double ratio = sd_x_ / sd_y_;
  constexpr std::size_t kCells = 300;
  std::array<double, kCells + 1> mass{};
  const double step = 2 * end / kCells;
  for (std::size_t i = 0; i < kCells; ++i) {
    const double e = std::exp(2 * (-end + step * (static_cast<double>(i) + 0.5)));
    const double k2 = 1 + 2 * c * c + rho * (ratio * e + 1 / (ratio * e));
    mass[i + 1] = mass[i] + std::sqrt(k2) * std::exp(-strength * (0.5 * (e + 1 / e) - 1));
  }
  const double target = probability * mass.back();
  const auto above = std::upper_bound(mass.begin(), mass.end() - 1, target);
  const auto i = static_cast<std::size_t>(std::max<std::ptrdiff_t>(above - mass.begin() - 1, 0));
  const double share = mass[i + 1] > mass[i] ? (target - mass[i]) / (mass[i + 1] - mass[i]) : 0.5;
  const double u = -end + step * (static_cast<double>(i) + share);
  return rho * ratio * std::exp(2 * u);
}

}  // namespace mrfast
