// Prior of the confounding bias c = kX kY / sqrt(1 + kX^2 + kY^2) of the observational slope,
// kX ~ N(0, sx^2), kY ~ N(0, sy^2), and its convolution with the sampling error of the slope.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace mrfast {

// p(c) has an integrable log|c| singularity at 0. With rho = |c| sqrt(1 + c^2) and the position u
// along the hyperbola of constant c,
//   p(c) = 2 int du sqrt(K2) N(kX; 0, sx^2) N(kY; 0, sy^2),   K2 = 1 + 2 c^2 + 2 rho cosh(2u),
//   kX^2 = c^2 + rho e^{2u},  kY^2 = c^2 + rho e^{-2u}.
// log p(c) = remainder(log|c|) - decay(c), where decay is the smallest exponent along the hyperbola
// and the remainder a slow function, tabulated as polynomials.
class SlopePrior {
 public:
  SlopePrior(double sd_x, double sd_y);

  // By the trapezoid rule in u; infinite at 0.
  double log_density(double c) const;
  // log of the density of c + sd Z at `center`, Z standard normal: finite everywhere.
  double log_smoothed(double center, double sd) const;
  // The value of c that leaves `probability` of its law given center = c + sd Z below it.
  double conditional_quantile(double center, double sd, double probability) const;
  // The value of kX^2 - c^2 that leaves `probability` of its law given c below it.
  double confounding_quantile(double c, double probability) const;

 private:
  static constexpr std::size_t kDegree = 9;
  static constexpr double kWidth = 0.5;  // of an interval of log|c|

  struct Nodes;  // nodes of the smoothing integral near c = 0
  struct Peak {
    double at, sd, top;  // of -decay(c) - (c - center)^2 / (2 sd^2) over c >= 0
  };

  double remainder_by_quadrature(double c) const;
  double remainder(double log_c) const;
  double decay(double c) const;
  Peak find_peak(double center, double sd) const;

  double sd_x_, sd_y_;
  double square_;             // coefficient of c^2 in the decay
  double product_;            // coefficient of rho in the decay
  double first_, last_;       // range of log|c| of the table
  double slope_, intercept_;  // p(c) = intercept - slope log|c| below it
  double beyond_;             // the remainder above it
  std::vector<std::array<double, kDegree + 1>> table_;
};

}  // namespace mrfast
