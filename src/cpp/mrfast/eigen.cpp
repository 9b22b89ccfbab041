#include "mrfast/eigen.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

MRFAST_DISPATCH
void add_multiple(double factor, const double* x, double* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

// Rows (x, y) become (c x - s y, s x + c y).
MRFAST_DISPATCH
void rotate(double c, double s, double* x, double* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const double a = x[i], b = y[i];
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}

// Householder reduction to a tridiagonal matrix (diagonal d, off-diagonal e); q, the identity at
// first, becomes the transposed product of the reflections.
void tridiagonalise(std::vector<double>& a, std::size_t n, std::vector<double>& d,
                    std::vector<double>& e, std::vector<double>& q) {
  std::vector<double> v(n), w(n), row(n);
  double largest = 0;
  for (const double value : a) largest = std::max(largest, std::abs(value));
  const double negligible = 1e-32 * largest;
  for (std::size_t k = 0; k + 2 < n; ++k) {
    double norm = 0;
    for (std::size_t i = k + 1; i < n; ++i) norm = std::hypot(norm, a[i * n + k]);
    if (norm <= negligible) continue;  // a reflection of rounding errors alone would not be one
    const double alpha = a[(k + 1) * n + k] > 0 ? -norm : norm;
    std::fill(v.begin(), v.end(), 0.0);
    for (std::size_t i = k + 1; i < n; ++i) v[i] = a[i * n + k];
    v[k + 1] -= alpha;
    double length = 0;
    for (std::size_t i = k + 1; i < n; ++i) length = std::hypot(length, v[i]);
    for (std::size_t i = k + 1; i < n; ++i) v[i] /= length;
    // a - 2 v w' - 2 w v', w = a v - (v' a v) v.
    std::fill(w.begin(), w.end(), 0.0);
    for (std::size_t i = k + 1; i < n; ++i) add_multiple(v[i], a.data() + i * n, w.data(), n);
    double curvature = 0;
    for (std::size_t i = k + 1; i < n; ++i) curvature += v[i] * w[i];
    add_multiple(-curvature, v.data(), w.data(), n);
    for (std::size_t i = k; i < n; ++i) {
      add_multiple(-2 * v[i], w.data(), a.data() + i * n, n);
      add_multiple(-2 * w[i], v.data(), a.data() + i * n, n);
    }
    std::fill(row.begin(), row.end(), 0.0);
    for (std::size_t i = k + 1; i < n; ++i) add_multiple(v[i], q.data() + i * n, row.data(), n);
    for (std::size_t i = k + 1; i < n; ++i)
      add_multiple(-2 * v[i], row.data(), q.data() + i * n, n);
  }
  for (std::size_t i = 0; i < n; ++i) {
    d[i] = a[i * n + i];
    e[i] = i + 1 < n ? a[(i + 1) * n + i] : 0;
  }
}

}  // namespace

bool symmetric_eigen(std::vector<double>& a, std::size_t n, std::vector<double>& values) {
  std::vector<double> d(n), e(n), q(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) q[i * n + i] = 1;
  tridiagonalise(a, n, d, e, q);
  double norm = 0;
  for (std::size_t i = 0; i < n; ++i) norm = std::max(norm, std::abs(d[i]) + std::abs(e[i]));
  const double negligible = 0.5 * std::numeric_limits<double>::epsilon() * norm;
  // Implicit QL with Wilkinson's shift (Martin and Wilkinson 1968, doi:10.1007/BF02165404).
  for (std::size_t l = 0; l < n; ++l) {
    for (int iteration = 0;; ++iteration) {
      std::size_t m = l;
      while (m + 1 < n && std::abs(e[m]) > negligible) ++m;
      if (m == l) break;
      if (iteration == 100) return false;
      double g = (d[l + 1] - d[l]) / (2 * e[l]);
      double r = std::hypot(g, 1.0);
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
      double s = 1, c = 1, p = 0;
      bool split = false;
      for (std::size_t i = m; i-- > l;) {
        const double f = s * e[i], b = c * e[i];
        r = std::hypot(f, g);
        e[i + 1] = r;
        if (r == 0) {
          d[i + 1] -= p;
          e[m] = 0;
          split = true;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        rotate(c, s, q.data() + i * n, q.data() + (i + 1) * n, n);
      }
      if (split) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return d[i] < d[j]; });
  values.resize(n);
  for (std::size_t k = 0; k < n; ++k) {
    values[k] = d[order[k]];
    std::copy(q.begin() + static_cast<std::ptrdiff_t>(order[k] * n),
              q.begin() + static_cast<std::ptrdiff_t>((order[k] + 1) * n),
              a.begin() + static_cast<std::ptrdiff_t>(k * n));
  }
  return true;
}

}  // namespace mrfast
