#include "mrfast/profile.hpp"

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

// Inner product with a fixed order of summation that vectorises.
MRFAST_DISPATCH
double inner(const double* a, const double* b, std::size_t n) {
  double lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t l = 0; l < 8; ++l) lanes[l] += a[i + l] * b[i + l];
  for (; i < n; ++i) lanes[i % 8] += a[i] * b[i];
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

struct Symmetric2 {
  double a11, a12, a22;
};

double trace(const Symmetric2& a, const Symmetric2& b) {
  return a.a11 * b.a11 + 2 * a.a12 * b.a12 + a.a22 * b.a22;
}

// b a b for symmetric a, b.
Symmetric2 sandwich(const Symmetric2& b, const Symmetric2& a) {
  const double p11 = a.a11 * b.a11 + a.a12 * b.a12, p12 = a.a11 * b.a12 + a.a12 * b.a22;
  const double p21 = a.a12 * b.a11 + a.a22 * b.a12, p22 = a.a12 * b.a12 + a.a22 * b.a22;
  return {b.a11 * p11 + b.a12 * p21, b.a11 * p12 + b.a12 * p22, b.a12 * p12 + b.a22 * p22};
}

double component_determinant(const Component& c, const Confounding& k) {
  // |noise Omega + diag(slab, variance)| with positive terms only.
  return c.noise * (c.noise * k.k2 + k.k1 * c.variance + k.o22 * c.slab_variance) +
         c.slab_variance * c.variance;
}

Symmetric2 component_precision(const Component& c, const Confounding& k) {
  const double r = 1 / component_determinant(c, k);
  return {(c.noise * k.o22 + c.variance) * r, -c.noise * k.o12 * r,
          (c.noise * k.k1 + c.slab_variance) * r};
}

}  // namespace

void Statistics::prepare() {
  uniform_noise = rotation.empty();
  sum_log_noise = 0;
  for (const double v : noise) {
    sum_log_noise += std::log(v);
    if (std::abs(v - noise[0]) > 1e-13 * noise[0]) uniform_noise = false;
  }
  if (rotation.empty()) {
    candidate_noise = noise;
    candidate_h1 = h1;
    candidate_h2 = h2;
    return;
  }
  candidate_noise.assign(size, 0);
  candidate_h1.assign(size, 0);
  candidate_h2.assign(size, 0);
  for (std::size_t j = 0; j < size; ++j) {
    const double* row = rotation.data() + j * size;
    for (std::size_t k = 0; k < size; ++k) {
      candidate_h1[j] += row[k] * h1[k];
      candidate_h2[j] += row[k] * h2[k];
      candidate_noise[j] += row[k] * row[k] * noise[k];
    }
  }
}

Products component_products(const Component& c, const Vector<5>& p) {
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  const double aa = c.h11 * ex * ex, ad = c.h12 * ex * ey, dd = c.h22 * ey * ey;
  const double g12 = ad - b * aa, e = dd - b * ad;
  return {aa, ad, dd, g12, e - b * g12, e};
}

double component_log_determinant(const Component& c, const Confounding& k) {
  return c.count * std::log(component_determinant(c, k));
}

void add_component(const Component& c, const Products& g, const Confounding& k, double b,
                   double sign, Evaluation& out) {
  const Symmetric2 v = component_precision(c, k);
  const Symmetric2 gg{g.aa, g.g12, g.g22};
  const Symmetric2 z = sandwich(v, gg);
  const Symmetric2 omega[2] = {{2 * k.kx, k.ky, 0}, {0, k.kx, 2 * k.ky}};
  const double n = c.noise;
  out.value -= sign * 0.5 * trace(v, gg);
  auto& grad = out.gradient;
  auto& hess = out.hessian;
  // Products v Omega_k and z Omega_k as full 2 x 2 matrices.
  double vo[2][2][2], zo[2][2][2];
  Symmetric2 u[2];
  for (int i = 0; i < 2; ++i) {
    const Symmetric2& o = omega[i];
    vo[i][0][0] = v.a11 * o.a11 + v.a12 * o.a12;
    vo[i][0][1] = v.a11 * o.a12 + v.a12 * o.a22;
    vo[i][1][0] = v.a12 * o.a11 + v.a22 * o.a12;
    vo[i][1][1] = v.a12 * o.a12 + v.a22 * o.a22;
    zo[i][0][0] = z.a11 * o.a11 + z.a12 * o.a12;
    zo[i][0][1] = z.a11 * o.a12 + z.a12 * o.a22;
    zo[i][1][0] = z.a12 * o.a11 + z.a22 * o.a12;
    zo[i][1][1] = z.a12 * o.a12 + z.a22 * o.a22;
    u[i] = sandwich(v, o);
    grad[kKappaX + static_cast<std::size_t>(i)] += sign * 0.5 * n * trace(z, o);
  }
  const double second[2][2] = {{z.a11, z.a12}, {z.a12, z.a22}};  // tr(z Omega_kl) / 2
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t l = 0; l <= i; ++l)
      hess[kKappaX + i][kKappaX + l] +=
          sign * (n * second[i][l] - n * n *
                                         (zo[i][0][0] * vo[l][0][0] + zo[i][0][1] * vo[l][1][0] +
                                          zo[i][1][0] * vo[l][0][1] + zo[i][1][1] * vo[l][1][1]));
  // Derivatives of G by b, lX, lY.
  const Symmetric2 gi[3] = {
      {0, -g.aa, -2 * g.g12}, {-2 * g.aa, b * g.aa - g.g12, 2 * b * g.g12}, {0, -g.ad, -2 * g.e}};
  const std::size_t at[3] = {kEffect, kLogX, kLogY};
  for (std::size_t i = 0; i < 3; ++i) {
    grad[at[i]] -= sign * 0.5 * trace(v, gi[i]);
    for (std::size_t l = 0; l < 2; ++l) {
      const double cross = sign * 0.5 * n * trace(u[l], gi[i]);
      if (i == 0) {
        hess[kKappaX + l][kEffect] += cross;
      } else {
        hess[at[i]][kKappaX + l] += cross;
      }
    }
  }
  const double ba = b * g.aa, bad = b * g.ad;
  const double h = -0.5 * sign;
  hess[kEffect][kEffect] += h * v.a22 * 2 * g.aa;
  hess[kLogX][kEffect] += h * (v.a12 * 4 * g.aa + v.a22 * 2 * (g.g12 - ba));
  hess[kLogY][kEffect] += h * v.a22 * 2 * g.ad;
  hess[kLogX][kLogX] +=
      h * (v.a11 * 4 * g.aa + 2 * v.a12 * (g.g12 - 3 * ba) + v.a22 * 2 * b * (ba - g.g12));
  hess[kLogY][kLogX] += h * (2 * v.a12 * g.ad - v.a22 * 2 * bad);
  hess[kLogY][kLogY] += h * (2 * v.a12 * g.ad + v.a22 * (4 * g.e + 2 * bad));
}

Profile::Profile(const Statistics& statistics, const Prior& prior, const Bits& model)
    : statistics_(&statistics), prior_(&prior), model_(model) {
  const auto& s = *statistics_;
  for (std::size_t j = 0; j < s.size; ++j)
    if (bit(model_, j)) slab_.push_back(j);
  if (!diagonal()) return;
  const bool means = !s.mean_direction.empty();
  if (s.uniform_noise) {
    Component groups[2] = {{s.noise[0], prior.slab_variance, prior.spike_variance, 0},
                           {s.noise[0], prior.slab_variance, prior.slab_variance, 0}};
    for (std::size_t j = 0; j < s.size; ++j)
      groups[bit(model_, j) ? 1 : 0].add(s.h1[j], s.h2[j], means ? s.mean_direction[j] : 0);
    for (const auto& group : groups)
      if (group.count > 0) components_.push_back(group);
    return;
  }
  components_.reserve(s.size);
  for (std::size_t j = 0; j < s.size; ++j) {
    Component c{s.noise[j], prior.slab_variance, variance(j), 0};
    c.add(s.h1[j], s.h2[j], means ? s.mean_direction[j] : 0);
    components_.push_back(c);
  }
}

ResidualTerm::ResidualTerm(const Statistics& s, const Residual& sigma) {
  const double d1 = sigma.w1 - std::log(s.s11), d3 = sigma.w3 - std::log(s.s221), eta = s.eta();
  const double dm = (sigma.slope - s.slope) / eta;
  const double e1 = std::exp(-d1), e3 = std::exp(-d3);
  value = -0.5 * s.n * ((std::expm1(-d1) + d1) + (std::expm1(-d3) + d3) + dm * dm * e3);
  gradient = {0.5 * s.n * std::expm1(-d1), -s.n * dm * e3 / eta,
              0.5 * s.n * (std::expm1(-d3) + dm * dm * e3)};
  const double cross = s.n * dm * e3 / eta;
  hessian = {{{-0.5 * s.n * e1, 0, 0},
              {0, -s.n * e3 / (eta * eta), cross},
              {0, cross, -0.5 * s.n * e3 * (1 + dm * dm)}}};
}

// The residual term and its derivatives by phi: -N (lX + lY) - N/2 log K2 - N/2 tr(W R), R like the
// products of a component without a prior.
void Profile::add_residual(const Vector<5>& p, Evaluation& out) const {
  const auto& s = *statistics_;
  const Confounding k(p);
  const double b = p[kEffect], log_k1 = std::log(k.k1);
  const double value =
      ResidualTerm(s, {2 * p[kLogX] + log_k1, std::exp(p[kLogY] - p[kLogX]) * (b + k.o12 / k.k1),
                       2 * p[kLogY] + std::log(k.k2) - log_k1})
          .value;
  const double before = out.value;
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]);
  const double a = std::sqrt(s.s11) * ex, d = std::sqrt(s.s11) * s.slope * ey;
  const double delta = d - b * a, rest = s.s221 * ey * ey;
  const Component residual{1 / s.n, 0, 0, 1};
  add_component(residual,
                {a * a, a * d, d * d + rest, a * delta, delta * delta + rest, d * delta + rest}, k,
                b, 1, out);
  out.value = before + value;
  const double kk[2] = {k.kx, k.ky};
  for (std::size_t i = 0; i < 2; ++i) {
    out.gradient[kKappaX + i] -= s.n * kk[i] / k.k2;
    out.hessian[kKappaX + i][kKappaX + i] -= s.n / k.k2;
    for (std::size_t l = 0; l <= i; ++l)
      out.hessian[kKappaX + i][kKappaX + l] += 2 * s.n * kk[i] * kk[l] / (k.k2 * k.k2);
    out.gradient[kLogX + i] -= s.n;
  }
}

// Raw moments that are diagonal plus rank one: the means are one more observation of
// sum_j mu_j effects_j, with covariance Omega / N.
template <class T>
void Profile::mean_term(const std::array<T, 5>& p, T& value, T& log_determinant) const {
  using std::exp;
  using std::log;
  const auto& s = *statistics_;
  const T ex = exp(-p[kLogX]), ey = exp(-p[kLogY]);
  const T k1 = 1.0 + p[kKappaX] * p[kKappaX], o22 = 1.0 + p[kKappaY] * p[kKappaY];
  const T o12 = p[kKappaX] * p[kKappaY], k2 = k1 + p[kKappaY] * p[kKappaY];
  T e1 = s.mean_x * ex;
  T e2 = s.mean_y * ey - p[kEffect] * e1;
  T v11 = k1 * (1 / s.n), v12 = o12 * (1 / s.n), v22 = o22 * (1 / s.n);
  for (const auto& c : components_) {
    const double n = c.noise, slab = c.slab_variance, v = c.variance;
    const T r = 1.0 / (n * (n * k2 + v * k1 + slab * o22) + slab * v);
    const T b1 = c.f1 * ex;
    const T b2 = c.f2 * ey - p[kEffect] * b1;
    e1 = e1 - slab * r * ((n * o22 + v) * b1 - n * o12 * b2);
    e2 = e2 - v * r * ((n * k1 + slab) * b2 - n * o12 * b1);
    v11 = v11 + (c.mu2 * slab * n) * r * (n * k2 + v * k1);
    v12 = v12 + (c.mu2 * slab * n * v) * r * o12;
    v22 = v22 + (c.mu2 * v * n) * r * (n * k2 + slab * o22);
  }
  const T determinant = v11 * v22 - v12 * v12;
  value = -0.5 * (v22 * e1 * e1 - 2.0 * v12 * e1 * e2 + v11 * e2 * e2) / determinant;
  log_determinant = log(determinant) - log(k2);
}

// What C = Omega (x) A^-1 / N + diag(slab, variance) needs in the eigenbasis of A: two by two
// blocks for all candidates in the spike, and a capacity matrix for those in the slab.
struct Profile::Dense {
  const Profile& profile;
  const Statistics& s;
  std::size_t size, n_slab;
  double base_variance, added;
  std::vector<double> i11, i12, i22, capacity, work, small;
  double log_determinant = 0;

  Dense(const Profile& owner, const Confounding& k)
      : profile(owner), s(owner.statistics()), size(s.size), n_slab(owner.n_slab()) {
    const Prior& prior = owner.prior();
    const bool all_slab = n_slab == size;
    base_variance = all_slab ? prior.slab_variance : prior.spike_variance;
    if (all_slab) n_slab = 0;
    added = prior.slab_variance - prior.spike_variance;
    i11.resize(size);
    i12.resize(size);
    i22.resize(size);
    for (std::size_t i = 0; i < size; ++i) {
      const Component c{s.noise[i], prior.slab_variance, base_variance, 1};
      const Symmetric2 v = component_precision(c, k);
      i11[i] = v.a11;
      i12[i] = v.a12;
      i22[i] = v.a22;
      log_determinant += std::log(component_determinant(c, k));
    }
    if (n_slab == 0) return;
    capacity.resize(n_slab * n_slab);
    work.resize(size);
    small.resize(n_slab);
    for (std::size_t i = 0; i < n_slab; ++i) {
      const double* qi = row(profile.slab_[i]);
      for (std::size_t q = 0; q < size; ++q) work[q] = i22[q] * qi[q];
      for (std::size_t j = 0; j <= i; ++j)
        capacity[i * n_slab + j] = inner(work.data(), row(profile.slab_[j]), size);
      capacity[i * n_slab + i] += 1 / added;
    }
    cholesky_in_place(capacity, n_slab);
    for (std::size_t i = 0; i < n_slab; ++i)
      log_determinant += 2 * std::log(capacity[i * n_slab + i]) + std::log(added);
  }

  const double* row(std::size_t j) const { return s.rotation.data() + j * size; }

  // Solves C y = r in place; r is (2, J).
  void solve(double* r1, double* r2) {
    for (std::size_t q = 0; q < size; ++q) {
      const double a = i11[q] * r1[q] + i12[q] * r2[q];
      r2[q] = i12[q] * r1[q] + i22[q] * r2[q];
      r1[q] = a;
    }
    if (n_slab == 0) return;
    for (std::size_t i = 0; i < n_slab; ++i) small[i] = inner(row(profile.slab_[i]), r2, size);
    cholesky_solve_in_place(capacity, n_slab, small.data());
    std::fill(work.begin(), work.end(), 0.0);
    for (std::size_t i = 0; i < n_slab; ++i) {
      const double* q = row(profile.slab_[i]);
      const double u = small[i];
      for (std::size_t l = 0; l < size; ++l) work[l] += u * q[l];
    }
    for (std::size_t q = 0; q < size; ++q) {
      r1[q] -= i12[q] * work[q];
      r2[q] -= i22[q] * work[q];
    }
  }
};

double Profile::dense(const Vector<5>& p, Evaluation* out, double* log_determinant) const {
  const auto& s = *statistics_;
  const std::size_t size = s.size;
  const Confounding k(p);
  Dense c(*this, k);
  if (log_determinant != nullptr) *log_determinant = c.log_determinant;
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  // B = u0 - b u1 + u2 with u0 = (a, 0), u1 = (0, a), u2 = (0, d).
  std::vector<double> a(size), d(size), y(12 * size, 0.0);
  auto part = [&](std::size_t i, std::size_t r) { return y.data() + (2 * i + r) * size; };
  for (std::size_t q = 0; q < size; ++q) {
    a[q] = ex * s.h1[q];
    d[q] = ey * s.h2[q];
    part(0, 0)[q] = part(1, 1)[q] = a[q];
    part(2, 1)[q] = d[q];
    part(3, 0)[q] = a[q];
    part(3, 1)[q] = d[q] - b * a[q];
  }
  c.solve(part(3, 0), part(3, 1));  // z = C^-1 B
  const double* z1 = part(3, 0);
  const double* z2 = part(3, 1);
  const double uz[3] = {inner(a.data(), z1, size), inner(a.data(), z2, size),
                        inner(d.data(), z2, size)};
  const double value = -0.5 * (uz[0] - b * uz[1] + uz[2]);
  if (out == nullptr) return value;
  for (std::size_t i = 0; i < 3; ++i) c.solve(part(i, 0), part(i, 1));
  // Gram matrix of u by C^-1.
  Matrix<3> gram{};
  for (std::size_t i = 0; i < 3; ++i) {
    gram[0][i] = inner(a.data(), part(i, 0), size);
    gram[1][i] = inner(a.data(), part(i, 1), size);
    gram[2][i] = inner(d.data(), part(i, 1), size);
  }
  // Derivatives of B as combinations of u: by b, lX, lY.
  const Vector<3> first[3] = {{0, -1, 0}, {-1, b, 0}, {0, 0, -1}};
  const std::size_t at[3] = {kEffect, kLogX, kLogY};
  auto bilinear = [&](const Vector<3>& x, const Vector<3>& w) {
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) sum += x[i] * gram[i][j] * w[j];
    return sum;
  };
  const Vector<3> uz3{uz[0], uz[1], uz[2]};
  for (std::size_t i = 0; i < 3; ++i) out->gradient[at[i]] -= dot(first[i], uz3);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j <= i; ++j) out->hessian[at[i]][at[j]] -= bilinear(first[i], first[j]);
  // -z' B_ij: B_b,lX = u1; B_lX,lX = u0 - b u1; B_lY,lY = u2.
  out->hessian[kLogX][kEffect] -= uz[1];
  out->hessian[kLogX][kLogX] -= uz[0] - b * uz[1];
  out->hessian[kLogY][kLogY] -= uz[2];
  // Derivatives by kX, kY: y_k = Omega_k z scaled by the noise, w_k = C^-1 y_k.
  const Symmetric2 omega[2] = {{2 * k.kx, k.ky, 0}, {0, k.kx, 2 * k.ky}};
  std::vector<double> yk(4 * size);
  for (std::size_t i = 0; i < 2; ++i) {
    double* w1 = part(4 + i, 0);
    double* w2 = part(4 + i, 1);
    double* y1 = yk.data() + 2 * i * size;
    double* y2 = y1 + size;
    for (std::size_t q = 0; q < size; ++q) {
      w1[q] = y1[q] = s.noise[q] * (omega[i].a11 * z1[q] + omega[i].a12 * z2[q]);
      w2[q] = y2[q] = s.noise[q] * (omega[i].a12 * z1[q] + omega[i].a22 * z2[q]);
    }
    out->gradient[kKappaX + i] += 0.5 * (inner(z1, y1, size) + inner(z2, y2, size));
    c.solve(w1, w2);
    const double cross[3] = {inner(a.data(), w1, size), inner(a.data(), w2, size),
                             inner(d.data(), w2, size)};
    for (std::size_t l = 0; l < 3; ++l) {
      const double term = first[l][0] * cross[0] + first[l][1] * cross[1] + first[l][2] * cross[2];
      if (l == 0) {
        out->hessian[kKappaX + i][kEffect] += term;
      } else {
        out->hessian[at[l]][kKappaX + i] += term;
      }
    }
  }
  double nz11 = 0, nz12 = 0, nz22 = 0;
  for (std::size_t q = 0; q < size; ++q) {
    nz11 += s.noise[q] * z1[q] * z1[q];
    nz12 += s.noise[q] * z1[q] * z2[q];
    nz22 += s.noise[q] * z2[q] * z2[q];
  }
  const double second[2][2] = {{nz11, nz12}, {nz12, nz22}};
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t l = 0; l <= i; ++l)
      out->hessian[kKappaX + i][kKappaX + l] +=
          second[i][l] - (inner(yk.data() + 2 * i * size, part(4 + l, 0), size) +
                          inner(yk.data() + (2 * i + 1) * size, part(4 + l, 1), size));
  return value;
}

Evaluation Profile::evaluate_rest(const Vector<5>& p) const {
  Evaluation out;
  const Confounding k(p);
  const double b = p[kEffect];
  const double precision[3] = {1 / prior_->effect_variance, 1 / prior_->confounding_variance,
                               1 / prior_->confounding_variance};
  for (std::size_t i = 0; i < 3; ++i) {  // b, kX, kY
    out.value -= 0.5 * precision[i] * p[i] * p[i];
    out.gradient[i] -= precision[i] * p[i];
    out.hessian[i][i] -= precision[i];
  }
  out.value -= prior_->scale_power * (p[kLogX] + p[kLogY]);
  out.gradient[kLogX] -= prior_->scale_power;
  out.gradient[kLogY] -= prior_->scale_power;
  if (!diagonal()) {
    out.value += dense(p, &out, nullptr);
  } else {
    for (const auto& c : components_) add_component(c, component_products(c, p), k, b, 1, out);
    if (!statistics_->mean_direction.empty()) {
      std::array<Jet<5>, 5> jets;
      for (std::size_t i = 0; i < 5; ++i) jets[i] = Jet<5>::variable(p[i], i);
      Jet<5> extra, log_determinant;
      mean_term<Jet<5>>(jets, extra, log_determinant);
      out.value += extra.value;
      for (std::size_t i = 0; i < 5; ++i) {
        out.gradient[i] += extra.gradient[i];
        for (std::size_t j = 0; j <= i; ++j) out.hessian[i][j] += extra.hessian[i][j];
      }
    }
  }
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < i; ++j) out.hessian[j][i] = out.hessian[i][j];
  return out;
}

Evaluation Profile::evaluate(const Vector<5>& p) const {
  Evaluation out = evaluate_rest(p);
  add_residual(p, out);
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < i; ++j) out.hessian[j][i] = out.hessian[i][j];
  return out;
}

double Profile::log_density_constant() const {
  const auto& s = *statistics_;
  const auto& q = *prior_;
  const auto size = static_cast<double>(s.size), slab = static_cast<double>(n_slab());
  return -0.5 * s.n * (2 * kLogTwoPi + std::log(s.s11) + std::log(s.s221) + 2) - size * kLogTwoPi -
         0.5 * (size + slab) * std::log(q.slab_variance) -
         0.5 * (size - slab) * std::log(q.spike_variance) - 1.5 * kLogTwoPi -
         0.5 * std::log(q.effect_variance) - std::log(q.confounding_variance);
}

double Profile::log_laplace_remainder(const Vector<5>& p, double log_det_negative_hessian) const {
  const auto& s = *statistics_;
  const auto& q = *prior_;
  const Confounding k(p);
  double log_det_c = 0, log_det_mean = 0;
  if (!diagonal()) {
    dense(p, nullptr, &log_det_c);
  } else {
    for (const auto& c : components_) log_det_c += component_log_determinant(c, k);
    if (!s.mean_direction.empty()) {
      double extra = 0;
      mean_term<double>(p, extra, log_det_mean);
      log_det_mean += 2 * std::log(s.n);
    }
  }
  return -0.5 * s.n * (2 * kLogTwoPi + std::log(s.s11) + std::log(s.s221) + 2) + kLogTwoPi -
         0.5 * std::log(q.effect_variance) - std::log(q.confounding_variance) + s.sum_log_noise +
         0.5 * static_cast<double>(s.size) * std::log(k.k2) - 0.5 * (log_det_c + log_det_mean) -
         0.5 * log_det_negative_hessian;
}

void Profile::pleiotropy_scores(const Vector<5>& p, double* z, double* v) const {
  const auto& s = *statistics_;
  const std::size_t size = s.size;
  const Confounding k(p);
  Dense c(*this, k);
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  std::vector<double> r1(size), r2(size), column(c.n_slab);
  for (std::size_t q = 0; q < size; ++q) {
    r1[q] = ex * s.h1[q];
    r2[q] = ey * s.h2[q] - b * r1[q];
  }
  c.solve(r1.data(), r2.data());
  for (std::size_t j = 0; j < size; ++j) {
    const double* q = c.row(j);
    z[j] = inner(q, r2.data(), size);
    for (std::size_t l = 0; l < size; ++l) c.work.resize(size), c.work[l] = c.i22[l] * q[l];
    v[j] = inner(c.work.data(), q, size);
    for (std::size_t i = 0; i < c.n_slab; ++i) {
      double sum = inner(c.work.data(), c.row(slab_[i]), size);
      const double* lower = c.capacity.data() + i * c.n_slab;
      for (std::size_t l = 0; l < i; ++l) sum -= lower[l] * column[l];
      column[i] = sum / lower[i];
      v[j] -= column[i] * column[i];
    }
  }
}

void Profile::effects(const Vector<5>& p, double* gamma, double* alpha) const {
  const auto& s = *statistics_;
  const Confounding k(p);
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  if (diagonal()) {
    double e1 = 0, e2 = 0;  // pull of the means, V_m^-1 e
    if (!s.mean_direction.empty()) {
      e1 = s.mean_x * ex;
      e2 = s.mean_y * ey - b * e1;
      double v11 = k.k1 / s.n, v12 = k.o12 / s.n, v22 = k.o22 / s.n;
      for (const auto& c : components_) {
        const double n = c.noise, slab = c.slab_variance, v = c.variance;
        const double r = 1 / component_determinant(c, k);
        const double b1 = c.f1 * ex, b2 = c.f2 * ey - b * b1;
        e1 -= slab * r * ((n * k.o22 + v) * b1 - n * k.o12 * b2);
        e2 -= v * r * ((n * k.k1 + slab) * b2 - n * k.o12 * b1);
        v11 += c.mu2 * slab * n * r * (n * k.k2 + v * k.k1);
        v12 += c.mu2 * slab * n * v * r * k.o12;
        v22 += c.mu2 * v * n * r * (n * k.k2 + slab * k.o22);
      }
      const double r = 1 / (v11 * v22 - v12 * v12);
      const double w1 = r * (v22 * e1 - v12 * e2);
      e2 = r * (v11 * e2 - v12 * e1);
      e1 = w1;
    }
    for (std::size_t j = 0; j < s.size; ++j) {
      const Component c{s.noise[j], prior_->slab_variance, variance(j), 1};
      const double n = c.noise, slab = c.slab_variance, v = c.variance;
      const double r = 1 / component_determinant(c, k);
      const double b1 = ex * s.h1[j], b2 = ey * s.h2[j] - b * b1;
      gamma[j] = slab * r * ((n * k.o22 + v) * b1 - n * k.o12 * b2);
      alpha[j] = v * r * ((n * k.k1 + slab) * b2 - n * k.o12 * b1);
      if (!s.mean_direction.empty()) {
        const double mu = s.mean_direction[j];
        const double m12 = slab * n * v * r * k.o12;
        gamma[j] += mu * (slab * n * r * (n * k.k2 + v * k.k1) * e1 + m12 * e2);
        alpha[j] += mu * (m12 * e1 + v * n * r * (n * k.k2 + slab * k.o22) * e2);
      }
    }
    return;
  }
  Dense c(*this, k);
  std::vector<double> r1(s.size), r2(s.size);
  for (std::size_t q = 0; q < s.size; ++q) {
    r1[q] = ex * s.h1[q];
    r2[q] = ey * s.h2[q] - b * r1[q];
  }
  c.solve(r1.data(), r2.data());
  for (std::size_t j = 0; j < s.size; ++j) {
    gamma[j] = prior_->slab_variance * inner(c.row(j), r1.data(), s.size);
    alpha[j] = variance(j) * inner(c.row(j), r2.data(), s.size);
  }
}

namespace {

// The law of one candidate's two effects given phi - p: mean + slopes (phi - p), Cholesky factor.
struct EffectLaws {
  std::size_t size;
  std::vector<double> data;  // 15 rows of length J
  explicit EffectLaws(std::size_t n) : size(n), data(15 * n) {}
  double* row(std::size_t i) { return data.data() + i * size; }
  const double* row(std::size_t i) const { return data.data() + i * size; }
};

MRFAST_DISPATCH
void transform_normals(const EffectLaws& laws, const double* shift, double* gamma, double* alpha) {
  const std::size_t size = laws.size;
  const double *mg = laws.row(0), *ma = laws.row(1);
  const double *l11 = laws.row(12), *l21 = laws.row(13), *l22 = laws.row(14);
  for (std::size_t j = 0; j < size; ++j) {
    double g = mg[j], a = ma[j];
    for (std::size_t i = 0; i < 5; ++i) {
      g += laws.data[(2 + i) * size + j] * shift[i];
      a += laws.data[(7 + i) * size + j] * shift[i];
    }
    const double z = gamma[j];
    alpha[j] = a + l21[j] * z + l22[j] * alpha[j];
    gamma[j] = g + l11[j] * z;
  }
}

}  // namespace

// Correlated candidates, by Matheron's rule: with a draw of the effects from their prior and one of
// the noise, effects - P^-1 C^-1 (effects + noise) has the posterior covariance.
void Profile::draw_correlated(const Vector<5>& p, const Matrix<5>& root, double* rows,
                              std::size_t count) const {
  const auto& s = *statistics_;
  const std::size_t size = s.size;
  const Confounding k(p);
  Dense c(*this, k);
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  // Mean of the effects and its derivatives by the parameters: P^-1 C^-1 of B, of the derivatives
  // of B, and of -Omega_k z / N.
  std::vector<double> laws(12 * size), r1(size), r2(size), z1(size), z2(size);
  auto store = [&](std::size_t i) {
    c.solve(r1.data(), r2.data());
    if (i == 0) {
      z1 = r1;
      z2 = r2;
    }
    for (std::size_t j = 0; j < size; ++j) {
      laws[2 * i * size + j] = prior_->slab_variance * inner(c.row(j), r1.data(), size);
      laws[(2 * i + 1) * size + j] = variance(j) * inner(c.row(j), r2.data(), size);
    }
  };
  for (std::size_t q = 0; q < size; ++q) {
    r1[q] = ex * s.h1[q];
    r2[q] = ey * s.h2[q] - b * r1[q];
  }
  store(0);
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t q = 0; q < size; ++q) {
      const double a = ex * s.h1[q], d = ey * s.h2[q], n = s.noise[q];
      const double by[5][2] = {{0, -a},
                               {-n * (2 * k.kx * z1[q] + k.ky * z2[q]), -n * k.ky * z1[q]},
                               {-n * k.kx * z2[q], -n * (k.kx * z1[q] + 2 * k.ky * z2[q])},
                               {-a, b * a},
                               {0, -d}};
      r1[q] = by[i][0];
      r2[q] = by[i][1];
    }
    store(i + 1);
  }
  const double o11 = std::sqrt(k.k1), o21 = k.o12 / o11, o22 = std::sqrt(k.k2 / k.k1);
  const double slab_sd = std::sqrt(prior_->slab_variance);
  for (std::size_t row = 0; row < count; ++row, rows += draw_width()) {
    double *gamma = rows, *alpha = rows + size, *tail = rows + 2 * size;
    const double* noise = tail + 5;
    std::fill(r1.begin(), r1.end(), 0.0);
    std::fill(r2.begin(), r2.end(), 0.0);
    for (std::size_t j = 0; j < size; ++j) {
      gamma[j] *= slab_sd;
      alpha[j] *= std::sqrt(variance(j));
      const double* q = c.row(j);
      const double g = gamma[j], a = alpha[j];
      for (std::size_t l = 0; l < size; ++l) {
        r1[l] += g * q[l];
        r2[l] += a * q[l];
      }
    }
    for (std::size_t l = 0; l < size; ++l) {
      const double sd = std::sqrt(s.noise[l]);
      r1[l] += sd * o11 * noise[l];
      r2[l] += sd * (o21 * noise[l] + o22 * noise[size + l]);
    }
    c.solve(r1.data(), r2.data());
    double shift[5];
    for (std::size_t i = 0; i < 5; ++i) {
      shift[i] = 0;
      for (std::size_t l = 0; l < 5; ++l) shift[i] += root[i][l] * tail[l];
    }
    for (std::size_t j = 0; j < size; ++j) {
      gamma[j] += laws[j] - prior_->slab_variance * inner(c.row(j), r1.data(), size);
      alpha[j] += laws[size + j] - variance(j) * inner(c.row(j), r2.data(), size);
      for (std::size_t i = 0; i < 5; ++i) {
        gamma[j] += laws[(2 * i + 2) * size + j] * shift[i];
        alpha[j] += laws[(2 * i + 3) * size + j] * shift[i];
      }
    }
    for (std::size_t i = 0; i < 5; ++i) tail[i] = p[i] + shift[i];
  }
}

void Profile::draw(const Vector<5>& p, const Matrix<5>& root, double* rows,
                   std::size_t count) const {
  if (!diagonal()) return draw_correlated(p, root, rows, count);
  const auto& s = *statistics_;
  const std::size_t size = s.size;
  const Confounding k(p);
  const double ex = std::exp(-p[kLogX]), ey = std::exp(-p[kLogY]), b = p[kEffect];
  EffectLaws laws(size);
  for (std::size_t j = 0; j < size; ++j) {
    const Component c{s.noise[j], prior_->slab_variance, variance(j), 1};
    const double n = c.noise, slab = c.slab_variance, v = c.variance;
    const Symmetric2 w = component_precision(c, k);
    const double b1 = ex * s.h1[j], d = ey * s.h2[j], b2 = d - b * b1;
    const double z1 = w.a11 * b1 + w.a12 * b2, z2 = w.a12 * b1 + w.a22 * b2;
    laws.row(0)[j] = slab * z1;
    laws.row(1)[j] = v * z2;
    // Derivatives of the optimum P^-1 C^-1 B by b, kX, kY, lX, lY.
    const double by[5][2] = {{0, -b1},
                             {-n * (2 * k.kx * z1 + k.ky * z2), -n * k.ky * z1},
                             {-n * k.kx * z2, -n * (k.kx * z1 + 2 * k.ky * z2)},
                             {-b1, b * b1},
                             {0, -d}};
    for (std::size_t i = 0; i < 5; ++i) {
      laws.row(2 + i)[j] = slab * (w.a11 * by[i][0] + w.a12 * by[i][1]);
      laws.row(7 + i)[j] = v * (w.a12 * by[i][0] + w.a22 * by[i][1]);
    }
    const double r = 1 / component_determinant(c, k);
    const double m11 = slab * n * r * (n * k.k2 + v * k.k1);
    const double m12 = slab * n * v * r * k.o12;
    const double m22 = v * n * r * (n * k.k2 + slab * k.o22);
    const double l11 = std::sqrt(m11);
    laws.row(12)[j] = l11;
    laws.row(13)[j] = m12 / l11;
    laws.row(14)[j] = std::sqrt(m22 - (m12 / l11) * (m12 / l11));
  }
  for (std::size_t row = 0; row < count; ++row, rows += draw_width()) {
    double* tail = rows + 2 * size;
    double shift[5];
    for (std::size_t i = 0; i < 5; ++i) {
      shift[i] = 0;
      for (std::size_t l = 0; l < 5; ++l) shift[i] += root[i][l] * tail[l];
    }
    transform_normals(laws, shift, rows, rows + size);
    for (std::size_t i = 0; i < 5; ++i) tail[i] = p[i] + shift[i];
  }
}

}  // namespace mrfast
