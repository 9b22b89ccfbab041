// Eight doubles in one variable, for sums that have to stay in registers.
#pragma once

#include "mrfast/vector_math.hpp"

namespace mrfast {

#if defined(__GNUC__) || defined(__clang__)
// Only ever a local variable of inlined code: as an argument its passing depends on the machine.
using Vector8 __attribute__((vector_size(64), aligned(8), may_alias)) = double;

MRFAST_INLINE void load(const double* from, Vector8& to) {
  to = *reinterpret_cast<const Vector8*>(from);
}
// Puts the smaller numbers into `low`, the larger ones into `high`.
MRFAST_INLINE void exchange(double* low, double* high) {
  Vector8 a, b;
  load(low, a);
  load(high, b);
  *reinterpret_cast<Vector8*>(low) = a < b ? a : b;
  *reinterpret_cast<Vector8*>(high) = a < b ? b : a;
}
MRFAST_INLINE void store(const Vector8& from, double* to) {
  *reinterpret_cast<Vector8*>(to) = from;
}
#else
struct Vector8 {
  double lane[kLanes];
  double operator[](std::size_t i) const { return lane[i]; }
};
inline Vector8 operator*(const Vector8& a, const Vector8& b) {
  Vector8 out;
  for (std::size_t i = 0; i < kLanes; ++i) out.lane[i] = a.lane[i] * b.lane[i];
  return out;
}
inline Vector8& operator+=(Vector8& a, const Vector8& b) {
  for (std::size_t i = 0; i < kLanes; ++i) a.lane[i] += b.lane[i];
  return a;
}
inline void exchange(double* low, double* high) {
  for (std::size_t i = 0; i < kLanes; ++i) {
    const double a = low[i], b = high[i];
    low[i] = a < b ? a : b;
    high[i] = a < b ? b : a;
  }
}
inline void load(const double* from, Vector8& to) {
  for (std::size_t i = 0; i < kLanes; ++i) to.lane[i] = from[i];
}
inline void store(const Vector8& from, double* to) {
  for (std::size_t i = 0; i < kLanes; ++i) to[i] = from.lane[i];
}
#endif

MRFAST_INLINE void fill(double value, Vector8& to) {
  const double lanes[kLanes] = {value, value, value, value, value, value, value, value};
  load(lanes, to);
}

MRFAST_INLINE double sum_of_lanes(const Vector8& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

}  // namespace mrfast
