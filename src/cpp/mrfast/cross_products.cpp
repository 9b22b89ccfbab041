#include "mrfast/cross_products.hpp"

#include <algorithm>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

constexpr std::size_t kRows = 128;  // of a block: its part of `right` stays in the cache
constexpr std::size_t kTall = 4;    // columns of left and of right whose sums stay in registers
constexpr std::size_t kWide = 16;

// Adds the products of one block of rows to a strip of `out`: packed (rows, kTall) times right.
MRFAST_DISPATCH
void add_strip(const double* packed, const double* right, std::size_t rows, std::size_t m,
               std::size_t tall, double* out) {
  for (std::size_t j = 0; j < m; j += kWide) {
    const std::size_t wide = std::min(kWide, m - j);
    double sums[kTall][kWide] = {};
    if (wide == kWide) {
      for (std::size_t r = 0; r < rows; ++r) {
        const double* const row = right + r * m + j;
        for (std::size_t a = 0; a < kTall; ++a)
          for (std::size_t b = 0; b < kWide; ++b) sums[a][b] += packed[r * kTall + a] * row[b];
      }
    } else {
      for (std::size_t r = 0; r < rows; ++r) {
        const double* const row = right + r * m + j;
        for (std::size_t a = 0; a < kTall; ++a)
          for (std::size_t b = 0; b < wide; ++b) sums[a][b] += packed[r * kTall + a] * row[b];
      }
    }
    for (std::size_t a = 0; a < tall; ++a)
      for (std::size_t b = 0; b < wide; ++b) out[a * m + j + b] += sums[a][b];
  }
}

}  // namespace

void cross_products(const double* left, std::size_t k, const double* right, std::size_t m,
                    const double* weights, std::size_t n, double* out, std::size_t threads,
                    Monitor& monitor) {
  std::fill(out, out + k * m, 0.0);
  const std::size_t strips = (k + kTall - 1) / kTall;
  parallel_for(std::min(threads, strips), threads, monitor, [&](std::size_t part) {
    const std::size_t parts = std::min(threads, strips);
    const std::size_t first = strips * part / parts, last = strips * (part + 1) / parts;
    double packed[kRows * kTall];
    for (std::size_t begin = 0; begin < n; begin += kRows) {
      if (monitor.step()) return;
      const std::size_t rows = std::min(kRows, n - begin);
      for (std::size_t strip = first; strip < last; ++strip) {
        const std::size_t i = strip * kTall, tall = std::min(kTall, k - i);
        for (std::size_t r = 0; r < rows; ++r) {
          const double* const row = left + (begin + r) * k + i;
          const double weight = weights ? weights[begin + r] : 1.0;
          for (std::size_t a = 0; a < kTall; ++a)
            packed[r * kTall + a] = a < tall ? weight * row[a] : 0.0;
        }
        add_strip(packed, right + begin * m, rows, m, tall, out + i * m);
      }
    }
  });
}

}  // namespace mrfast
