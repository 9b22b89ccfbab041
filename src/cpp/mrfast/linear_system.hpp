// Small dense systems of any size: inverses of general and of positive definite matrices.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace mrfast {

// Gauss-Jordan elimination with partial pivoting, in place, of an n x n matrix stored row by row;
// false where a pivot is below `smallest` times the largest element of its column.
inline bool invert_in_place(std::vector<double>& a, std::size_t n, std::vector<std::size_t>& rows,
                            double smallest = 1e-13) {
  rows.resize(n);
  for (std::size_t k = 0; k < n; ++k) {
    double* const pivot_row = a.data() + k * n;
    std::size_t best = k;
    double column = 0;
    for (std::size_t i = 0; i < n; ++i) column = std::fmax(column, std::fabs(a[i * n + k]));
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::fabs(a[i * n + k]) > std::fabs(a[best * n + k])) best = i;
    if (!(std::fabs(a[best * n + k]) > smallest * column)) return false;
    rows[k] = best;
    if (best != k)
      for (std::size_t j = 0; j < n; ++j) std::swap(pivot_row[j], a[best * n + j]);
    const double inverse = 1 / pivot_row[k];
    pivot_row[k] = 1;
    for (std::size_t j = 0; j < n; ++j) pivot_row[j] *= inverse;
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = a[i * n + k];
      a[i * n + k] = 0;
      for (std::size_t j = 0; j < n; ++j) a[i * n + j] -= factor * pivot_row[j];
    }
  }
  for (std::size_t k = n; k-- > 0;)
    if (rows[k] != k)
      for (std::size_t i = 0; i < n; ++i) std::swap(a[i * n + k], a[i * n + rows[k]]);
  return true;
}

// The same of a symmetric matrix that must be positive definite; it is scaled to a diagonal of 1,
// and false where a pivot is then not above `smallest`.
inline bool invert_definite_in_place(std::vector<double>& a, std::size_t n,
                                     std::vector<double>& scale, double smallest = 1e-12) {
  scale.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (!(a[i * n + i] > 0)) return false;
    scale[i] = 1 / std::sqrt(a[i * n + i]);
  }
  const auto rescale = [&] {
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) a[i * n + j] *= scale[i] * scale[j];
  };
  rescale();
  for (std::size_t k = 0; k < n; ++k) {
    double* const pivot_row = a.data() + k * n;
    if (!(pivot_row[k] > smallest)) return false;
    const double inverse = 1 / pivot_row[k];
    pivot_row[k] = 1;
    for (std::size_t j = 0; j < n; ++j) pivot_row[j] *= inverse;
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = a[i * n + k];
      a[i * n + k] = 0;
      for (std::size_t j = 0; j < n; ++j) a[i * n + j] -= factor * pivot_row[j];
    }
  }
  rescale();
  return true;
}

}  // namespace mrfast
