// Tails of the normal, Student and chi-squared laws: p-values, accurate relative to themselves
// however small they are.
#pragma once

#include <cstddef>
#include <vector>

namespace mrfast {

// Two-sided, of z standard errors from zero.
double normal_p(double z);

// The other two laws, for whole degrees of freedom from 1 to `most`.
class Tails {
 public:
  explicit Tails(std::size_t most);
  // Two-sided.
  double student(double t, std::size_t df) const;
  // Upper.
  double chi_square(double q, std::size_t df) const;

 private:
  std::vector<double> gamma_ratio_;  // gamma((df + 1) / 2) / gamma(df / 2)
  std::vector<double> log_gamma_;    // of df / 2
  std::vector<double> even_, odd_;   // coefficients of Student's law as a finite sum
};

}  // namespace mrfast
