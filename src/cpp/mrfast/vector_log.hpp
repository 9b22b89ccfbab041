// Logarithm for vector loops.
#pragma once

#include <bit>
#include <cstdint>

#include "mrfast/vector_math.hpp"

namespace mrfast {

// log(x) for positive normal x, within 2 units in the last place of max(1, |log x|). No branches
// and no calls, so that loops over it vectorise.
MRFAST_INLINE double fast_log(double x) {
  constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
  // The mantissa in [sqrt(1/2), sqrt(2)): adding the offset moves the border of the exponents.
  constexpr std::uint64_t kBorder = 0x3ff0000000000000ULL - std::bit_cast<std::uint64_t>(kSqrtHalf);
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x) + kBorder;
  const double exponent =
      std::bit_cast<double>((bits >> 52) | 0x4330000000000000ULL) - (0x1p52 + 1023.0);
  const double m = std::bit_cast<double>((bits & 0x000fffffffffffffULL) +
                                         std::bit_cast<std::uint64_t>(kSqrtHalf));
  const double z = (m - 1) / (m + 1);
  const double w = z * z;
  double p = 1.0 / 21;
  p = p * w + 1.0 / 19;
  p = p * w + 1.0 / 17;
  p = p * w + 1.0 / 15;
  p = p * w + 1.0 / 13;
  p = p * w + 1.0 / 11;
  p = p * w + 1.0 / 9;
  p = p * w + 1.0 / 7;
  p = p * w + 1.0 / 5;
  p = p * w + 1.0 / 3;
  return exponent * 0x1.62e42fefa39efp-1 + (2 * z + 2 * z * w * p);
}

}  // namespace mrfast
