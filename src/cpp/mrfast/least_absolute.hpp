// Least absolute deviations (median regression through the origin), exactly, and its bootstrap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "mrfast/normal_law.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// Minimises sum w |y - x b| by the simplex method on vertices: a vertex fits p rows (the basis)
// exactly; it is left along the edge of steepest descent, for the lowest point of that edge
// (Bloomfield, Steiger 1983). The multipliers at the end prove that the minimum is reached.
class LeastAbsolute {
 public:
  LeastAbsolute(std::size_t rows, std::size_t columns);

  // x is row-major (rows, columns). The basis is where to start, if its rows are independent, and
  // is left as that of the minimum. False where the columns are collinear.
  bool fit(const double* x, const double* y, const double* w, std::vector<std::size_t>& basis);

  const std::vector<double>& coefficients() const { return b_; }
  // No other coefficients have the same sum.
  bool unique() const { return unique_; }

 private:
  enum class State { kDone, kStalled, kSingular };
  State descend(const double* x, const double* y, const double* w, std::vector<std::size_t>& basis);
  bool independent_rows(const double* x, const double* w, std::vector<std::size_t>& basis);
  bool invert_basis(const double* x, const std::vector<std::size_t>& basis);
  void solve(const double* x, const double* y, const std::vector<std::size_t>& basis);
  std::size_t lowest_point(double slope);

  std::size_t n_, p_;
  std::vector<double> b_, inverse_, r_, moved_, slopes_, square_;
  std::vector<double> perturbed_;
  std::vector<signed char> side_;  // of the plane: sign of the residual, 0 in the basis
  std::vector<std::size_t> pivots_;
  struct Crossing {
    double step, size;
    std::size_t row;
  };
  std::vector<Crossing> crossings_;
  bool unique_ = true;
};

// J SNPs of K exposures and one outcome. `lower` (K, K): factor of the correlations of the errors
// of a SNP's exposure associations.
struct MultipleAssociations {
  std::size_t snps = 0, exposures = 0;
  const double* bx = nullptr;  // (J, K)
  const double* sx = nullptr;
  const double* by = nullptr;  // (J,)
  const double* sy = nullptr;
  const double* weights = nullptr;
  const double* lower = nullptr;
};

// Coefficients (draws, K) of associations drawn from their normal laws, the weights as they are;
// NaN where exposures are collinear. `basis`: of the minimum without draws.
void bootstrap_least_absolute(const MultipleAssociations& data, const NormalStream& stream,
                              const std::vector<std::size_t>& basis, std::size_t draws,
                              double* coefficients, std::size_t threads, Monitor& monitor);

}  // namespace mrfast
