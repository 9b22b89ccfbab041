// Counter-based random numbers: Philox4x32-10.
// Salmon, Moraes, Dror, Shaw (2011), SC '11, doi:10.1145/2063384.2063405.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mrfast {

class Philox {
 public:
  using Counter = std::array<std::uint32_t, 4>;
  using Key = std::array<std::uint32_t, 2>;

  // Streams of one seed are independent of each other.
  Philox(std::uint64_t seed, std::uint64_t stream)
      : key_{low(seed), high(seed)}, counter_{0, 0, low(stream), high(stream)} {}

  static Counter block(Counter c, Key k) {
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
      c = {high(p1) ^ c[1] ^ k[0], low(p1), high(p0) ^ c[3] ^ k[1], low(p0)};
      k[0] += 0x9E3779B9u;
      k[1] += 0xBB67AE85u;
    }
    return c;
  }

  std::uint64_t next() {
    if (position_ == 0) {
      buffer_ = block(counter_, key_);
      if (++counter_[0] == 0) ++counter_[1];
    }
    const std::uint64_t out =
        (std::uint64_t{buffer_[position_ + 1]} << 32) | std::uint64_t{buffer_[position_]};
    position_ = position_ == 0 ? 2 : 0;
    return out;
  }

  // Uniform on [0, 1) with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  std::size_t below(std::size_t n) {
    const auto i = static_cast<std::size_t>(uniform() * static_cast<double>(n));
    return i < n ? i : n - 1;
  }

 private:
  static std::uint32_t low(std::uint64_t v) { return static_cast<std::uint32_t>(v); }
  static std::uint32_t high(std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); }

  Key key_;
  Counter counter_;
  Counter buffer_{};
  std::size_t position_ = 0;
};

}  // namespace mrfast
