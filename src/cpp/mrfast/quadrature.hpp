// Nodes and weights of Gauss rules, and the 15-point Kronrod extension of Gauss-Legendre's.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace mrfast {

struct Rule {
  std::vector<double> node, weight;
};

namespace detail {

// Roots of an orthonormal polynomial by Newton's method from given starts.
template <class Polynomial>
double polish(double x, const Polynomial& value_and_slope) {
  for (int i = 0; i < 100; ++i) {
    const auto [value, slope] = value_and_slope(x);
    const double step = value / slope;
    x -= step;
    if (std::abs(step) <= 1e-15 * (1 + std::abs(x))) break;
  }
  return x;
}

}  // namespace detail

// For the integral over [0, 1].
inline Rule gauss_legendre(std::size_t n) {
  Rule rule{std::vector<double>(n), std::vector<double>(n)};
  const auto evaluate = [n](double x) {
    double p = 1, before = 0;
    for (std::size_t k = 1; k <= n; ++k) {
      const double kk = static_cast<double>(k);
      const double next = ((2 * kk - 1) * x * p - (kk - 1) * before) / kk;
      before = p;
      p = next;
    }
    return std::array<double, 2>{p, static_cast<double>(n) * (x * p - before) / (x * x - 1)};
  };
  for (std::size_t i = 0; i < n; ++i) {
    const double start = -std::cos(3.14159265358979323846 * (static_cast<double>(i) + 0.75) /
                                   (static_cast<double>(n) + 0.5));
    const double x = detail::polish(start, evaluate);
    const double slope = evaluate(x)[1];
    rule.node[i] = 0.5 * (1 + x);
    rule.weight[i] = 1 / ((1 - x * x) * slope * slope);
  }
  return rule;
}

// For the expectation under N(0, 1); weights sum to 1.
inline Rule gauss_hermite(std::size_t n) {
  Rule rule{std::vector<double>(n), std::vector<double>(n)};
  const auto evaluate = [n](double x) {  // orthonormal polynomials
    double p = 1, before = 0;
    for (std::size_t k = 1; k <= n; ++k) {
      const double kk = static_cast<double>(k);
      const double next = (x * p - std::sqrt(kk - 1) * before) / std::sqrt(kk);
      before = p;
      p = next;
    }
    return std::array<double, 2>{p, std::sqrt(static_cast<double>(n)) * before};
  };
  // Deflated Newton from the outside in.
  std::vector<double> roots;
  double x = std::sqrt(4.0 * static_cast<double>(n) + 2.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (int iteration = 0; iteration < 200; ++iteration) {
      const auto [value, slope] = evaluate(x);
      double correction = 0;
      for (const double r : roots) correction += 1 / (x - r);
      const double step = value / (slope - value * correction);
      x -= step;
      if (std::abs(step) <= 1e-15 * (1 + std::abs(x))) break;
    }
    roots.push_back(x);
    x -= 1e-3;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const double root = 0.5 * (roots[n - 1 - i] - roots[i]);
    const double slope = evaluate(root)[1];
    rule.node[i] = root;
    rule.weight[i] = 1 / (slope * slope);
  }
  return rule;
}

// The n-point Gauss rule of a discrete measure (Stieltjes' procedure, then the eigenvalues of the
// Jacobi matrix by rotations). Weights sum to those of the measure.
inline Rule gauss_from_measure(const std::vector<double>& x, const std::vector<double>& weight,
                               std::size_t n) {
  const std::size_t points = x.size();
  std::vector<double> p(points, 1), before(points, 0);
  std::vector<double> diagonal, off;
  double total = 0, norm_before = 1;
  for (const double w : weight) total += w;
  for (std::size_t k = 0; k < n; ++k) {
    double norm = 0, mean = 0;
    for (std::size_t i = 0; i < points; ++i) {
      norm += weight[i] * p[i] * p[i];
      mean += weight[i] * p[i] * p[i] * x[i];
    }
    if (!(norm > 1e-28 * norm_before)) break;
    const double alpha = mean / norm, beta = k == 0 ? 0 : norm / norm_before;
    diagonal.push_back(alpha);
    if (k > 0) off.push_back(std::sqrt(beta));
    for (std::size_t i = 0; i < points; ++i) {
      const double next = (x[i] - alpha) * p[i] - beta * before[i];
      before[i] = p[i];
      p[i] = next;
    }
    norm_before = norm;
  }
  const std::size_t m = diagonal.size();
  // Jacobi rotations on the small tridiagonal matrix; rows of v are eigenvectors.
  std::vector<double> a(m * m, 0), v(m * m, 0);
  for (std::size_t i = 0; i < m; ++i) {
    a[i * m + i] = diagonal[i];
    v[i * m + i] = 1;
    if (i + 1 < m) a[i * m + i + 1] = a[(i + 1) * m + i] = off[i];
  }
  for (int sweep = 0; sweep < 30; ++sweep) {
    double outside = 0, inside = 0;
    for (std::size_t i = 0; i < m; ++i) {
      inside += a[i * m + i] * a[i * m + i];
      for (std::size_t j = 0; j < i; ++j) outside += a[i * m + j] * a[i * m + j];
    }
    if (outside <= 1e-30 * inside) break;
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = i + 1; j < m; ++j) {
        if (a[i * m + j] == 0) continue;
        const double theta = (a[j * m + j] - a[i * m + i]) / (2 * a[i * m + j]);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::size_t k = 0; k < m; ++k) {
          const double x0 = a[k * m + i], x1 = a[k * m + j];
          a[k * m + i] = c * x0 - s * x1;
          a[k * m + j] = s * x0 + c * x1;
        }
        for (std::size_t k = 0; k < m; ++k) {
          const double x0 = a[i * m + k], x1 = a[j * m + k];
          a[i * m + k] = c * x0 - s * x1;
          a[j * m + k] = s * x0 + c * x1;
        }
        for (std::size_t k = 0; k < m; ++k) {
          const double x0 = v[i * m + k], x1 = v[j * m + k];
          v[i * m + k] = c * x0 - s * x1;
          v[j * m + k] = s * x0 + c * x1;
        }
      }
  }
  Rule rule;
  for (std::size_t i = 0; i < m; ++i) {
    rule.node.push_back(a[i * m + i]);
    rule.weight.push_back(total * v[i * m] * v[i * m]);
  }
  return rule;
}

// Kronrod's 15 points on [-1, 1] with the 7 Gauss points among them (the odd ones).
struct Kronrod15 {
  static constexpr std::size_t kPoints = 15;
  static constexpr std::array<double, 8> kPositive = {
      0.991455371120812639206854697526329, 0.949107912342758524526189684047851,
      0.864864423359769072789712788640926, 0.741531185599394439863864773280788,
      0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
      0.207784955007898467600689403773245, 0.0};
  static constexpr std::array<double, 8> kWeight = {
      0.022935322010529224963732008058970, 0.063092092629978553290700663189204,
      0.104790010322250183839876322541518, 0.140653259715525918745189590510238,
      0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
      0.204432940075298892414161999234649, 0.209482141084727828012999174891714};
  static constexpr std::array<double, 4> kGauss = {
      0.129484966168869693270611432679082, 0.279705391489276667901467771423780,
      0.381830050505118944950369775488975, 0.417959183673469387755102040816327};

  static double node(std::size_t i) { return i < 8 ? -kPositive[i] : kPositive[14 - i]; }
  static double weight(std::size_t i) { return i < 8 ? kWeight[i] : kWeight[14 - i]; }
  static double gauss_weight(std::size_t i) {  // 0 for Kronrod's own points
    if (i % 2 == 0) return 0;
    const std::size_t k = (i - 1) / 2;
    return k < 4 ? kGauss[k] : kGauss[6 - k];
  }
};

}  // namespace mrfast
