// Numbers of eight independent problems side by side, for loops that turn into vector code.
#pragma once

#include "mrfast/vector_math.hpp"

namespace mrfast {

struct alignas(64) Lanes {
  double v[kLanes];
};

// Where row i begins in a lower triangle that is stored row by row.
constexpr std::size_t packed(std::size_t i) { return i * (i + 1) / 2; }

// One over the root of a pivot; pivots of I + a positive matrix are never below 1.
MRFAST_INLINE double inverse_root(double pivot) {
  return 1.0 / std::sqrt(pivot < 1.0 ? 1.0 : pivot);
}

}  // namespace mrfast
