#include "mrfast/modes.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numbers>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

// Coordinates (w1, m, w3, x0, x1) in which the likelihood is well conditioned: the residual
// covariance of (X, Y) given G (w1 = log Sigma_11, m = Sigma_12 / Sigma_11, w3 = log of the
// residual variance of Y given X) and two coordinates of the confounding. The bias of the
// observational slope is c = kX kY / sqrt(1 + kX^2 + kY^2), causal effect = m - eta c; the ridges
// of the posterior follow c = constant, so one coordinate is c where that is regular.
enum class Chart { kNatural, kAlongX, kAlongY };

struct State {
  Residual sigma;
  double kx, ky;

  static State of(const Vector<5>& p) {
    const Confounding k(p);
    return {
        {2 * p[kLogX] + std::log(k.k1), std::exp(p[kLogY] - p[kLogX]) * (p[kEffect] + k.o12 / k.k1),
         2 * p[kLogY] + std::log(k.k2 / k.k1)},
        k.kx,
        k.ky};
  }

  Vector<5> parameters() const {
    const double k1 = 1 + kx * kx, k2 = k1 + ky * ky;
    const double slope = sigma.slope * std::exp(0.5 * (sigma.w1 - sigma.w3));
    return {(slope - kx * ky / std::sqrt(k2)) * std::sqrt(k2) / k1, kx, ky,
            0.5 * (sigma.w1 - std::log(k1)), 0.5 * (sigma.w3 + std::log(k1 / k2))};
  }
};

Chart choose_chart(const State& state) {
  const double x = std::abs(state.kx), y = std::abs(state.ky);
  if (std::max(x, y) < 0.02) return Chart::kNatural;
  return x >= y ? Chart::kAlongX : Chart::kAlongY;
}

// The profile at a state, in parts: the residual term by (w1, m, w3), the rest by the parameters.
struct Point {
  State state;
  Vector<5> parameters;
  ResidualTerm residual;
  Evaluation rest;

  Point(const Profile& profile, const State& at)
      : state(at),
        parameters(at.parameters()),
        residual(profile.statistics(), at.sigma),
        rest(profile.evaluate_rest(parameters)) {}

  double value() const { return residual.value + rest.value; }
};

struct Coordinates {
  Chart chart;
  bool logarithmic = false;  // of the coefficient that is a coordinate: far from zero only
  double sign = 1;           // of that coefficient
  Vector<5> q{};

  explicit Coordinates(const State& state) : Coordinates(state, choose_chart(state)) {
    if (chart == Chart::kNatural || std::abs(q[4]) < 1) return;
    logarithmic = true;
    q[4] = std::log(std::abs(q[4]));
  }
  Coordinates(const State& state, Chart kind)
      : chart(kind), q{state.sigma.w1, state.sigma.slope, state.sigma.w3} {
    if (chart == Chart::kNatural) {
      q[3] = state.kx;
      q[4] = state.ky;
      return;
    }
    q[3] = state.kx * state.ky / std::sqrt(1 + state.kx * state.kx + state.ky * state.ky);
    q[4] = chart == Chart::kAlongX ? state.kx : state.ky;
    sign = q[4] < 0 ? -1 : 1;
  }

  bool valid() const {
    if (chart == Chart::kNatural) return true;
    return std::abs(q[3]) < 0.9999 * (logarithmic ? std::exp(q[4]) : sign * q[4]);
  }

  // Largest fraction of a step that is taken: no more than doubling a confounding coefficient, or a
  // factor e in a scale or coefficient, at once.
  double cautious(const Vector<5>& step) const {
    const double reach = chart == Chart::kNatural ? 0.05 : logarithmic ? 1 : std::abs(q[4]);
    double shrink =
        std::max({1.0, std::abs(step[0]), std::abs(step[2]), std::abs(step[4]) / reach});
    if (chart == Chart::kNatural) shrink = std::max(shrink, std::abs(step[3]) / reach);
    return 1 / shrink;
  }

  // kX, kY and c as functions of (x0, x1).
  template <class T>
  std::array<T, 3> confounding(const T& x0, const T& x1) const {
    using std::exp;
    using std::sqrt;
    if (chart == Chart::kNatural) return {x0, x1, x0 * x1 / sqrt(1.0 + x0 * x0 + x1 * x1)};
    const T along = logarithmic ? sign * exp(x1) : x1;
    const T square = along * along;
    const T across = sign * x0 * sqrt((1.0 + square) / (square - x0 * x0));
    if (chart == Chart::kAlongX) return {along, across, x0};
    return {across, along, x0};
  }

  State state() const {
    const auto [kx, ky, c] = confounding<double>(q[3], q[4]);
    return {{q[0], q[1], q[2]}, kx, ky};
  }
};

// Gradient and Hessian of the profile by the coordinates, and the derivatives of the parameters.
struct Expansion {
  Vector<5> gradient{};
  Matrix<5> hessian{};
  Matrix<5> first{};  // rows are parameters, columns coordinates

  Expansion(const Coordinates& at, const Point& point) {
    const auto& q = at.q;
    const auto& ev = point.rest;
    const auto jets = at.confounding<Jet<2>>(Jet<2>::variable(q[3], 0), Jet<2>::variable(q[4], 1));
    const Jet<2>&kx = jets[0], &ky = jets[1], &c = jets[2];
    const Jet<2> k1 = 1.0 + kx * kx, k2 = k1 + ky * ky;
    const Jet<2> log_k1 = log(k1), ratio = sqrt(k2) / k1;
    const Jet<2> fx = -0.5 * log_k1, fy = 0.5 * (log_k1 - log(k2));
    const double scale = std::exp(0.5 * (q[0] - q[2])), slope = q[1] * scale;
    const Jet<2> bias = c * ratio;
    first[kLogX][0] = 0.5;
    first[kLogY][2] = 0.5;
    const Vector<3> outer{0.5 * slope, scale, -0.5 * slope};  // d slope / d (w1, m, w3)
    for (std::size_t i = 0; i < 3; ++i) first[kEffect][i] = outer[i] * ratio.value;
    for (std::size_t i = 0; i < 2; ++i) {
      first[kKappaX][3 + i] = kx.gradient[i];
      first[kKappaY][3 + i] = ky.gradient[i];
      first[kLogX][3 + i] = fx.gradient[i];
      first[kLogY][3 + i] = fy.gradient[i];
      first[kEffect][3 + i] = slope * ratio.gradient[i] - bias.gradient[i];
    }
    Matrix<5> half{};  // H P
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::size_t r = 0; r < 5; ++r) {
        gradient[i] += first[r][i] * ev.gradient[r];
        for (std::size_t t = 0; t < 5; ++t) half[r][i] += ev.hessian[r][t] * first[t][i];
      }
    }
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j <= i; ++j)
        for (std::size_t r = 0; r < 5; ++r) hessian[i][j] += first[r][i] * half[r][j];
    // Second derivatives of the parameters, weighted by the gradient.
    const double gb = ev.gradient[kEffect];
    const double gr = gb * ratio.value;
    hessian[0][0] += gr * 0.25 * slope;
    hessian[1][0] += gr * 0.5 * scale;
    hessian[2][0] -= gr * 0.25 * slope;
    hessian[2][1] -= gr * 0.5 * scale;
    hessian[2][2] += gr * 0.25 * slope;
    for (std::size_t i = 0; i < 2; ++i) {
      for (std::size_t l = 0; l < 3; ++l) hessian[3 + i][l] += gb * outer[l] * ratio.gradient[i];
      for (std::size_t j = 0; j <= i; ++j)
        hessian[3 + i][3 + j] +=
            gb * (slope * ratio.hessian[i][j] - bias.hessian[i][j]) +
            ev.gradient[kKappaX] * kx.hessian[i][j] + ev.gradient[kKappaY] * ky.hessian[i][j] +
            ev.gradient[kLogX] * fx.hessian[i][j] + ev.gradient[kLogY] * fy.hessian[i][j];
    }
    for (std::size_t i = 0; i < 3; ++i) {
      gradient[i] += point.residual.gradient[i];
      for (std::size_t j = 0; j <= i; ++j) hessian[i][j] += point.residual.hessian[i][j];
    }
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j < i; ++j) hessian[j][i] = hessian[i][j];
  }

  Matrix<5> negative_hessian() const {
    Matrix<5> out;
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j < 5; ++j) out[i][j] = -hessian[i][j];
    return out;
  }

  // log |d parameters / d coordinates|
  double log_volume() const {
    const double plane =
        first[kKappaX][3] * first[kKappaY][4] - first[kKappaX][4] * first[kKappaY][3];
    return std::log(std::abs(0.25 * first[kEffect][1] * plane));
  }
};

// Ascent direction: Newton's where the function is concave, with the signs of the curvatures
// made right elsewhere. Returns whether it was concave; gain is the predicted increase.
bool ascent(const Vector<5>& gradient, const Matrix<5>& hessian, Vector<5>& step, double& gain) {
  Vector<5> scale;
  Matrix<5> a;
  Vector<5> g;
  for (std::size_t i = 0; i < 5; ++i)
    scale[i] = 1 / std::sqrt(std::max(std::abs(hessian[i][i]), 1e-12));
  for (std::size_t i = 0; i < 5; ++i) {
    g[i] = gradient[i] * scale[i];
    for (std::size_t j = 0; j < 5; ++j) a[i][j] = -hessian[i][j] * scale[i] * scale[j];
  }
  const Cholesky<5> factor(a);
  if (factor.positive_definite) {
    step = factor.solve(g);
  } else {
    Vector<5> values;
    Matrix<5> vectors;
    symmetric_eigen<5>(a, values, vectors);
    step.fill(0);
    for (std::size_t v = 0; v < 5; ++v) {
      double projection = 0;
      for (std::size_t i = 0; i < 5; ++i) projection += vectors[i][v] * g[i];
      projection /= std::max(std::abs(values[v]), 1e-3);
      for (std::size_t i = 0; i < 5; ++i) step[i] += projection * vectors[i][v];
    }
  }
  gain = 0.5 * dot(step, g);
  for (std::size_t i = 0; i < 5; ++i) step[i] *= scale[i];
  return factor.positive_definite;
}

constexpr std::size_t kLanes = 24;  // positions along one level set of c

struct Group {
  double noise, variance, xx, xy, yy;
};

// Log posterior, up to a constant, along c = constant:
// kX^2 = c^2 + rho e, kY^2 = c^2 + rho / e with rho = |c| sqrt(1 + c^2).
// The residual covariance of (X, Y) follows to first order: its slope by a least-squares step, its
// size by -N log(1 + Q / 2N) in place of -Q / 2 (Pade approximation of the logarithm).
MRFAST_DISPATCH
void scan_line(double c, const double* e, double sample_size, double slope, const Prior& prior,
               const Group* groups, std::size_t n_groups, double* out) {
  const double c2 = c * c, rho = std::abs(c) * std::sqrt(1 + c2);
  const double half_effect = 0.5 * (slope - c) * (slope - c) / prior.effect_variance;
  const double half_kappa = 0.5 / prior.confounding_variance;
  double k2[kLanes], g[kLanes], ratio[kLanes], total[kLanes], pull[kLanes], stiffness[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double kx2 = c2 + rho * e[l], ky2 = c2 + rho * e[kLanes - 1 - l];  // 1 / e is e reversed
    const double k1 = 1 + kx2, r1 = 1 / k1;
    k2[l] = k1 + ky2;
    g[l] = prior.slab_variance * r1;
    ratio[l] = k1 / k2[l];
    out[l] = -half_effect * k2[l] * r1 * r1 - half_kappa * (kx2 + ky2);
    total[l] = pull[l] = 0;
    stiffness[l] = sample_size;
  }
  for (std::size_t i = 0; i < n_groups; ++i) {
    const Group group = groups[i];
    const double n = group.noise, along = c * group.xx + group.xy;
    const double across = c2 * group.xx + 2 * c * group.xy + group.yy;
    const double fixed = n * (group.xx + group.yy), spread = n * (1 + c2);
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double a = group.variance * ratio[l];
      const double r = 1 / (n * n + g[l] * spread + a * (n + g[l]));
      total[l] += (fixed + a * group.xx + g[l] * across) * r;
      pull[l] += (n * group.xy + g[l] * along) * r;
      stiffness[l] += (n + g[l]) * group.xx * r;
    }
  }
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double q = total[l] - pull[l] * pull[l] / stiffness[l];
    const double z = 0.5 * q / sample_size;
    out[l] -= sample_size * z * (6 + z) / (6 + 4 * z);
  }
  if (prior.scale_power != 0)
    for (std::size_t l = 0; l < kLanes; ++l) out[l] += 0.5 * prior.scale_power * std::log(k2[l]);
}

// Sums over the spikes and over the slabs: exact where all candidates have equal noise, elsewhere
// a surrogate that only has to show where to start.
std::vector<Group> scan_groups(const Profile& profile) {
  const Statistics& s = profile.statistics();
  const Prior& prior = profile.prior();
  std::vector<Component> sums;
  if (profile.diagonal() && s.uniform_noise) {
    sums = profile.components();
  } else {
    for (const bool slab : {false, true}) {
      Component sum{0, prior.slab_variance, slab ? prior.slab_variance : prior.spike_variance, 0};
      for (std::size_t j = 0; j < s.size; ++j) {
        if (profile.in_slab(j) != slab) continue;
        sum.add(s.candidate_h1[j], s.candidate_h2[j],
                s.mean_direction.empty() ? 0 : s.mean_direction[j]);
        sum.noise += s.candidate_noise[j];
      }
      sum.noise /= sum.count;
      if (sum.count > 0) sums.push_back(sum);
    }
  }
  const double rx = 1 / std::sqrt(s.s11), ry = 1 / std::sqrt(s.s221);
  std::vector<Group> groups;
  auto add = [&](double noise, double variance, double h11, double h12, double h22) {
    const double xy = h12 - s.slope * h11;
    const double yy = h22 - 2 * s.slope * h12 + s.slope * s.slope * h11;
    groups.push_back({noise, variance, h11 * rx * rx, xy * rx * ry, yy * ry * ry});
  };
  for (const auto& c : sums) {
    if (s.mean_direction.empty() || !(c.mu2 > 0)) {
      add(c.noise, c.variance, c.h11, c.h12, c.h22);
      continue;
    }
    // Raw moments: the direction of the means has a second moment larger by mu2.
    const double r = 1 / c.mu2, h11 = c.f1 * c.f1 * r, h12 = c.f1 * c.f2 * r, h22 = c.f2 * c.f2 * r;
    add(c.noise / (1 + c.mu2), c.variance, h11, h12, h22);
    add(c.noise, c.variance, std::max(c.h11 - h11, 0.0), c.h12 - h12, std::max(c.h22 - h22, 0.0));
  }
  return groups;
}

}  // namespace

double log_sum_exp(const std::vector<double>& values) {
  double top = -std::numeric_limits<double>::infinity();
  for (const double v : values) top = std::max(top, v);
  if (!std::isfinite(top)) return top;
  double sum = 0;
  for (const double v : values) sum += std::exp(v - top);
  return top + std::log(sum);
}

Vector<5> maximum_likelihood(const Statistics& s, double kappa_x, double kappa_y) {
  const double k1 = 1 + kappa_x * kappa_x, k2 = k1 + kappa_y * kappa_y;
  const double c = kappa_x * kappa_y / std::sqrt(k2);
  return {(s.standardised_slope() - c) * std::sqrt(k2) / k1, kappa_x, kappa_y,
          0.5 * std::log(s.s11 / k1), 0.5 * std::log(s.s221 * k1 / k2)};
}

std::vector<Start> massive_starts(const Statistics& s) {
  std::vector<Start> starts{{0, 0}};
  for (const double slope : {s.slope, s.slope - s.pleiotropy_slope}) {
    const double covariance = slope * s.s11;
    const double variance = s.s221 + slope * slope * s.s11;
    const double r = covariance / std::sqrt(s.s11 * variance);
    const double size = std::sqrt(std::abs(r) / (1 - std::abs(r)));
    starts.push_back({size, r < 0 ? -size : size});
  }
  return starts;
}

std::vector<Start> scan_starts(const Profile& profile) {
  const Statistics& s = profile.statistics();
  const Prior& prior = profile.prior();
  const auto groups = scan_groups(profile);
  const double reach = 9 * std::sqrt(prior.confounding_variance);
  // Levels of c: a grid over all magnitudes, refined where a group of candidates agrees.
  std::vector<double> levels;
  levels.reserve(96);
  for (double c = 0.0015; c < reach; c *= c < 0.05 ? 2 : 1.5) {
    levels.push_back(c);
    levels.push_back(-c);
  }
  for (const auto& group : groups) {
    if (!(group.xx > 0)) continue;
    const double centre = -group.xy / group.xx;
    const double width =
        std::sqrt((group.noise * (1 + centre * centre) + group.variance) / group.xx);
    for (const double z : {0.0, 0.7, 2.0, 6.0, 20.0}) {
      levels.push_back(centre + z * width);
      if (z > 0) levels.push_back(centre - z * width);
    }
  }
  for (double& c : levels) {
    if (std::abs(c) < 1e-7) c = c < 0 ? -1e-7 : 1e-7;
    c = std::clamp(c, -reach, reach);
  }
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  std::vector<double> values(levels.size() * kLanes), positions(levels.size() * kLanes);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const double c = levels[i], rho = std::abs(c) * std::sqrt(1 + c * c);
    // Both coefficients between |c| and the reach, evenly in the logarithm of e.
    const double top = std::max(1.0, (reach * reach) / rho);
    const double ratio = std::pow(top, 2.0 / (kLanes - 1));
    double* e = positions.data() + i * kLanes;
    double value = 1 / top;
    for (std::size_t l = 0; l < kLanes; ++l, value *= ratio) e[l] = value;
    scan_line(c, e, s.n, s.standardised_slope(), prior, groups.data(), groups.size(),
              values.data() + i * kLanes);
  }
  struct Peak {
    double value;
    std::size_t index;
  };
  std::vector<Peak> peaks;
  const std::size_t rows = levels.size();
  for (std::size_t i = 0; i < rows; ++i) {
    const double* row = values.data() + i * kLanes;
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double here = row[l];
      if ((l > 0 && row[l - 1] > here) || (l + 1 < kLanes && row[l + 1] > here)) continue;
      const bool peak =
          (i == 0 || *(row + l - kLanes) <= here) && (i + 1 == rows || row[l + kLanes] <= here);
      if (peak) peaks.push_back({here, i * kLanes + l});
    }
  }
  std::stable_sort(peaks.begin(), peaks.end(),
                   [](const Peak& a, const Peak& b) { return a.value > b.value; });
  if (peaks.size() > 12) peaks.resize(12);
  std::vector<Start> starts;
  for (const auto& peak : peaks) {
    const double c = levels[peak.index / kLanes], e = positions[peak.index];
    const double rho = std::abs(c) * std::sqrt(1 + c * c);
    const double ky = std::sqrt(c * c + rho / e);
    starts.push_back({std::sqrt(c * c + rho * e), c < 0 ? -ky : ky});
  }
  // From far apart in any case; where the surface is rough (raw moments, few people, strong
  // instruments), from everywhere.
  for (const double size : {2.0, 6.0}) {
    starts.push_back({size, size});
    starts.push_back({size, -size});
  }
  double strength = 0;
  for (const auto& group : groups) strength += group.xx;
  if (!s.mean_direction.empty() || s.n < 1e4 || strength > 0.1) {
    const double limit = 1.5 * std::sqrt(prior.confounding_variance);
    for (const double x : {0.2, 1.0, 3.0, 12.0})
      for (const double y : {0.2, -0.2, 1.0, -1.0, 3.0, -3.0, 12.0, -12.0})
        starts.push_back({std::min(x, limit), std::clamp(y, -limit, limit)});
  }
  return starts;
}

namespace {

// Whether a place is, within a small fraction of the posterior's spread, a mode known already or
// its mirror image.
bool same_mode(const Mode& mode, const Coordinates& place, const Matrix<5>& hessian,
               double log_density) {
  if (!(std::abs(log_density - mode.log_density) < 0.02)) return false;
  State other = State::of(mode.parameters);
  const State here = place.state();
  if (here.kx * other.kx < 0 || (here.kx * other.kx == 0 && here.ky * other.ky < 0)) {
    other.kx = -other.kx;
    other.ky = -other.ky;
  }
  Coordinates target(other, place.chart);
  if (place.logarithmic) target.q[4] = std::log(std::max(std::abs(target.q[4]), 1e-300));
  double distance = 0;
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 5; ++j)
      distance -= (target.q[i] - place.q[i]) * hessian[i][j] * (target.q[j] - place.q[j]);
  return distance < 1e-3;
}

}  // namespace

bool climb(const Profile& profile, const Vector<5>& start, const std::vector<Mode>& known,
           Mode& mode) {
  Point point(profile, State::of(start));
  const double constant = known.empty() ? 0 : profile.log_density_constant();
  if (!std::isfinite(point.value())) return false;
  for (int iteration = 0; iteration < 200; ++iteration) {
    const Coordinates at(point.state);
    const Expansion expansion(at, point);
    Vector<5> step;
    double gain = 0;
    const bool concave = ascent(expansion.gradient, expansion.hessian, step, gain);
    if (!std::isfinite(gain)) return false;
    double fraction = at.cautious(step);
    if (concave && gain < 0.05 && fraction == 1) {
      Coordinates next = at;
      for (std::size_t i = 0; i < 5; ++i) next.q[i] += step[i];
      if (next.valid())
        for (const auto& other : known)
          if (same_mode(other, next, expansion.hessian, constant + point.value() + gain))
            return false;
    }
    const bool last = gain < 1e-12 && fraction == 1;
    bool accepted = false;
    for (int halving = 0; halving < 40; ++halving, fraction *= 0.5) {
      Coordinates next = at;
      for (std::size_t i = 0; i < 5; ++i) next.q[i] += fraction * step[i];
      if (!next.valid()) continue;
      const Point there(profile, next.state());
      // Close to the optimum the differences drown in rounding: take the step as it is.
      if (last || there.value() >= point.value() + 1e-4 * fraction * gain - 1e-10) {
        if (!std::isfinite(there.value())) continue;
        point = there;
        accepted = true;
        break;
      }
    }
    if (last || !accepted) break;
  }
  State state = point.state;
  const double size = std::max(std::abs(state.kx), std::abs(state.ky));
  if (size < 1e-6) state.kx = state.ky = 0;
  if (state.kx < 0 || (state.kx == 0 && state.ky < 0)) {
    state.kx = -state.kx;
    state.ky = -state.ky;
  }
  const Point top(profile, state);
  const Expansion expansion(Coordinates(state), top);
  const Cholesky<5> factor(expansion.negative_hessian());
  if (!factor.positive_definite) return false;
  const double top_density = top.value() + profile.log_density_constant();
  for (const auto& other : known)
    if (same_mode(other, Coordinates(state), expansion.hessian, top_density)) return false;
  if (size > 0 && size < 0.2) {
    // So flat around the origin that this is the origin's mode?
    Mode origin;
    if (climb(profile, maximum_likelihood(profile.statistics(), 0, 0), known, origin) &&
        same_mode(origin, Coordinates(state), expansion.hessian, top_density)) {
      mode = origin;
      return true;
    }
  }
  // Newton's decrement says how far the true optimum still is.
  if (!(0.5 * dot(expansion.gradient, factor.solve(expansion.gradient)) < 1e-6)) return false;
  const double log_determinant = factor.log_determinant() - 2 * expansion.log_volume();
  mode.parameters = top.parameters;
  mode.log_density = top_density;
  mode.log_laplace = top.value() + profile.log_laplace_remainder(top.parameters, log_determinant) +
                     (size < 1e-6 ? 0 : std::numbers::ln2);
  return true;
}

bool covariance_root(const Profile& profile, const Vector<5>& p, Matrix<5>& root) {
  const State state = State::of(p);
  const Expansion expansion(Coordinates(state), Point(profile, state));
  const Cholesky<5> factor(expansion.negative_hessian());
  if (!factor.positive_definite) return false;
  // Columns of P L^-T, (-H)^-1 = L^-T L^-1.
  for (std::size_t column = 0; column < 5; ++column) {
    Vector<5> unit{};
    unit[column] = 1;
    for (std::size_t i = 5; i-- > 0;) {
      for (std::size_t l = i + 1; l < 5; ++l) unit[i] -= factor.lower[l][i] * unit[l];
      unit[i] /= factor.lower[i][i];
    }
    for (std::size_t r = 0; r < 5; ++r) {
      root[r][column] = 0;
      for (std::size_t t = 0; t < 5; ++t) root[r][column] += expansion.first[r][t] * unit[t];
    }
  }
  return true;
}

Evidence evidence_from_points(const Profile& profile, const std::vector<Vector<5>>& points,
                              const Stop& stop) {
  Evidence out;
  for (const auto& point : points) {
    Mode mode;
    if (stop && stop()) throw Interrupted();
    if (!climb(profile, point, out.modes, mode)) continue;
    out.modes.push_back(mode);
  }
  std::stable_sort(out.modes.begin(), out.modes.end(),
                   [](const Mode& a, const Mode& b) { return a.log_laplace > b.log_laplace; });
  std::vector<double> terms;
  for (const auto& mode : out.modes) terms.push_back(mode.log_laplace);
  out.log_evidence = log_sum_exp(terms);
  return out;
}

Evidence evidence_from_starts(const Profile& profile, const std::vector<Start>& starts,
                              const Stop& stop) {
  std::vector<Vector<5>> points;
  for (const auto& start : starts)
    points.push_back(maximum_likelihood(profile.statistics(), start.kappa_x, start.kappa_y));
  return evidence_from_points(profile, points, stop);
}

Evidence scan_evidence(const Profile& profile, const Stop& stop) {
  // MASSIVE's starts first: what they find is in the result to the bit, so that the scan never
  // has less evidence.
  auto starts = massive_starts(profile.statistics());
  for (const auto& start : scan_starts(profile)) starts.push_back(start);
  return evidence_from_starts(profile, starts, stop);
}

}  // namespace mrfast
