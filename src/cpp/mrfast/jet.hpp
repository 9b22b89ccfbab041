// Second-order forward differentiation: a value with its gradient and Hessian in D variables.
#pragma once

#include <cmath>
#include <cstddef>

#include "mrfast/small.hpp"

namespace mrfast {

template <std::size_t D>
struct Jet {
  double value = 0;
  Vector<D> gradient{};
  Matrix<D> hessian{};

  Jet() = default;
  Jet(double constant) : value(constant) {}  // NOLINT: constants take part in formulas

  static Jet variable(double value, std::size_t index) {
    Jet jet(value);
    jet.gradient[index] = 1;
    return jet;
  }

  // f(this), given f, f', f'' at the value.
  Jet chain(double f, double f1, double f2) const {
    Jet out(f);
    for (std::size_t i = 0; i < D; ++i) {
      out.gradient[i] = f1 * gradient[i];
      for (std::size_t j = 0; j < D; ++j)
        out.hessian[i][j] = f1 * hessian[i][j] + f2 * gradient[i] * gradient[j];
    }
    return out;
  }

  Jet& operator+=(const Jet& o) {
    value += o.value;
    for (std::size_t i = 0; i < D; ++i) {
      gradient[i] += o.gradient[i];
      for (std::size_t j = 0; j < D; ++j) hessian[i][j] += o.hessian[i][j];
    }
    return *this;
  }
  Jet& operator*=(double factor) {
    value *= factor;
    for (std::size_t i = 0; i < D; ++i) {
      gradient[i] *= factor;
      for (std::size_t j = 0; j < D; ++j) hessian[i][j] *= factor;
    }
    return *this;
  }
};

template <std::size_t D>
Jet<D> operator+(Jet<D> a, const Jet<D>& b) {
  return a += b;
}
template <std::size_t D>
Jet<D> operator+(Jet<D> a, double b) {
  a.value += b;
  return a;
}
template <std::size_t D>
Jet<D> operator+(double a, Jet<D> b) {
  return b + a;
}
template <std::size_t D>
Jet<D> operator-(Jet<D> a) {
  return a *= -1;
}
template <std::size_t D>
Jet<D> operator-(Jet<D> a, const Jet<D>& b) {
  return a += -b;
}
template <std::size_t D>
Jet<D> operator-(Jet<D> a, double b) {
  return a + -b;
}
template <std::size_t D>
Jet<D> operator-(double a, Jet<D> b) {
  return -b + a;
}
template <std::size_t D>
Jet<D> operator*(const Jet<D>& a, const Jet<D>& b) {
  Jet<D> out(a.value * b.value);
  for (std::size_t i = 0; i < D; ++i) {
    out.gradient[i] = a.value * b.gradient[i] + b.value * a.gradient[i];
    for (std::size_t j = 0; j < D; ++j)
      out.hessian[i][j] = a.value * b.hessian[i][j] + b.value * a.hessian[i][j] +
                          a.gradient[i] * b.gradient[j] + a.gradient[j] * b.gradient[i];
  }
  return out;
}
template <std::size_t D>
Jet<D> operator*(Jet<D> a, double b) {
  return a *= b;
}
template <std::size_t D>
Jet<D> operator*(double a, Jet<D> b) {
  return b *= a;
}
template <std::size_t D>
Jet<D> inverse(const Jet<D>& a) {
  const double r = 1 / a.value;
  return a.chain(r, -r * r, 2 * r * r * r);
}
template <std::size_t D>
Jet<D> operator/(const Jet<D>& a, const Jet<D>& b) {
  return a * inverse(b);
}
template <std::size_t D>
Jet<D> operator/(double a, const Jet<D>& b) {
  return inverse(b) *= a;
}
template <std::size_t D>
Jet<D> exp(const Jet<D>& a) {
  const double e = std::exp(a.value);
  return a.chain(e, e, e);
}
template <std::size_t D>
Jet<D> log(const Jet<D>& a) {
  const double r = 1 / a.value;
  return a.chain(std::log(a.value), r, -r * r);
}
template <std::size_t D>
Jet<D> sqrt(const Jet<D>& a) {
  const double s = std::sqrt(a.value);
  return a.chain(s, 0.5 / s, -0.25 / (s * a.value));
}

}  // namespace mrfast
