// MM-estimation of a linear regression.
#pragma once

#include <cstddef>
#include <vector>

namespace mrfast {

// MM-estimate (Yohai 1987; bisquare, breakdown point 1/2, efficiency 95%) of y on the columns of
// `design`, row-major (n, columns), both already multiplied by the roots of the weights. The
// S-estimate starts from every elemental subset, or from `most` of them where there are more
// (evenly spaced ones of two columns, random ones of more), and is that of least scale; covariance
// by Croux, Dhaene, Hoorelbeke (2003), shape (columns, columns).
struct RobustFit {
  std::vector<double> coefficients, covariance;
  double scale;
  bool valid;
};
RobustFit fit_robust(const double* design, const double* y, std::size_t n, std::size_t columns,
                     std::size_t most);

}  // namespace mrfast
