// Pairs of standard normal numbers for eight draws at once: Philox4x32-10 and Box-Muller.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "mrfast/random.hpp"
#include "mrfast/vector_log.hpp"

namespace mrfast {

// The generator's rounds in words of 64 bits, of which the upper halves are 0: loops over lanes
// vectorise.
struct PhiloxLane {
  std::uint64_t c0, c1, c2, c3;

  MRFAST_INLINE void round(const Philox::Key& key, std::uint32_t i) {
    constexpr std::uint64_t kLow = 0xffffffffu;
    const std::uint64_t k0 = key[0] + i * 0x9E3779B9u, k1 = key[1] + i * 0xBB67AE85u;
    const std::uint64_t p0 = (c0 & kLow) * 0xD2511F53u, p1 = (c2 & kLow) * 0xCD9E8D57u;
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1 & kLow;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0 & kLow;
  }
};

// Two independent standard normals of each of the draws first, ..., first + 7 for one item and one
// stream. A draw's numbers depend on (key, draw, item, stream) alone: they are the block of the
// generator at the counter {draw low, draw high, item, stream}, its first two words, then its last
// two, as a 52-bit uniform each. Radii reach 8.5. Every number is within 1e-15 of the exact
// transform; no branches and no calls, so that the loops turn into vector code.
MRFAST_INLINE void normal_pairs(Philox::Key key, std::uint64_t first, std::uint32_t item,
                                std::uint32_t stream, double* __restrict z0,
                                double* __restrict z1) {
  std::uint64_t words0[kLanes], words1[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) {
    PhiloxLane lane{static_cast<std::uint32_t>(first + l),
                    static_cast<std::uint32_t>((first + l) >> 32), item, stream};
    lane.round(key, 0);
    lane.round(key, 1);
    lane.round(key, 2);
    lane.round(key, 3);
    lane.round(key, 4);
    lane.round(key, 5);
    lane.round(key, 6);
    lane.round(key, 7);
    lane.round(key, 8);
    lane.round(key, 9);
    words0[l] = lane.c1 << 32 | lane.c0;
    words1[l] = lane.c3 << 32 | lane.c2;
  }
  constexpr double kShift = 0x1.8p52;
  constexpr std::uint64_t kOne = 0x3ff0000000000000ULL;
  for (std::size_t l = 0; l < kLanes; ++l) {
    const std::uint64_t b0 = words0[l] >> 12 | kOne;
    const std::uint64_t b1 = words1[l] >> 12 | kOne;
    const double u = 2.0 - std::bit_cast<double>(b0);  // multiples of 2^-52 in (0, 1]
    const double v = std::bit_cast<double>(b1) - 1.0;  // in [0, 1)
    const double radius = std::sqrt(-2.0 * fast_log(u));
    // The angle 2 pi v = pi / 2 (quarter + rest) with the rest in [-1/2, 1/2].
    const double quarters = 4.0 * v;
    const double shifted = quarters + kShift;
    const std::uint64_t quarter = std::bit_cast<std::uint64_t>(shifted);
    const double t = (quarters - (shifted - kShift)) * 0x1.921fb54442d18p0;
    const double w = t * t;
    double s = 1.0 / 355687428096000.0;
    s = s * w - 1.0 / 1307674368000.0;
    s = s * w + 1.0 / 6227020800.0;
    s = s * w - 1.0 / 39916800.0;
    s = s * w + 1.0 / 362880.0;
    s = s * w - 1.0 / 5040.0;
    s = s * w + 1.0 / 120.0;
    s = s * w - 1.0 / 6.0;
    const double sine = t + t * w * s;
    double c = 1.0 / 20922789888000.0;
    c = c * w - 1.0 / 87178291200.0;
    c = c * w + 1.0 / 479001600.0;
    c = c * w - 1.0 / 3628800.0;
    c = c * w + 1.0 / 40320.0;
    c = c * w - 1.0 / 720.0;
    c = c * w + 1.0 / 24.0;
    c = c * w - 0.5;
    const double cosine = 1.0 + w * c;
    const bool odd = (quarter & 1) != 0;
    const double x = odd ? sine : cosine, y = odd ? cosine : sine;
    // Quarters 1 and 2 have a negative cosine, 2 and 3 a negative sine.
    const std::uint64_t flip_x = ((quarter + 1) & 2) << 62, flip_y = (quarter & 2) << 62;
    z0[l] = radius * std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) ^ flip_x);
    z1[l] = radius * std::bit_cast<double>(std::bit_cast<std::uint64_t>(y) ^ flip_y);
  }
}

}  // namespace mrfast
