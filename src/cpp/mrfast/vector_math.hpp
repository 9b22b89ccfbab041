// Exponentials and products of many numbers in loops that compilers turn into vector code.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#if defined(__GNUC__) || defined(__clang__)
#define MRFAST_INLINE inline __attribute__((always_inline))
#else
#define MRFAST_INLINE inline
#endif

namespace mrfast {

inline constexpr std::size_t kLanes = 8;  // doubles side by side in the loops below

// exp(x) for x <= 709, within 2 units in the last place; 0 within 1e-307 below -708. No branches
// and no calls, so that loops over it vectorise.
MRFAST_INLINE double fast_exp(double x) {
  constexpr double kShift = 0x1.8p52;
  x = x < -708.0 ? -708.0 : x;
  const double shifted = x * 0x1.71547652b82fep0 + kShift;  // log2(e)
  const double k = shifted - kShift;
  const double r = (x - k * 0x1.62e42fefa0000p-1) - k * 0x1.cf79abc9e3b3ap-40;  // log(2), split
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const auto bits = (std::bit_cast<std::uint64_t>(shifted) + 1023) << 52;
  return p * std::bit_cast<double>(bits);
}

// Sum of logarithms of positive normal numbers as the logarithm of running products, one per lane,
// their exponents kept apart: one logarithm per lane in all.
struct LogProduct {
  double product[kLanes];
  double exponent[kLanes];

  MRFAST_INLINE LogProduct() {
    for (std::size_t l = 0; l < kLanes; ++l) {
      product[l] = 1.0;
      exponent[l] = 0.0;
    }
  }
  // Moves the exponents out; to be called before a product may leave the normal numbers.
  MRFAST_INLINE void renormalise() {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const auto bits = std::bit_cast<std::uint64_t>(product[l]);
      const std::uint64_t biased = bits >> 52;
      // 2^52 + biased exponent as a double, without a conversion that does not vectorise.
      exponent[l] += std::bit_cast<double>(biased | 0x4330000000000000ULL) - (0x1p52 + 1023.0);
      product[l] = std::bit_cast<double>((bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
    }
  }
  double log() {
    renormalise();
    double sum = 0, exponents = 0;
    for (std::size_t l = 0; l < kLanes; ++l) {
      sum += std::log(product[l]);
      exponents += exponent[l];
    }
    return sum + exponents * 0x1.62e42fefa39efp-1;
  }
};

}  // namespace mrfast
