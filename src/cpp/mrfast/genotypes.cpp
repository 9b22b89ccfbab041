#include "mrfast/genotypes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "mrfast/dispatch.hpp"

namespace mrfast {

namespace {

constexpr std::uint64_t kEven = 0x5555555555555555u;
constexpr std::size_t kWord = 64;

// 32 persons, two bits each; persons after the last are zeros.
std::uint64_t packed_word(const std::uint8_t* row, std::size_t bytes, std::size_t from) {
  std::uint64_t word = 0;
  const std::size_t count = from < bytes ? std::min<std::size_t>(8, bytes - from) : 0;
  for (std::size_t k = 0; k < count; ++k)
    word |= static_cast<std::uint64_t>(row[from + k]) << (8 * k);
  return word;
}

std::int64_t count_bits(const std::uint64_t* words, std::size_t n) {
  std::int64_t count = 0;
  for (std::size_t w = 0; w < n; ++w) count += std::popcount(words[w]);
  return count;
}

// Sum of products of copies; with both: sums of either over the persons that have both.
struct PairSums {
  std::int64_t products = 0, persons = 0;
  std::int64_t one_x = 0, two_x = 0, one_y = 0, two_y = 0;
};

MRFAST_DISPATCH
void sum_products(const std::uint64_t* x, const std::uint64_t* y, std::size_t words,
                  PairSums& out) {
  std::int64_t single = 0, twice = 0, four = 0;
  for (std::size_t w = 0; w < words; ++w) {
    const std::uint64_t x1 = x[w], x2 = x[words + w], y1 = y[w], y2 = y[words + w];
    single += std::popcount(x1 & y1);
    twice += std::popcount((x1 & y2) | (x2 & y1));  // no person is in both
    four += std::popcount(x2 & y2);
  }
  out.products = single + 2 * twice + 4 * four;
}

MRFAST_DISPATCH
void sum_common(const std::uint64_t* x, const std::uint64_t* y, std::size_t words, PairSums& out) {
  std::int64_t persons = 0, one_x = 0, two_x = 0, one_y = 0, two_y = 0;
  for (std::size_t w = 0; w < words; ++w) {
    const std::uint64_t has_x = x[2 * words + w], has_y = y[2 * words + w];
    persons += std::popcount(has_x & has_y);
    one_x += std::popcount(x[w] & has_y);
    two_x += std::popcount(x[words + w] & has_y);
    one_y += std::popcount(y[w] & has_x);
    two_y += std::popcount(y[words + w] & has_x);
  }
  out.persons = persons;
  out.one_x = one_x;
  out.two_x = two_x;
  out.one_y = one_y;
  out.two_y = two_y;
}

template <class Correlate>
void clump_group(const ClumpProblem& problem, std::size_t group, const Correlate& correlate,
                 std::int64_t* index, double* correlation, Monitor& monitor) {
  const std::int64_t first = problem.offsets[group], last = problem.offsets[group + 1];
  const std::int64_t* const position = problem.position;
  for (std::int64_t k = first; k < last; ++k) {
    const std::int64_t lead = problem.order[k];
    if (index[lead] >= 0) continue;
    index[lead] = lead;
    correlation[lead] = 1;
    const std::int64_t at = position[lead];
    const std::int64_t from =
        std::lower_bound(position + first, position + last, at - problem.reach) - position;
    for (std::int64_t j = from; j < last && position[j] - at <= problem.reach; ++j) {
      if (index[j] >= 0) continue;
      const double r = correlate(problem.variant[lead], problem.variant[j]);
      if (problem.r2 == 0 || r * r >= problem.r2) {
        index[j] = lead;
        correlation[j] = r;
      }
      if (j % 256 == 0 && monitor.step()) return;
    }
    if (monitor.step()) return;
  }
}

template <class Correlate>
void clump(const ClumpProblem& problem, const Correlate& correlate, std::int64_t* index,
           double* correlation, std::size_t threads, Monitor& monitor) {
  const auto n = static_cast<std::size_t>(problem.offsets[problem.groups]);
  std::fill(index, index + n, std::int64_t{-1});
  parallel_for(problem.groups, threads, monitor, [&](std::size_t group) {
    clump_group(problem, group, correlate, index, correlation, monitor);
  });
}

}  // namespace

GenotypePlanes::GenotypePlanes(const std::uint8_t* packed, std::size_t variants,
                               std::size_t persons, const bool* keep)
    : words_((persons + kWord - 1) / kWord), planes_(variants * 3 * words_), sums_(variants) {
  // Bit 2k of a word is person k of the 64, bit 2k + 1 person 32 + k.
  std::vector<std::uint64_t> counts(words_);
  for (std::size_t i = 0; i < persons; ++i) {
    if (!keep[i]) continue;
    const std::size_t k = i % kWord;
    counts[i / kWord] |= std::uint64_t{1} << (2 * (k % 32) + k / 32);
    ++persons_;
  }
  const std::size_t bytes = (persons + 3) / 4;
  for (std::size_t v = 0; v < variants; ++v) {
    const std::uint8_t* const row = packed + v * bytes;
    std::uint64_t* const one = planes_.data() + v * 3 * words_;
    std::uint64_t *const two = one + words_, *const has = two + words_;
    for (std::size_t w = 0; w < words_; ++w) {
      const std::uint64_t first = packed_word(row, bytes, 16 * w),
                          second = packed_word(row, bytes, 16 * w + 8);
      const std::uint64_t low = (first & kEven) | ((second & kEven) << 1),
                          high = ((first >> 1) & kEven) | (second & ~kEven);
      // 00 two copies, 10 one, 11 none, 01 (low bit alone) missing
      one[w] = high & ~low & counts[w];
      two[w] = ~high & ~low & counts[w];
      has[w] = ~(low & ~high) & counts[w];
    }
    const std::int64_t ones = count_bits(one, words_), twos = count_bits(two, words_);
    sums_[v] = {count_bits(has, words_), ones + 2 * twos, ones + 4 * twos};
  }
}

double GenotypePlanes::correlation(std::size_t i, std::size_t j) const {
  const std::uint64_t *const x = planes_.data() + i * 3 * words_, *const y = planes_.data() +
                                                                             j * 3 * words_;
  PairSums pair;
  sum_products(x, y, words_, pair);
  CopySums own = sums_[i], other = sums_[j];
  if (own.persons < persons_ || other.persons < persons_) {
    sum_common(x, y, words_, pair);
    own = {pair.persons, pair.one_x + 2 * pair.two_x, pair.one_x + 4 * pair.two_x};
    other = {pair.persons, pair.one_y + 2 * pair.two_y, pair.one_y + 4 * pair.two_y};
  }
  const std::int64_t n = own.persons;
  const std::int64_t spread_x = n * own.squares - own.copies * own.copies,
                     spread_y = n * other.squares - other.copies * other.copies;
  if (spread_x <= 0 || spread_y <= 0) return std::numeric_limits<double>::quiet_NaN();
  const auto common = static_cast<double>(n * pair.products - own.copies * other.copies);
  return common / std::sqrt(static_cast<double>(spread_x) * static_cast<double>(spread_y));
}

void genotype_correlations(const GenotypePlanes& planes, double* matrix, std::size_t threads,
                           Monitor& monitor) {
  const std::size_t n = planes.variants();
  parallel_for(n, threads, monitor, [&](std::size_t i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double r = planes.correlation(i, j);
      matrix[i * n + j] = r;
      matrix[j * n + i] = r;
      if (j % 256 == 0 && monitor.step()) return;
    }
  });
}

void clump_by_genotypes(const ClumpProblem& problem, const GenotypePlanes& planes,
                        std::int64_t* index, double* correlation, std::size_t threads,
                        Monitor& monitor) {
  clump(
      problem,
      [&](std::int64_t i, std::int64_t j) {
        return planes.correlation(static_cast<std::size_t>(i), static_cast<std::size_t>(j));
      },
      index, correlation, threads, monitor);
}

void clump_by_matrix(const ClumpProblem& problem, const double* matrix, std::size_t n,
                     std::int64_t* index, double* correlation, std::size_t threads,
                     Monitor& monitor) {
  clump(
      problem,
      [&](std::int64_t i, std::int64_t j) {
        if (matrix == nullptr) return std::numeric_limits<double>::quiet_NaN();
        return matrix[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)];
      },
      index, correlation, threads, monitor);
}

}  // namespace mrfast
