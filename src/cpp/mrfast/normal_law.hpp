// The normal distribution function and draws from it, in loops that turn into vector code.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "mrfast/random.hpp"
#include "mrfast/vector_log.hpp"
#include "mrfast/vector_math.hpp"

namespace mrfast {

inline constexpr double kNormalPeak = 0x1.9884533d43651p-2;  // density at 0

// P(Z <= x), its tails within 3e-14 relative; `gauss` is exp(-x^2 / 2). Mills' ratio as
// s P(2 s - 1), s = 5 / (5 + |x|), P the least maximal relative error of degree 18.
MRFAST_INLINE double normal_cdf(double x, double gauss) {
  const double s = 5.0 / (5.0 + std::abs(x));
  const double y = 2 * s - 1;
  double p = -0x1.bd0d91effced3p-28;
  p = p * y - 0x1.ffdfe5b6aca9dp-29;
  p = p * y + 0x1.3b4e3507994f3p-24;
  p = p * y + 0x1.02a7f8f8aef85p-24;
  p = p * y - 0x1.216cc024f4fc4p-21;
  p = p * y - 0x1.a7de8a7fbf4d1p-21;
  p = p * y + 0x1.be6d3b16075b7p-19;
  p = p * y + 0x1.4dd1da41bd33dp-17;
  p = p * y - 0x1.8e5194785e451p-17;
  p = p * y - 0x1.c9169aaec40d2p-14;
  p = p * y - 0x1.4ea72ef152249p-13;
  p = p * y + 0x1.39e0cd4c7645ep-11;
  p = p * y + 0x1.1090ab1a603abp-8;
  p = p * y + 0x1.c4f9d55d4a398p-7;
  p = p * y + 0x1.0e5e8ee3c715cp-5;
  p = p * y + 0x1.00d8ab2d039efp-4;
  p = p * y + 0x1.95c11dc6cc9cfp-4;
  p = p * y + 0x1.108a698eca6e9p-3;
  p = p * y + 0x1.3b0fbcb4c7781p-3;
  const double tail = p * s * gauss;
  return x > 0 ? 1 - tail : tail;
}

// Where normal draws come from: each depends on nothing but these and on its own numbers.
struct NormalStream {
  Philox::Key key;
  std::uint32_t set = 0;      // data set
  std::uint32_t purpose = 0;  // what the draws are for
};

// Philox::block of eight counters (c0, c1, set, purpose), in place.
MRFAST_INLINE void philox_blocks(const NormalStream& stream, std::uint64_t* __restrict c0,
                                 std::uint64_t* __restrict c1, std::uint64_t* __restrict c2,
                                 std::uint64_t* __restrict c3) {
  constexpr std::uint64_t kLow = 0xffffffffULL;
  for (std::size_t l = 0; l < kLanes; ++l) {
    c2[l] = stream.set;
    c3[l] = stream.purpose;
  }
  std::uint32_t k0 = stream.key[0], k1 = stream.key[1];
  for (int round = 0; round < 10; ++round) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0[l];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2[l];
      c0[l] = (p1 >> 32) ^ c1[l] ^ k0;
      c2[l] = (p0 >> 32) ^ c3[l] ^ k1;
      c1[l] = p1 & kLow;
      c3[l] = p0 & kLow;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// The same for the counters (index, first_draw + l, set, purpose).
MRFAST_INLINE void philox_draws(const NormalStream& stream, std::uint32_t index,
                                std::uint32_t first_draw, std::uint64_t* __restrict c0,
                                std::uint64_t* __restrict c1, std::uint64_t* __restrict c2,
                                std::uint64_t* __restrict c3) {
  for (std::size_t l = 0; l < kLanes; ++l) {
    c0[l] = index;
    c1[l] = (std::uint64_t{first_draw} + l) & 0xffffffffULL;
  }
  philox_blocks(stream, c0, c1, c2, c3);
}

// Two normals for each of the draws first_draw, ..., first_draw + 7 of one index: Box-Muller on
// the block with counter (index, draw, set, purpose), 52 bits each for radius and angle.
MRFAST_INLINE void normal_pairs(const NormalStream& stream, std::uint32_t index,
                                std::uint32_t first_draw, double* __restrict first,
                                double* __restrict second) {
  std::uint64_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  philox_draws(stream, index, first_draw, c0, c1, c2, c3);
  for (std::size_t l = 0; l < kLanes; ++l) {
    constexpr std::uint64_t kOne = 0x3ff0000000000000ULL;
    const std::uint64_t a = (c1[l] << 32) | c0[l], b = (c3[l] << 32) | c2[l];
    const double u = 2 - std::bit_cast<double>((a >> 12) | kOne);       // (0, 1]
    const double turn = std::bit_cast<double>((b >> 12) | kOne) - 1.5;  // [-1/2, 1/2)
    const double radius = std::sqrt(-2 * fast_log(u));
    constexpr double kShift = 0x1.8p52;
    const double quarter = (4 * turn + kShift) - kShift;  // -2, ..., 2
    const double x = (turn - 0.25 * quarter) * 0x1.921fb54442d18p+2;
    const double w = x * x;
    double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
    s = s * w + 1.0 / 6227020800.0;
    s = s * w - 1.0 / 39916800.0;
    s = s * w + 1.0 / 362880.0;
    s = s * w - 1.0 / 5040.0;
    s = s * w + 1.0 / 120.0;
    s = s * w - 1.0 / 6.0;
    s = x + x * w * s;
    c = c * w - 1.0 / 87178291200.0;
    c = c * w + 1.0 / 479001600.0;
    c = c * w - 1.0 / 3628800.0;
    c = c * w + 1.0 / 40320.0;
    c = c * w - 1.0 / 720.0;
    c = c * w + 1.0 / 24.0;
    c = c * w - 0.5;
    c = 1 + w * c;
    const bool odd = std::abs(quarter) == 1;
    const double cosine = odd ? s : c, sine = odd ? c : s;
    // Turned by `quarter` right angles.
    const double cosine_sign = (quarter == 1 || std::abs(quarter) == 2) ? -1.0 : 1.0;
    const double sine_sign = (quarter == -1 || std::abs(quarter) == 2) ? -1.0 : 1.0;
    first[l] = radius * cosine_sign * cosine;
    second[l] = radius * sine_sign * sine;
  }
}

}  // namespace mrfast
