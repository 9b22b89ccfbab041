#include "mrfast/tails.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mrfast {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTiny = 1e-300;
constexpr double kPrecision = 1e-16;
constexpr int kMost = 100'000;  // terms; some hundred are needed
constexpr double kRootPi = 0x1.c5bf891b4ef6bp0;
constexpr double kHalfPi = 0x1.921fb54442d18p0;

double away_from_zero(double x) { return std::fabs(x) < kTiny ? kTiny : x; }

// Continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by the method
// of Lentz; it converges fast for x below (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m < kMost; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    fraction *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    fraction *= d * c;
    if (std::fabs(d * c - 1) < 4 * kPrecision) break;
  }
  return fraction;
}

// Student's law as a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4), where one minus the
// central part keeps its digits and the sum is short.
constexpr double kNear = 3.5;
constexpr std::size_t kShort = 400;

double polynomial(const double* coefficients, std::size_t n, double x) {
  double even = 0, odd = 0;
  const double square = x * x;
  std::size_t k = n;
  if (k % 2 == 1) even = coefficients[--k];
  for (; k > 0; k -= 2) {
    even = even * square + coefficients[k - 2];
    odd = odd * square + coefficients[k - 1];
  }
  return even + x * odd;
}

// Lower incomplete gamma function over x^a exp(-x) / gamma(a), by its series.
double gamma_series(double a, double x) {
  double term = 1 / a, sum = term;
  for (int k = 1; k < kMost && term > kPrecision * sum; ++k) sum += term *= x / (a + k);
  return sum;
}

// The upper one over x^(a - 1) exp(-x) / gamma(a), by its recurrence in a: a sum of positive terms,
// down to that of a = 0 or, for half a, of 1/2, which is left out.
double gamma_sum(double a, double x) {
  const double step = 1 / x;
  double term = 1, sum = 0;
  for (double b = a - 1; b > -0.25; b -= 1) {
    sum += term;
    term *= b * step;
    if (term < 1e-3 * kPrecision * sum) break;
  }
  return sum;
}

}  // namespace

double normal_p(double z) { return std::erfc(std::fabs(z) * 0x1.6a09e667f3bcdp-1); }

Tails::Tails(std::size_t most) : gamma_ratio_(most + 1, kNaN), log_gamma_(most + 1, kNaN) {
  for (std::size_t df = 1; df <= most; ++df) {
    const double before = static_cast<double>(df) - 1;
    gamma_ratio_[df] = df == 1 ? 1 / kRootPi : 0.5 * before / gamma_ratio_[df - 1];
    log_gamma_[df] = std::lgamma(0.5 * static_cast<double>(df));
  }
  double even = 1, odd = 1;
  for (std::size_t k = 0; 2 * k <= std::min(most, kShort); ++k) {
    const double i = 2 * static_cast<double>(k);
    if (k > 0) even *= (i - 1) / i, odd *= i / (i + 1);
    even_.push_back(even);
    odd_.push_back(odd);
  }
}

double Tails::student(double t, std::size_t df) const {
  if (df < 1 || df >= gamma_ratio_.size() || std::isnan(t)) return kNaN;
  const double n = static_cast<double>(df), a = 0.5 * n, square = t * t;
  if (square == 0) return 1;
  if (std::isinf(square)) {  // (n / t^2)^(n / 2), whose square root alone is a number
    const double root = std::sqrt(n) / std::fabs(t);
    return std::pow(root, n) * gamma_ratio_[df] / (a * kRootPi);
  }
  const double x = n / (n + square), rest = square / (n + square);
  if (std::fabs(t) < kNear && df <= kShort) {
    const double sine = std::sqrt(rest);
    if (df % 2 == 0) return 1 - sine * polynomial(even_.data(), df / 2, x);
    const double angle = std::atan(std::fabs(t) / std::sqrt(n));
    const double sum = std::sqrt(x) * polynomial(odd_.data(), (df - 1) / 2, x);
    return 1 - (angle + sine * sum) / kHalfPi;
  }
  const double power = std::exp(-a * std::log1p(square / n)) * std::sqrt(rest);
  const double front = power * gamma_ratio_[df] / kRootPi;
  if (x < (a + 1) / (a + 2.5)) return front * beta_fraction(a, 0.5, x) / a;
  return 1 - 2 * front * beta_fraction(0.5, a, rest);
}

double Tails::chi_square(double q, std::size_t df) const {
  if (df < 1 || df >= log_gamma_.size() || std::isnan(q)) return kNaN;
  if (!(q > 0)) return 1;
  if (std::isinf(q)) return 0;
  const double a = 0.5 * static_cast<double>(df), x = 0.5 * q;
  const double front = std::exp(a * std::log(x) - x - log_gamma_[df]);
  // Below a the terms of the sum rise first; they stay within range for these.
  if (x < a && (a > 100 || x < 0.1 * a)) return 1 - front * gamma_series(a, x);
  return front / x * gamma_sum(a, x) + (df % 2 == 1 ? std::erfc(std::sqrt(x)) : 0.0);
}

}  // namespace mrfast
