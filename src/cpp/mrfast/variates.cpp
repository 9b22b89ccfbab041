#include "mrfast/variates.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kPerCall = 2 * kLanes;  // numbers of 64 bits from eight blocks
constexpr std::size_t kBlock = 1 << 16;       // rows between two looks at the monitor

double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

// The 52 bits of a word, in (0, 1].
MRFAST_INLINE double above_zero(std::uint64_t word) {
  return 2 - std::bit_cast<double>((word >> 12) | 0x3ff0000000000000ULL);
}

MRFAST_DISPATCH void normal_block(const NormalStream& stream, std::uint32_t column,
                                  std::uint32_t first, std::size_t calls, double* out) {
  for (std::size_t k = 0; k < calls; ++k, out += kPerCall)
    normal_pairs(stream, column, first + static_cast<std::uint32_t>(k * kLanes), out, out + kLanes);
}

MRFAST_DISPATCH void uniform_block(const NormalStream& stream, std::uint32_t column,
                                   std::uint32_t first, std::size_t calls, double* out) {
  std::uint64_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (std::size_t k = 0; k < calls; ++k, out += kPerCall) {
    philox_draws(stream, column, first + static_cast<std::uint32_t>(k * kLanes), c0, c1, c2, c3);
    for (std::size_t l = 0; l < kLanes; ++l) {
      // 53 bits in two exact steps that vectorise: the upper 52, and the last.
      const std::uint64_t a = (c1[l] << 32) | c0[l], b = (c3[l] << 32) | c2[l];
      const double half = 0x1.0p-53;
      out[l] = (1 - above_zero(a)) + ((a >> 11) & 1 ? half : 0.0);
      out[kLanes + l] = (1 - above_zero(b)) + ((b >> 11) & 1 ? half : 0.0);
    }
  }
}

MRFAST_DISPATCH void exponential_block(const NormalStream& stream, std::uint32_t column,
                                       std::uint32_t first, std::size_t calls, double* out) {
  std::uint64_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (std::size_t k = 0; k < calls; ++k, out += kPerCall) {
    philox_draws(stream, column, first + static_cast<std::uint32_t>(k * kLanes), c0, c1, c2, c3);
    for (std::size_t l = 0; l < kLanes; ++l) {
      out[l] = -fast_log(above_zero((c1[l] << 32) | c0[l]));
      out[kLanes + l] = -fast_log(above_zero((c3[l] << 32) | c2[l]));
    }
  }
}

// Rows in calls of sixteen; the last ones from a call that is not used up.
template <class Draw>
void by_blocks(const Draw& draw, const NormalStream& stream, std::uint32_t column, std::size_t n,
               double* out, Monitor& monitor) {
  for (std::size_t start = 0; start < n && !monitor.step(); start += kBlock) {
    const std::size_t rows = std::min(kBlock, n - start), calls = rows / kPerCall;
    const auto first = static_cast<std::uint32_t>(start / 2);
    draw(stream, column, first, calls, out + start);
    const std::size_t done = calls * kPerCall;
    if (done < rows) {
      double rest[kPerCall];
      draw(stream, column, first + static_cast<std::uint32_t>(done / 2), 1, rest);
      std::copy_n(rest, rows - done, out + start + done);
    }
  }
}

// Numbers of one row, as many as it takes.
class RowNumbers {
 public:
  RowNumbers(const NormalStream& stream, std::uint32_t row)
      : key_(stream.key), counter_{0, row, stream.set, stream.purpose} {}

  double uniform() {
    if (!spare_) {
      words_ = Philox::block(counter_, key_);
      ++counter_[0];
    }
    const std::size_t at = spare_ ? 2 : 0;
    spare_ = !spare_;
    return unit((std::uint64_t{words_[at + 1]} << 32) | words_[at]);
  }
  double normal() {
    for (;;) {  // polar method
      const double x = 2 * uniform() - 1, y = 2 * uniform() - 1, s = x * x + y * y;
      if (s > 0 && s < 1) return x * std::sqrt(-2 * std::log(s) / s);
    }
  }
  // Logarithm of a Gamma(shape, 1) variate, which itself may be too small for a double.
  double log_gamma_variate(double shape) {
    const double boosted = shape < 1 ? shape + 1 : shape;
    const double d = boosted - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), cube = 1 + c * x;
      if (cube <= 0) continue;
      const double v = cube * cube * cube;
      if (std::log(1 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
        return std::log(d * v) + (shape < 1 ? std::log(1 - uniform()) / shape : 0.0);
    }
  }

 private:
  Philox::Key key_;
  Philox::Counter counter_, words_{};
  bool spare_ = false;
};

// Row 4 d + w and column j of the dosages take word w of the block with the counter (j, d).
constexpr std::size_t kWords = 4;
constexpr std::size_t kDosages = kWords * kLanes;  // rows that are drawn together
constexpr std::size_t kFewColumns = 4;             // fewer are drawn one by one

// Rows 4 first_draw, ... of columns `from`, ..., eight columns at a time.
MRFAST_DISPATCH void wide_dosages(const NormalStream& stream, const std::uint64_t* one,
                                  const std::uint64_t* two, std::size_t from, std::size_t columns,
                                  std::uint32_t first_draw, std::size_t rows, std::int8_t* out) {
  std::uint64_t c[kWords][kLanes];
  std::int8_t drawn[kWords][kLanes];
  const std::size_t width = std::min(kLanes, columns - from);
  for (std::size_t i = 0; i < rows; i += kWords) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      c[0][l] = from + l;
      c[1][l] = first_draw + i / kWords;
    }
    philox_blocks(stream, c[0], c[1], c[2], c[3]);
    for (std::size_t w = 0; w < kWords; ++w)
      for (std::size_t l = 0; l < kLanes; ++l)
        drawn[w][l] =
            static_cast<std::int8_t>((c[w][l] < one[from + l]) + (c[w][l] < two[from + l]));
    const std::size_t last = std::min(kWords, rows - i);
    for (std::size_t w = 0; w < last; ++w)
      std::memcpy(out + (i + w) * columns + from, drawn[w], width);
  }
}

// The same for one column, eight blocks of rows at a time.
MRFAST_DISPATCH void narrow_dosages(const NormalStream& stream, std::uint64_t one,
                                    std::uint64_t two, std::size_t column, std::size_t columns,
                                    std::uint32_t first_draw, std::size_t rows, std::int8_t* out) {
  std::uint64_t c[kWords][kLanes];
  std::uint32_t drawn[kLanes];  // four rows each, the first in the lowest byte
  for (std::size_t i = 0; i < rows; i += kDosages) {
    philox_draws(stream, static_cast<std::uint32_t>(column),
                 first_draw + static_cast<std::uint32_t>(i / kWords), c[0], c[1], c[2], c[3]);
    for (std::size_t l = 0; l < kLanes; ++l) {
      std::uint64_t four = 0;
      for (std::size_t w = 0; w < kWords; ++w)
        four |= (std::uint64_t{c[w][l] < one} + std::uint64_t{c[w][l] < two}) << (8 * w);
      drawn[l] = static_cast<std::uint32_t>(four);
    }
    if (columns == 1 && rows - i >= kDosages && std::endian::native == std::endian::little) {
      std::memcpy(out + i, drawn, kDosages);
      continue;
    }
    const std::size_t last = std::min(kDosages, rows - i);
    for (std::size_t k = 0; k < last; ++k)
      out[(i + k) * columns + column] =
          static_cast<std::int8_t>((drawn[k / kWords] >> (8 * (k % kWords))) & 3);
  }
}

MRFAST_DISPATCH void weighted_rows(const std::int8_t* dosages, const double* weights,
                                   std::size_t columns, std::size_t n, double* out) {
  const std::size_t whole = columns / kLanes * kLanes;
  for (std::size_t i = 0; i < n; ++i, dosages += columns) {
    double sums[kLanes] = {0};
    for (std::size_t j = 0; j < whole; j += kLanes)
      for (std::size_t l = 0; l < kLanes; ++l) sums[l] += weights[j + l] * dosages[j + l];
    double total =
        ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    for (std::size_t j = whole; j < columns; ++j) total += weights[j] * dosages[j];
    out[i] = total;
  }
}

}  // namespace

void normal_variates(const NormalStream& stream, std::uint32_t column, std::size_t n, double* out,
                     Monitor& monitor) {
  by_blocks(normal_block, stream, column, n, out, monitor);
}

void uniform_variates(const NormalStream& stream, std::uint32_t column, std::size_t n, double* out,
                      Monitor& monitor) {
  by_blocks(uniform_block, stream, column, n, out, monitor);
}

void exponential_variates(const NormalStream& stream, std::uint32_t column, std::size_t n,
                          double* out, Monitor& monitor) {
  by_blocks(exponential_block, stream, column, n, out, monitor);
}

void beta_variates(const NormalStream& stream, double a, double b, std::size_t n, double* out,
                   Monitor& monitor) {
  for (std::size_t i = 0; i < n; ++i) {
    if (i % 1024 == 0 && monitor.step()) return;
    RowNumbers numbers(stream, static_cast<std::uint32_t>(i));
    const double one = numbers.log_gamma_variate(a), other = numbers.log_gamma_variate(b);
    out[i] = 1 / (1 + std::exp(other - one));
  }
}

void dosage_variates(const NormalStream& stream, const double* frequencies, std::size_t columns,
                     std::size_t n, std::int8_t* out, Monitor& monitor) {
  std::vector<std::uint64_t> one(columns + kLanes), two(columns + kLanes);  // the last ones unused
  for (std::size_t j = 0; j < columns; ++j) {
    const double f = frequencies[j];
    one[j] = static_cast<std::uint64_t>(std::llround(0x1p32 * f * (2 - f)));
    two[j] = static_cast<std::uint64_t>(std::llround(0x1p32 * f * f));
  }
  constexpr std::size_t kRows = 1024;
  for (std::size_t i = 0; i < n && !monitor.step(); i += kRows) {
    const std::size_t rows = std::min(kRows, n - i);
    const auto draw = static_cast<std::uint32_t>(i / kWords);
    for (std::size_t j = 0; j < columns; j += kLanes) {
      if (columns - j > kFewColumns)
        wide_dosages(stream, one.data(), two.data(), j, columns, draw, rows, out + i * columns);
      else
        for (std::size_t k = j; k < columns; ++k)
          narrow_dosages(stream, one[k], two[k], k, columns, draw, rows, out + i * columns);
    }
  }
}

void weighted_dosages(const std::int8_t* dosages, std::ptrdiff_t row_stride,
                      std::ptrdiff_t column_stride, const double* weights, std::size_t columns,
                      std::size_t n, double* out, Monitor& monitor) {
  const auto width = static_cast<std::ptrdiff_t>(columns);
  const bool dense = row_stride == width && (column_stride == 1 || columns == 1);
  std::vector<std::int8_t> copy(dense ? 0 : 1024 * columns);
  for (std::size_t start = 0; start < n && !monitor.step(); start += 1024) {
    const std::size_t rows = std::min<std::size_t>(1024, n - start);
    const std::int8_t* from = dosages + static_cast<std::ptrdiff_t>(start) * row_stride;
    if (!dense) {
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < columns; ++j)
          copy[i * columns + j] = from[static_cast<std::ptrdiff_t>(i) * row_stride +
                                       static_cast<std::ptrdiff_t>(j) * column_stride];
      from = copy.data();
    }
    weighted_rows(from, weights, columns, rows, out + start);
  }
}

}  // namespace mrfast
