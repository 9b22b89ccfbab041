#include "mrfast/collapsed.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "mrfast/dispatch.hpp"
#include "mrfast/small.hpp"
#include "mrfast/vector_math.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kMostGroups = 6;
constexpr double kLowestD3 = -4;                // where a search for it stops
constexpr double kSmallestConfounding = 1e-12;  // |c|; the density is integrable at 0

std::size_t padded(std::size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

double value_of(double x) { return x; }
template <std::size_t D>
double value_of(const Jet<D>& x) {
  return x.value;
}

using std::exp;
using std::log;
using std::sqrt;

// expm1(-d) + d: a normal variance's log likelihood per half person, without cancellation.
double excess(double d) { return std::expm1(-d) + d; }
template <std::size_t D>
Jet<D> excess(const Jet<D>& d) {
  const double e = std::exp(-d.value);
  return d.chain(excess(d.value), 1 - e, e);
}

// Sums over one group for F = sum log(exp(-kappa R^2) + odds), R = b - Lambda a, with what its
// first two derivatives need; p0 and p1 are the shares of spike and slab.
struct Sums {
  double log_sum = 0, r2 = 0;
  double ra = 0, p1 = 0, p0r2 = 0, p0ra = 0, p0a2 = 0;
  double pp = 0, ppr2 = 0, ppra = 0, ppr4 = 0, ppr3a = 0, ppr2a2 = 0;
};

// Rows of lanes between renormalisations, less one (a mask): none where a few factors as small as
// the smallest that may occur would underflow.
std::size_t rows_between(double smallest, std::size_t usual) {
  return smallest > 1e-35 ? usual : 0;
}

MRFAST_DISPATCH void value_sums(const double* a, const double* b, const double* odds, std::size_t n,
                                double lambda, double kappa, double factor, std::size_t mask,
                                Sums& out) {
  LogProduct product;
  double r2[kLanes] = {};
  for (std::size_t i = 0; i < n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double r = b[i + l] - lambda * a[i + l];
      const double square = r * r;
      product.product[l] *= fast_exp(-kappa * square) + factor * odds[i + l];
      r2[l] += square;
    }
    if (((i / kLanes) & mask) == mask) product.renormalise();
  }
  out.log_sum = product.log();
  for (std::size_t l = 0; l < kLanes; ++l) out.r2 += r2[l];
}

MRFAST_DISPATCH void derivative_sums(const double* a, const double* b, const double* odds,
                                     std::size_t n, double lambda, double kappa, double factor,
                                     std::size_t mask, Sums& out) {
  LogProduct product;
  double s[12][kLanes] = {};
  for (std::size_t i = 0; i < n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double aa = a[i + l];
      const double r = b[i + l] - lambda * aa;
      const double square = r * r, ra = r * aa;
      const double spike = fast_exp(-kappa * square);
      const double slab = factor * odds[i + l];
      const double sum = spike + slab;
      product.product[l] *= sum;
      const double p0 = spike / sum, p1 = slab / sum;
      const double pp = p0 * p1;
      s[0][l] += square;
      s[1][l] += ra;
      s[2][l] += p1;
      s[3][l] += p0 * square;
      s[4][l] += p0 * ra;
      s[5][l] += p0 * (aa * aa);
      s[6][l] += pp;
      s[7][l] += pp * square;
      s[8][l] += pp * ra;
      s[9][l] += pp * square * square;
      s[10][l] += pp * square * ra;
      s[11][l] += pp * ra * ra;
    }
    if (((i / kLanes) & mask) == mask) product.renormalise();
  }
  out.log_sum = product.log();
  double total[12] = {};
  for (std::size_t k = 0; k < 12; ++k)
    for (std::size_t l = 0; l < kLanes; ++l) total[k] += s[k][l];
  out.r2 = total[0];
  out.ra = total[1];
  out.p1 = total[2];
  out.p0r2 = total[3];
  out.p0ra = total[4];
  out.p0a2 = total[5];
  out.pp = total[6];
  out.ppr2 = total[7];
  out.ppra = total[8];
  out.ppr4 = total[9];
  out.ppr3a = total[10];
  out.ppr2a2 = total[11];
}

// What a point means for candidates of one noise law (all in units of S11, S22.1).
template <class S>
struct Scales {
  S c11, lambda, v0, v1;
};

template <class S>
Scales<S> scales(double n11, double n22, double ratio, double q2, const Point<S>& at, const S& s1,
                 const S& s3, const S& g, const S& a0, const S& a1) {
  const S w = ratio * at.m - at.beta;
  const S share = n11 / (n11 + g);
  Scales<S> out;
  out.c11 = s1 * (n11 + g);
  out.lambda = at.beta + share * w;
  const S noise = s3 * n22 + s1 * (g * share * w * w + q2 * (at.m * at.m));
  out.v0 = noise + s3 * a0;
  out.v1 = noise + s3 * a1;
  return out;
}

// Sum over candidates with a noise law each, without the J d3 / 2 that their scales share.
MRFAST_DISPATCH double separate_sums(const double* a, const double* b, const double* odds,
                                     const double* n11, const double* n22, const double* ratio,
                                     const double* q2, std::size_t size, double beta, double m,
                                     double s1, double s3, double g, double a0, double a1,
                                     std::size_t mask) {
  LogProduct product, scale;
  const std::size_t n = padded(size);
  double rest[kLanes] = {};
  const double m2 = m * m, turn = s1 / s3;
  for (std::size_t i = 0; i < n; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double nx = n11[i + l];
      const double w = ratio[i + l] * m - beta;
      const double share = nx / (nx + g);
      const double noise = s3 * n22[i + l] + s1 * (g * share * w * w + q2[i + l] * m2);
      const double v0 = noise + s3 * a0, v1 = noise + s3 * a1;
      const double r = b[i + l] - (beta + share * w) * a[i + l];
      const double square = r * r;
      const double kappa = 0.5 * s3 * (a1 - a0) / (v0 * v1);
      product.product[l] *= fast_exp(-kappa * square) + odds[i + l] * std::sqrt(v0 / v1);
      // Delta / (C11 V0), as a ratio of order one.
      const double ratio_of = nx * (n22[i + l] + m2 * turn * q2[i + l]) / ((nx + g) * v0);
      scale.product[l] *= i + l < size ? ratio_of : 1.0;
      rest[l] += a[i + l] * a[i + l] / (s1 * (nx + g)) + square / v1;
    }
    if (((i / kLanes) & mask) == mask) {
      product.renormalise();
      scale.renormalise();
    }
  }
  double sum = 0;
  for (std::size_t l = 0; l < kLanes; ++l) sum += rest[l];
  return product.log() + 0.5 * scale.log() - 0.5 * sum;
}

template <std::size_t D>
void add_outer(Jet<D>& out, double f, const Jet<D>& x, const Jet<D>& y) {
  for (std::size_t i = 0; i < D; ++i)
    for (std::size_t j = 0; j < D; ++j)
      out.hessian[i][j] +=
          0.5 * f * (x.gradient[i] * y.gradient[j] + y.gradient[i] * x.gradient[j]);
}
template <std::size_t D>
void add_first(Jet<D>& out, double f, const Jet<D>& x) {
  for (std::size_t i = 0; i < D; ++i) {
    out.gradient[i] += f * x.gradient[i];
    for (std::size_t j = 0; j < D; ++j) out.hessian[i][j] += f * x.hessian[i][j];
  }
}

// log(exp(-kappa R^2) + odds factor) and R^2 / V1 summed over a group, with derivatives.
double mixture(const AssociationData& data, const NoiseGroup& group, const Scales<double>& at) {
  const double kappa = 0.5 * (1 / at.v0 - 1 / at.v1), factor = std::sqrt(at.v0 / at.v1);
  Sums sums;
  value_sums(data.a.data() + group.begin, data.b.data() + group.begin,
             data.odds.data() + group.begin, padded(group.size), at.lambda, kappa, factor,
             rows_between(factor * data.least_odds, 7), sums);
  return sums.log_sum - 0.5 * sums.r2 / at.v1;
}
template <std::size_t D>
Jet<D> mixture(const AssociationData& data, const NoiseGroup& group, const Jet<D>& lambda,
               const Jet<D>& kappa, const Jet<D>& log_factor, const Jet<D>& inverse_v1) {
  const double k = kappa.value, factor = std::exp(log_factor.value);
  Sums s;
  derivative_sums(data.a.data() + group.begin, data.b.data() + group.begin,
                  data.odds.data() + group.begin, padded(group.size), lambda.value, k, factor,
                  rows_between(factor * data.least_odds, 7), s);
  Jet<D> out(s.log_sum);
  add_first(out, s.p1, log_factor);
  add_first(out, -s.p0r2, kappa);
  add_first(out, 2 * k * s.p0ra, lambda);
  add_outer(out, s.pp, log_factor, log_factor);
  add_outer(out, 2 * s.ppr2, log_factor, kappa);
  add_outer(out, -4 * k * s.ppra, log_factor, lambda);
  add_outer(out, s.ppr4, kappa, kappa);
  add_outer(out, 4 * (s.p0ra - k * s.ppr3a), kappa, lambda);
  add_outer(out, 4 * k * k * s.ppr2a2 - 2 * k * s.p0a2, lambda, lambda);
  Jet<D> r2(s.r2);
  add_first(r2, -2 * s.ra, lambda);
  add_outer(r2, 2 * group.sum_a2, lambda, lambda);
  return out - 0.5 * (r2 * inverse_v1);
}

}  // namespace

template <class S>
Confounding<S> confounding(const S& c, const S& u) {
  const S square = c * c;
  const S rho = (value_of(c) < 0 ? -1.0 : 1.0) * c * sqrt(square + 1.0);
  Confounding<S> out;
  out.kx2 = square + rho * exp(2.0 * u);
  out.ky2 = square + rho * exp(-2.0 * u);
  out.k1 = out.kx2 + 1.0;
  out.k2 = out.k1 + out.ky2;
  return out;
}

template Confounding<double> confounding(const double&, const double&);

namespace {

// To 44 significant bits.
double rounded(double x) {
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, 44)), exponent - 44);
}

}  // namespace

void AssociationData::prepare() {
  eta = std::sqrt(s221 / s11);
  least_odds = 1;
  for (const double odd : log_odds) least_odds = std::min(least_odds, std::exp(odd));
  log_spikes = 0;
  std::vector<bool> in_block(size, false);
  const double root1 = std::sqrt(s11), root2 = std::sqrt(s221);
  for (auto& block : blocks) {
    const std::size_t first = block.members.front(), n = block.members.size();
    block.block.size = n;
    block.n11 = n11[first], block.n22 = n22[first];
    block.ratio = n12[first] / n11[first];
    block.excess = std::max(0.0, n22[first] - n12[first] * block.ratio);
    block.a.assign(n, 0), block.b.assign(n, 0), block.log_odds.clear();
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t j = block.members[i];
      in_block[j] = true;
      block.log_odds.push_back(log_odds[j]);
      for (std::size_t k = 0; k < n; ++k) {
        block.a[k] += block.block.eigenvectors[i * n + k] * h1[j] / root1;
        block.b[k] += block.block.eigenvectors[i * n + k] * h2[j] / root2;
      }
    }
  }
  order.clear();
  for (std::size_t j = 0; j < size; ++j) {
    if (in_block[j]) continue;
    order.push_back(j);
    const double odd = log_odds[j];
    log_spikes -= odd > 0 ? odd + std::log1p(std::exp(-odd)) : std::log1p(std::exp(odd));
  }
  // Sample sizes that went through different arithmetic are still one.
  for (auto* noise : {&n11, &n22, &n12})
    for (double& n : *noise) n = rounded(n);
  using Law = std::tuple<double, double, double>;
  std::map<Law, std::size_t> laws;
  for (const std::size_t j : order) ++laws[{n11[j], n22[j], n12[j]}];
  grouped = laws.size() <= kMostGroups;
  if (grouped)
    std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
      return Law{n11[i], n22[i], n12[i]} < Law{n11[j], n22[j], n12[j]};
    });
  groups.clear();
  a.clear(), b.clear(), odds.clear(), na.clear(), nb.clear(), nr.clear(), nq.clear();
  for (const std::size_t j : order) {
    const double r = n12[j] / n11[j];
    const double q = std::max(0.0, n22[j] - n12[j] * r);
    const bool fresh =
        groups.empty() || (grouped && (groups.back().n11 != n11[j] || groups.back().n22 != n22[j] ||
                                       groups.back().n12 != n12[j]));
    if (fresh) {
      const auto fill = [&](std::vector<double>& v, double with) {
        v.resize(padded(v.size()), with);
      };
      fill(a, 0), fill(b, 0), fill(odds, 0), fill(na, 1), fill(nb, 1), fill(nr, 0), fill(nq, 0);
      groups.push_back({n11[j], n22[j], n12[j], r, q, a.size(), 0, 0});
    }
    a.push_back(h1[j] / root1);
    b.push_back(h2[j] / root2);
    odds.push_back(std::exp(log_odds[j]));
    na.push_back(n11[j]), nb.push_back(n22[j]), nr.push_back(r), nq.push_back(q);
    groups.back().size += 1;
    groups.back().sum_a2 += a.back() * a.back();
  }
  const std::size_t all = padded(a.size());
  a.resize(all, 0), b.resize(all, 0), odds.resize(all, 0);
  na.resize(all, 1), nb.resize(all, 1), nr.resize(all, 0), nq.resize(all, 0);
  const double s22 = s221 + slope * slope * s11;
  constant = -n_shared * (kLogTwoPi + 0.5 * (std::log(s11) + std::log(s221)) + 1) -
             0.5 * (n1 - n_shared) * (kLogTwoPi + std::log(s11) + 1) -
             0.5 * (n2 - n_shared) * (kLogTwoPi + std::log(s22) + 1);
  sd_slope = 1 / std::sqrt(n_slope / (eta * eta) + slope_precision + variance_precision());
}

// What Var(Y|G) of the people with the outcome alone says of m, the variances of the others known
// with their errors: Var(Y|G) = Sigma22.1 + m^2 Sigma11.
double AssociationData::variance_precision() const {
  const double alone = n2 - n_shared;
  if (!(alone > 0) || !(n_shared > 0)) return 0;
  const double square = slope * slope / (eta * eta);
  const double explained = square / (1 + square), rest = 1 / (1 + square);
  const double variance = 2 / alone + 2 * rest * rest / n_shared + 2 * explained * explained / n1;
  const double derivative = 2 * slope / (eta * eta) * rest;  // of log Var(Y|G) by m
  return derivative * derivative / variance;
}

// Likeliest d3 given m by the variances alone, d1 = 0: with the outcome measured in others,
// Var(Y|G) ties it to m. By Fisher scoring.
double AssociationData::likeliest_d3(double m) const {
  const double dm = m - slope / eta, alone = n2 - n_shared;
  const double total = 1 + slope * slope / (eta * eta);
  double d3 = 0;
  for (int iteration = 0; iteration < 50; ++iteration) {
    const double back = std::exp(-d3), y = 1 / back, sum = y + m * m, share = y / sum;
    const double gradient =
        -n_shared * (1 - back) + n_slope * dm * dm * back - alone * (1 - total / sum) * share;
    const double information = n_shared + n_slope * dm * dm * back + alone * share * share;
    const double step = std::clamp(gradient / information, -0.5, 0.5);
    d3 = std::max(d3 + step, kLowestD3);
    if (std::abs(step) < 1e-6 || d3 == kLowestD3) break;
  }
  return d3;
}

CollapsedPosterior::CollapsedPosterior(const AssociationData& data, const ScaleFreePrior& prior)
    : data_(data), prior_(prior) {
  constant_ = data.constant + data.log_spikes - 1.5 * kLogTwoPi - std::log(prior.effect_sd) -
              2 * std::log(prior.confounding_sd) - std::log(4.0);
}

// Everything that does not belong to one candidate.
template <class S>
S CollapsedPosterior::common(const Point<S>& at, const Confounding<S>& k) const {
  const auto& d = data_;
  const S dm = at.m - d.slope / d.eta;
  const S back = exp(-at.d3);
  S out = -0.5 * d.n_shared * excess(at.d3) - 0.5 * d.n_slope * (dm * dm * back) -
          0.5 * d.n1 * excess(at.d1) - (0.5 * d.slope_precision * d.eta * d.eta) * (dm * dm);
  if (d.n2 > d.n_shared) {
    const double slope2 = d.slope * d.slope / (d.eta * d.eta);
    const S total = log((exp(at.d3) + at.m * at.m * exp(at.d1)) * (1 / (1 + slope2)));
    out += -0.5 * (d.n2 - d.n_shared) * excess(total);
  }
  const S turn = exp(0.5 * (at.d1 - at.d3));
  const S effect = at.beta * turn * sqrt(k.k2) / k.k1;
  const double sk2 = prior_.confounding_sd * prior_.confounding_sd;
  const double tau = prior_.scale_power;
  out += (-0.5 / (prior_.effect_sd * prior_.effect_sd)) * (effect * effect);
  out += (-0.5 / sk2) * (k.kx2 + k.ky2);
  out += (1 - 0.5 * tau) * at.d1 - (1 + 0.5 * tau) * at.d3;
  out += (0.5 * tau + 1) * log(k.k2) - log(k.k1);
  return out + ((1 - 0.5 * tau) * std::log(d.s11) - (1 + 0.5 * tau) * std::log(d.s221));
}

namespace {

// The confounding coordinate, kept off 0.
double coordinate(const Point<double>& at) {
  const double c = (at.m - at.beta) * std::exp(0.5 * (at.d1 - at.d3));
  return std::abs(c) < kSmallestConfounding ? std::copysign(kSmallestConfounding, c) : c;
}
template <std::size_t D>
Jet<D> coordinate(const Point<Jet<D>>& at) {
  const Jet<D> c = (at.m - at.beta) * exp(0.5 * (at.d1 - at.d3));
  return std::abs(c.value) < kSmallestConfounding
             ? Jet<D>(std::copysign(kSmallestConfounding, c.value))
             : c;
}

}  // namespace

double CollapsedPosterior::independent(const Point<double>& at) const {
  const auto& d = data_;
  const double c = coordinate(at);
  const auto k = confounding(c, at.u);
  const double s1 = std::exp(at.d1), s3 = std::exp(at.d3);
  const double g = prior_.slab / k.k1;
  const double a0 = prior_.spike * k.k1 / k.k2, a1 = prior_.slab * k.k1 / k.k2;
  double out = common(at, k);
  const auto candidates = static_cast<double>(d.order.size());
  if (!d.grouped)
    return out + 0.5 * candidates * at.d3 +
           separate_sums(d.a.data(), d.b.data(), d.odds.data(), d.na.data(), d.nb.data(),
                         d.nr.data(), d.nq.data(), d.order.size(), at.beta, at.m, s1, s3, g, a0, a1,
                         rows_between(std::sqrt(a0 / a1) * d.least_odds, 3));
  for (const auto& group : d.groups) {
    const auto s = scales(group.n11, group.n22, group.ratio, group.excess, at, s1, s3, g, a0, a1);
    const double delta = group.n11 * (group.n22 + at.m * at.m * (s1 / s3) * group.excess);
    out +=
        0.5 * static_cast<double>(group.size) * (std::log(delta / (s.c11 * s.v0)) + at.d1 + at.d3) -
        0.5 * group.sum_a2 / s.c11 + mixture(d, group, s);
  }
  return out;
}

namespace {

BlockPoint block_point(const CollapsedPosterior& posterior, const Point<double>& at) {
  const auto k = confounding(coordinate(at), at.u);
  const auto& prior = posterior.prior();
  return {at.beta,
          at.m,
          std::exp(at.d1),
          std::exp(at.d3),
          prior.slab / k.k1,
          prior.spike * k.k1 / k.k2,
          prior.slab * k.k1 / k.k2};
}

}  // namespace

double CollapsedPosterior::value(const Point<double>& at) const {
  double out = 0;
  values(&at, 1, &out);
  return out;
}

void CollapsedPosterior::values(const Point<double>* at, std::size_t n, double* out) const {
  for (std::size_t i = 0; i < n; ++i) out[i] = independent(at[i]);
  if (data_.blocks.empty()) return;
  std::vector<BlockPoint> points;
  for (std::size_t i = 0; i < n; ++i) points.push_back(block_point(*this, at[i]));
  std::vector<double> terms(n);
  for (const auto& block : data_.blocks) {
    block_values(block, points.data(), n, terms.data());
    for (std::size_t i = 0; i < n; ++i) out[i] += terms[i];
  }
}

void CollapsedPosterior::draw_blocks(const Point<double>& at, const double* uniforms,
                                     const double* normals, bool* slab, double* first,
                                     double* direct) const {
  const BlockPoint point = block_point(*this, at);
  for (const auto& block : data_.blocks) {
    const std::size_t n = block.members.size();
    std::vector<double> effects(2 * n);
    const auto indicators = std::make_unique<bool[]>(n);
    draw_block(block, point, *uniforms++, normals, indicators.get(), effects.data(),
               effects.data() + n);
    normals += 3 * n;
    for (std::size_t i = 0; i < n; ++i) {
      slab[block.members[i]] = indicators[i];
      first[block.members[i]] = effects[i];
      direct[block.members[i]] = effects[n + i];
    }
  }
}

template <std::size_t D>
Jet<D> CollapsedPosterior::expand(const Point<Jet<D>>& at) const {
  using S = Jet<D>;
  const auto& d = data_;
  if (!d.grouped) throw std::logic_error("expand: candidates with many noise laws");
  const S c = coordinate(at);
  const auto k = confounding(c, at.u);
  const S s1 = exp(at.d1), s3 = exp(at.d3);
  const S g = prior_.slab / k.k1, turn = k.k1 / k.k2;
  const S a0 = prior_.spike * turn, a1 = prior_.slab * turn;
  S out = common(at, k);
  for (const auto& group : d.groups) {
    const auto s = scales(group.n11, group.n22, group.ratio, group.excess, at, s1, s3, g, a0, a1);
    const S share = log(s.c11) + log(s.v0);
    const S delta =
        group.excess > 0
            ? log(at.m * at.m * exp(at.d1 - at.d3) * group.excess + group.n22) + std::log(group.n11)
            : S(std::log(group.n11) + std::log(group.n22));
    out += 0.5 * static_cast<double>(group.size) * (delta - share + at.d1 + at.d3);
    out += (-0.5 * group.sum_a2) * inverse(s.c11);
    const S i0 = inverse(s.v0), i1 = inverse(s.v1);
    out += mixture(d, group, s.lambda, 0.5 * (i0 - i1), 0.5 * (log(s.v0) - log(s.v1)), i1);
  }
  return out;
}

template Jet<5> CollapsedPosterior::expand(const Point<Jet<5>>&) const;

// With beta, m and u fixed, everything but the variances themselves depends on r = (d1 - d3) / 2
// alone, through c. Differentiated in (r, d3), with d1 = 2 r + d3 where it stands by itself.
Jet<2> CollapsedPosterior::grouped_curvature(double beta, double m, double u, double d1,
                                             double d3) const {
  using R = Jet<1>;
  using S = Jet<2>;  // r, d3
  const auto& d = data_;
  const auto lift = [](const R& x) {
    S out(x.value);
    out.gradient[0] = x.gradient[0];
    out.hessian[0][0] = x.hessian[0][0];
    return out;
  };
  const R r = R::variable(0.5 * (d1 - d3), 0);
  const R turn = exp(r);  // sqrt(Sigma11 / Sigma22.1) in units of its estimate
  R c = (m - beta) * turn;
  if (std::abs(c.value) < kSmallestConfounding) c = R(std::copysign(kSmallestConfounding, c.value));
  const R square = c * c;
  const R rho = (c.value < 0 ? -1.0 : 1.0) * (c * sqrt(square + 1.0));
  const double up = std::exp(2 * u), down = 1 / up;
  const R kx2 = square + rho * up, ky2 = square + rho * down;
  const R k1 = kx2 + 1.0, k2 = k1 + ky2;
  const R i1 = inverse(k1), i2 = inverse(k2);
  const R g = prior_.slab * i1, ratio = k1 * i2;
  const R effect2 = (beta * beta) * (turn * turn * k2 * i1 * i1);
  R rest = (-0.5 / (prior_.effect_sd * prior_.effect_sd)) * effect2;
  rest += (-0.5 / (prior_.confounding_sd * prior_.confounding_sd)) * (kx2 + ky2);
  rest += (0.5 * prior_.scale_power + 1) * log(k2) - log(k1);
  const R turn2 = turn * turn;

  const double e1 = std::exp(-d1), e3 = std::exp(-d3);
  S back(e3);  // exp(-d3)
  back.gradient[1] = -e3;
  back.hessian[1][1] = e3;
  S mixtures;
  R weak;  // sum of a^2 / (n11 + g)
  for (const auto& group : d.groups) {
    const R noise_g = g + group.n11;
    const R inverse_g = inverse(noise_g);
    const double w = group.ratio * m - beta;
    const R share = group.n11 * inverse_g;
    const R noise = turn2 * ((w * w) * (g * share) + group.excess * m * m) + group.n22;
    const R v0 = noise + prior_.spike * ratio, v1 = noise + prior_.slab * ratio;
    const R log0 = log(v0), log1 = log(v1), j0 = inverse(v0), j1 = inverse(v1);
    R delta = R(std::log(group.n11 * group.n22));
    if (group.excess > 0)
      delta = log(turn2 * (m * m * group.excess) + group.n22) + std::log(group.n11);
    rest += 0.5 * static_cast<double>(group.size) * (delta - log(noise_g) - log0);
    weak += group.sum_a2 * inverse_g;
    mixtures += mixture(d, group, lift(share * w + beta), back * lift(0.5 * (j0 - j1)),
                        lift(0.5 * (log0 - log1)), back * lift(j1));
  }
  S out = mixtures + lift(rest);
  // Chain rule to (d1, d3): r moves by one half of each, with opposite signs.
  S f(out.value);
  const double fr = out.gradient[0], f3 = out.gradient[1];
  const double frr = out.hessian[0][0], fr3 = out.hessian[0][1], f33 = out.hessian[1][1];
  f.gradient = {0.5 * fr, f3 - 0.5 * fr};
  f.hessian[0][0] = 0.25 * frr;
  f.hessian[0][1] = f.hessian[1][0] = 0.5 * fr3 - 0.25 * frr;
  f.hessian[1][1] = f33 - fr3 + 0.25 * frr;
  // -1/2 exp(-d1) weak(r).
  const double w0 = weak.value, w1 = weak.gradient[0], w2 = weak.hessian[0][0];
  f.value -= 0.5 * e1 * w0;
  f.gradient[0] -= 0.5 * e1 * (0.5 * w1 - w0);
  f.gradient[1] += 0.25 * e1 * w1;
  f.hessian[0][0] -= 0.5 * e1 * (0.25 * w2 - w1 + w0);
  const double cross = 0.5 * e1 * (0.25 * w2 - 0.5 * w1);
  f.hessian[0][1] += cross;
  f.hessian[1][0] += cross;
  f.hessian[1][1] -= 0.125 * e1 * w2;
  // The information on the variances, and the scale prior.
  const double dm = m - d.slope / d.eta, tau = prior_.scale_power;
  f.value += -0.5 * d.n_shared * excess(d3) - 0.5 * d.n_slope * dm * dm * e3 -
             0.5 * d.n1 * excess(d1) - 0.5 * d.slope_precision * d.eta * d.eta * dm * dm +
             (1 - 0.5 * tau) * (d1 + std::log(d.s11)) - (1 + 0.5 * tau) * (d3 + std::log(d.s221));
  f.gradient[0] += -0.5 * d.n1 * (1 - e1) + 1 - 0.5 * tau;
  f.hessian[0][0] -= 0.5 * d.n1 * e1;
  f.gradient[1] += -0.5 * d.n_shared * (1 - e3) + 0.5 * d.n_slope * dm * dm * e3 - 1 - 0.5 * tau;
  f.hessian[1][1] -= 0.5 * d.n_shared * e3 + 0.5 * d.n_slope * dm * dm * e3;
  if (d.n2 > d.n_shared) {
    const double slope2 = d.slope * d.slope / (d.eta * d.eta);
    const double y = std::exp(d3), x = m * m * std::exp(d1), sum = x + y;
    const double d2 = std::log(sum / (1 + slope2)), back2 = std::exp(-d2);
    const double n = 0.5 * (d.n2 - d.n_shared), px = x / sum, py = y / sum;
    f.value -= n * excess(d2);
    f.gradient[0] -= n * (1 - back2) * px;
    f.gradient[1] -= n * (1 - back2) * py;
    const double bend = n * (1 - back2) * px * py;
    f.hessian[0][0] -= n * back2 * px * px + bend;
    f.hessian[1][1] -= n * back2 * py * py + bend;
    f.hessian[0][1] -= n * back2 * px * py - bend;
    f.hessian[1][0] -= n * back2 * px * py - bend;
  }
  return f;
}

// About a third of the posterior's standard deviation.
double CollapsedPosterior::difference() const {
  return 0.5 / std::sqrt(std::max(1.0, std::min(data_.n1, data_.n2)));
}

Jet<2> CollapsedPosterior::curvature(double beta, double m, double u, double d1, double d3) const {
  using S = Jet<2>;
  if (closed_form()) return grouped_curvature(beta, m, u, d1, d3);
  const double h = difference();
  Point<double> points[9];
  for (int i = 0; i < 9; ++i) points[i] = {beta, m, u, d1 + (i % 3 - 1) * h, d3 + (i / 3 - 1) * h};
  double f[9];
  values(points, 9, f);
  const double f0 = f[4], fp = f[5], fm = f[3], gp = f[7], gm = f[1];
  const double cross = f[8] - f[2] - f[6] + f[0];
  S out(f0);
  out.gradient = {(fp - fm) / (2 * h), (gp - gm) / (2 * h)};
  out.hessian[0][0] = (fp - 2 * f0 + fm) / (h * h);
  out.hessian[1][1] = (gp - 2 * f0 + gm) / (h * h);
  out.hessian[0][1] = out.hessian[1][0] = cross / (4 * h * h);
  return out;
}

namespace {

struct NodeScales {
  double s1, s3, g, a0, a1;
};

NodeScales node_scales(const CollapsedPosterior& posterior, const Point<double>& at) {
  const double c = coordinate(at);
  const auto k = confounding(c, at.u);
  const auto& prior = posterior.prior();
  return {std::exp(at.d1), std::exp(at.d3), prior.slab / k.k1, prior.spike * k.k1 / k.k2,
          prior.slab * k.k1 / k.k2};
}

// Conditional moments with a noise law for every candidate.
MRFAST_DISPATCH void moment_sums(const double* a, const double* b, const double* odds,
                                 const double* n11, const double* n22, const double* ratio,
                                 const double* q2, std::size_t n, double beta, double m,
                                 const NodeScales& s, double weight, double* __restrict p,
                                 double* __restrict f, double* __restrict f2, double* __restrict t,
                                 double* __restrict t2) {
  for (std::size_t i = 0; i < n; ++i) {
    const double nx = n11[i];
    const double w = ratio[i] * m - beta;
    const double share = nx / (nx + s.g);
    const double lambda = share * w;
    const double noise = s.s3 * n22[i] + s.s1 * (s.g * share * w * w + q2[i] * m * m);
    const double t0 = s.s3 * s.a0, t1 = s.s3 * s.a1;
    const double v0 = noise + t0, v1 = noise + t1;
    const double r = b[i] - (beta + lambda) * a[i];
    const double kappa = 0.5 * (t1 - t0) / (v0 * v1);
    const double spike = fast_exp(-kappa * r * r), slab = odds[i] * std::sqrt(v0 / v1);
    const double p1 = slab / (spike + slab), p0 = spike / (spike + slab);
    const double k0 = t0 / v0, k1 = t1 / v1;
    p[i] += weight * p1;
    t[i] += weight * (p0 * k0 + p1 * k1) * r;
    t2[i] += weight * (p0 * (k0 * k0 * r * r + k0 * noise) + p1 * (k1 * k1 * r * r + k1 * noise));
    // gamma: s1 g prior variance, given a; the residual r carries the rest through the noise.
    const double prior = s.s1 * s.g, lift = lambda * prior;
    const double base = a[i] * (s.g / (nx + s.g));
    const double g0 = base - lift * r / v0, g1 = base - lift * r / v1;
    const double spread = prior * share;
    f[i] += weight * (p0 * g0 + p1 * g1);
    f2[i] += weight * (p0 * (g0 * g0 + spread - lift * lift / v0) +
                       p1 * (g1 * g1 + spread - lift * lift / v1));
  }
}

// The same for candidates of one noise law.
MRFAST_DISPATCH void group_moment_sums(const double* a, const double* b, const double* odds,
                                       std::size_t n, const NoiseGroup& group, double beta,
                                       double m, const NodeScales& s, double weight,
                                       double* __restrict p, double* __restrict f,
                                       double* __restrict f2, double* __restrict t,
                                       double* __restrict t2) {
  const double share = group.n11 / (group.n11 + s.g), w = group.ratio * m - beta;
  const double lambda = share * w, whole = beta + lambda;
  const double noise = s.s3 * group.n22 + s.s1 * (s.g * share * w * w + group.excess * m * m);
  const double t0 = s.s3 * s.a0, t1 = s.s3 * s.a1, v0 = noise + t0, v1 = noise + t1;
  const double kappa = 0.5 * (t1 - t0) / (v0 * v1), factor = std::sqrt(v0 / v1);
  const double k0 = t0 / v0, dk = t1 / v1 - k0, kk0 = k0 * k0, dkk = t1 / v1 * (t1 / v1) - kk0;
  const double i0 = 1 / v0, di = 1 / v1 - i0, ii0 = i0 * i0, dii = 1 / v1 / v1 - ii0;
  const double prior = s.s1 * s.g, lift = lambda * prior, q = s.g / (group.n11 + s.g);
  const double spread = prior * share;
  for (std::size_t i = 0; i < n; ++i) {
    const double r = b[i] - whole * a[i], square = r * r;
    const double slab = factor * odds[i];
    const double p1 = slab / (fast_exp(-kappa * square) + slab);
    const double k = k0 + p1 * dk, h = i0 + p1 * di;
    const double base = q * a[i], pull = lift * r;
    p[i] += weight * p1;
    t[i] += weight * k * r;
    t2[i] += weight * ((kk0 + p1 * dkk) * square + k * noise);
    f[i] += weight * (base - pull * h);
    f2[i] += weight * (base * base - 2 * base * pull * h + pull * pull * (ii0 + p1 * dii) + spread -
                       lift * lift * h);
  }
}

}  // namespace

void CollapsedPosterior::accumulate(const Point<double>& at, double weight,
                                    NodeMoments& out) const {
  const auto& d = data_;
  std::size_t place = d.a.size();  // members of blocks stand behind the others
  if (!d.blocks.empty()) {
    const BlockPoint point = block_point(*this, at);
    BlockMoments moments;
    for (const auto& block : d.blocks) {
      block_moments(block, point, moments);
      for (std::size_t i = 0; i < block.members.size(); ++i, ++place) {
        out.inclusion[place] += weight * moments.inclusion[i];
        out.first[place] += weight * moments.first[i];
        out.first2[place] += weight * moments.first2[i];
        out.direct[place] += weight * moments.direct[i];
        out.direct2[place] += weight * moments.direct2[i];
      }
    }
  }
  const auto s = node_scales(*this, at);
  if (d.grouped) {
    for (const auto& group : d.groups) {
      const std::size_t i = group.begin;
      group_moment_sums(d.a.data() + i, d.b.data() + i, d.odds.data() + i, group.size, group,
                        at.beta, at.m, s, weight, out.inclusion.data() + i, out.first.data() + i,
                        out.first2.data() + i, out.direct.data() + i, out.direct2.data() + i);
    }
    return;
  }
  moment_sums(d.a.data(), d.b.data(), d.odds.data(), d.na.data(), d.nb.data(), d.nr.data(),
              d.nq.data(), d.a.size(), at.beta, at.m, s, weight, out.inclusion.data(),
              out.first.data(), out.first2.data(), out.direct.data(), out.direct2.data());
}

void CollapsedPosterior::conditional(const Point<double>& at, double* out) const {
  const auto& d = data_;
  const auto s = node_scales(*this, at);
  for (const auto& block : d.blocks)  // drawn by draw_blocks
    for (const std::size_t member : block.members) {
      double* row = out + 11 * member;
      std::fill(row, row + 11, 0.0);
      row[2] = row[4] = row[7] = row[9] = 1;
    }
  std::size_t sorted = 0;
  for (const auto& group : d.groups) {
    for (std::size_t i = group.begin; i < group.begin + group.size; ++i, ++sorted) {
      double* row = out + 11 * d.order[sorted];
      const double w = d.nr[i] * at.m - at.beta;
      const double share = d.na[i] / (d.na[i] + s.g);
      const double lambda = share * w;
      const double noise = s.s3 * d.nb[i] + s.s1 * (s.g * share * w * w + d.nq[i] * at.m * at.m);
      const double r = d.b[i] - (at.beta + lambda) * d.a[i];
      const double prior = s.s1 * s.g, lift = lambda * prior;
      const double base = d.a[i] * (s.g / (d.na[i] + s.g));
      const double tv[2] = {s.s3 * s.a0, s.s3 * s.a1};
      const double kappa = 0.5 * (tv[1] - tv[0]) / ((noise + tv[0]) * (noise + tv[1]));
      const double spike = std::exp(-kappa * r * r);
      const double slab = d.odds[i] * std::sqrt((noise + tv[0]) / (noise + tv[1]));
      row[0] = slab / (spike + slab);
      for (int v = 0; v < 2; ++v) {
        const double total = noise + tv[v], k = tv[v] / total;
        double* part = row + 1 + 5 * v;
        part[0] = k * r;  // alpha: mean, variance
        part[1] = k * noise;
        part[2] = base - lift * r / total;  // gamma: mean, variance
        part[3] = prior * share - lift * lift / total;
        part[4] = lift * k;  // covariance of alpha and gamma
      }
    }
  }
}

}  // namespace mrfast
