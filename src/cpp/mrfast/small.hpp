// Dense linear algebra of fixed size, and a Cholesky factorisation of any size.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace mrfast {

inline constexpr double kLogTwoPi = 1.8378770664093454836;

template <std::size_t D>
using Vector = std::array<double, D>;

template <std::size_t D>
using Matrix = std::array<std::array<double, D>, D>;  // row by row

template <std::size_t D>
double dot(const Vector<D>& a, const Vector<D>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < D; ++i) sum += a[i] * b[i];
  return sum;
}

// Cholesky factor of a symmetric matrix (lower triangle read).
template <std::size_t D>
struct Cholesky {
  Matrix<D> lower{};
  bool positive_definite = false;

  explicit Cholesky(const Matrix<D>& a) {
    for (std::size_t j = 0; j < D; ++j) {
      double pivot = a[j][j];
      for (std::size_t k = 0; k < j; ++k) pivot -= lower[j][k] * lower[j][k];
      if (!(pivot > 1e-14 * std::abs(a[j][j]))) return;
      lower[j][j] = std::sqrt(pivot);
      for (std::size_t i = j + 1; i < D; ++i) {
        double sum = a[i][j];
        for (std::size_t k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
        lower[i][j] = sum / lower[j][j];
      }
    }
    positive_definite = true;
  }

  Vector<D> solve(Vector<D> b) const {
    for (std::size_t i = 0; i < D; ++i) {
      for (std::size_t k = 0; k < i; ++k) b[i] -= lower[i][k] * b[k];
      b[i] /= lower[i][i];
    }
    for (std::size_t i = D; i-- > 0;) {
      for (std::size_t k = i + 1; k < D; ++k) b[i] -= lower[k][i] * b[k];
      b[i] /= lower[i][i];
    }
    return b;
  }

  double log_determinant() const {
    double product = 1;
    for (std::size_t i = 0; i < D; ++i) product *= lower[i][i];
    return 2 * std::log(product);
  }
};

// Eigenvalues and eigenvectors (columns) of a symmetric matrix by Jacobi rotations.
template <std::size_t D>
void symmetric_eigen(Matrix<D> a, Vector<D>& values, Matrix<D>& vectors) {
  for (std::size_t i = 0; i < D; ++i)
    for (std::size_t j = 0; j < D; ++j) vectors[i][j] = i == j ? 1 : 0;
  for (int sweep = 0; sweep < 30; ++sweep) {
    double off = 0, diagonal = 0;
    for (std::size_t i = 0; i < D; ++i) {
      diagonal += a[i][i] * a[i][i];
      for (std::size_t j = 0; j < i; ++j) off += a[i][j] * a[i][j];
    }
    if (off <= 1e-30 * diagonal) break;
    for (std::size_t p = 0; p < D; ++p) {
      for (std::size_t q = p + 1; q < D; ++q) {
        if (a[p][q] == 0) continue;
        const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::size_t k = 0; k < D; ++k) {
          const double akp = a[k][p], akq = a[k][q];
          a[k][p] = c * akp - s * akq;
          a[k][q] = s * akp + c * akq;
        }
        for (std::size_t k = 0; k < D; ++k) {
          const double apk = a[p][k], aqk = a[q][k];
          a[p][k] = c * apk - s * aqk;
          a[q][k] = s * apk + c * aqk;
        }
        for (std::size_t k = 0; k < D; ++k) {
          const double vkp = vectors[k][p], vkq = vectors[k][q];
          vectors[k][p] = c * vkp - s * vkq;
          vectors[k][q] = s * vkp + c * vkq;
        }
      }
    }
  }
  for (std::size_t i = 0; i < D; ++i) values[i] = a[i][i];
}

// Sum with the rounding errors carried along (Neumaier).
struct ExactSum {
  double sum = 0, rest = 0;
  void add(double x) {
    const double t = sum + x;
    rest += std::fabs(sum) >= std::fabs(x) ? (sum - t) + x : (x - t) + sum;
    sum = t;
  }
  double value() const { return sum + rest; }
};

// In-place Cholesky of an n x n symmetric matrix, row by row, lower triangle; false where it is
// not positive definite.
inline bool cholesky_in_place(std::vector<double>& a, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    double* row = a.data() + i * n;
    for (std::size_t j = 0; j <= i; ++j) {
      const double* other = a.data() + j * n;
      double sum = row[j];
      for (std::size_t k = 0; k < j; ++k) sum -= row[k] * other[k];
      if (j < i) {
        row[j] = sum / other[j];
      } else {
        if (!(sum > 0)) return false;
        row[i] = std::sqrt(sum);
      }
    }
  }
  return true;
}

inline void cholesky_solve_in_place(const std::vector<double>& lower, std::size_t n, double* b) {
  for (std::size_t i = 0; i < n; ++i) {
    const double* row = lower.data() + i * n;
    for (std::size_t k = 0; k < i; ++k) b[i] -= row[k] * b[k];
    b[i] /= row[i];
  }
  for (std::size_t i = n; i-- > 0;) {
    const double* row = lower.data() + i * n;
    b[i] /= row[i];
    for (std::size_t k = 0; k < i; ++k) b[k] -= row[k] * b[i];
  }
}

}  // namespace mrfast
