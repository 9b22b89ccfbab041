// One model of a block of correlated candidates at a fixed node, with the moves of a sampler over
// models. Notation as in ld_gibbs.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/lanes.hpp"
#include "mrfast/random.hpp"

namespace mrfast {

// Members of a model.
using Members = std::vector<std::uint32_t>;

// A model of one block at one node: its candidates may be taken in and out.
class BlockModel {
 public:
  explicit BlockModel(std::size_t size)
      : size_(size),
        in_(size_, 0),
        local_(packed(size_) + 2 * size_),
        factor_(packed(size_)),
        z_(size_),
        column_(size_) {}

  std::size_t size() const { return size_; }
  std::size_t slabs() const { return members_.size(); }
  bool contains(std::size_t j) const { return in_[j] != 0; }
  std::size_t member(std::size_t i) const { return members_[i]; }
  const Members& members() const { return members_; }

  // G (packed), w and gain at the node; after a change of them moved() is to be called.
  std::vector<double>& local() { return local_; }
  void moved() {
    std::sort(members_.begin(), members_.end());
    factorise(0);
  }

  // Logarithm of the odds of candidate j, which is out, to be in.
  double log_odds(std::size_t j) {
    const std::size_t k = members_.size();
    double pivot = g(j, j);
    double w = local_[packed(size_) + j];
    solve(j);
    for (std::size_t a = 0; a < k; ++a) {
      pivot -= column_[a] * column_[a];
      w -= column_[a] * z_[a];
    }
    pivot = std::max(pivot, 1.0);
    return 0.5 * (w * w / pivot - std::log(pivot)) + local_[packed(size_) + size_ + j];
  }

  void take_in(std::size_t j) {
    in_[j] = 1;
    members_.push_back(static_cast<std::uint32_t>(j));
    factorise(members_.size() - 1);
  }

  void take_out(std::size_t j) {
    in_[j] = 0;
    const auto at = std::find(members_.begin(), members_.end(), j);
    const auto from = static_cast<std::size_t>(at - members_.begin());
    members_.erase(at);
    factorise(from);
  }

  // Adds the posterior means of the effects and of their squares.
  void add_effects(double spike, double slab, const double* means, double* mean_sum,
                   double* square_sum) {
    const std::size_t k = members_.size();
    const double difference = slab - spike, root = std::sqrt(difference);
    std::vector<double> x(z_.begin(), z_.begin() + static_cast<std::ptrdiff_t>(k));
    for (std::size_t a = k; a-- > 0;) {  // G_SS^-1 w_S
      x[a] *= factor_[packed(a) + a];
      for (std::size_t b = 0; b < a; ++b) x[b] -= factor_[packed(a) + b] * x[a];
    }
    for (std::size_t j = 0; j < size_; ++j) {
      solve(j, contains(j));
      const double mean = means == nullptr ? 0.0 : means[j];
      double vector = local_[packed(size_) + j] - mean / root, diagonal = g(j, j) - 1.0;
      for (std::size_t a = 0; a < k; ++a) {
        const double unit = members_[a] == j ? 1.0 : 0.0;
        vector -= (g(j, members_[a]) - unit) * x[a];
        diagonal -= column_[a] * column_[a];
      }
      const double variance = contains(j) ? slab : spike;
      const double effect = (contains(j) ? mean : 0.0) + variance * vector / root;
      mean_sum[j] += effect;
      square_sum[j] += effect * effect + variance * (1.0 - variance * diagonal / difference);
    }
  }

 private:
  double g(std::size_t i, std::size_t j) const {
    return i < j ? local_[packed(j) + i] : local_[packed(i) + j];
  }

  // column_ = L^-1 (G_Sj, less 1 at j itself where less_unit).
  void solve(std::size_t j, bool less_unit = false) {
    for (std::size_t a = 0; a < members_.size(); ++a) {
      double x = g(members_[a], j) - (less_unit && members_[a] == j ? 1.0 : 0.0);
      const double* const row = factor_.data() + packed(a);
      for (std::size_t b = 0; b < a; ++b) x -= row[b] * column_[b];
      column_[a] = x * row[a];
    }
  }

  // Rows of the Cholesky factor from one on, their diagonals inverted.
  void factorise(std::size_t from) {
    for (std::size_t a = from; a < members_.size(); ++a) {
      const std::size_t j = members_[a];
      double* const row = factor_.data() + packed(a);
      double pivot = g(j, j), w = local_[packed(size_) + j];
      for (std::size_t b = 0; b < a; ++b) {
        const double* const other = factor_.data() + packed(b);
        double x = g(j, members_[b]);
        for (std::size_t c = 0; c < b; ++c) x -= row[c] * other[c];
        row[b] = x * other[b];
        pivot -= row[b] * row[b];
        w -= row[b] * z_[b];
      }
      row[a] = inverse_root(pivot);
      z_[a] = w * row[a];
    }
  }

  std::size_t size_;
  std::vector<char> in_;
  Members members_;
  std::vector<double> local_;  // G, w and gain at the node
  std::vector<double> factor_, z_, column_;
};

// Bits of a model of all blocks.
using Key = std::vector<std::uint64_t>;

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t h = 0x9E3779B97F4A7C15u;
    for (const std::uint64_t word : key) {
      h ^= word;
      h *= 0xBF58476D1CE4E5B9u;
      h ^= h >> 31;
    }
    return static_cast<std::size_t>(h);
  }
};

inline double probability(double log_odds) { return 1.0 / (1.0 + std::exp(-log_odds)); }

struct MoveCounts {
  std::uint64_t flips_proposed = 0, flips_accepted = 0, swaps_proposed = 0, swaps_accepted = 0;

  double flip_rate() const { return rate(flips_accepted, flips_proposed); }
  double swap_rate() const { return rate(swaps_accepted, swaps_proposed); }

 private:
  static double rate(std::uint64_t accepted, std::uint64_t proposed) {
    return proposed == 0 ? 0.0 : static_cast<double>(accepted) / static_cast<double>(proposed);
  }
};

// Proposes to take every candidate in or out; adds the probabilities to be in, given all others.
inline void flip_all(BlockModel& model, Philox& random, MoveCounts& counts, double* inclusion) {
  for (std::size_t j = 0; j < model.size(); ++j) {
    const bool was_in = model.contains(j);
    if (was_in) model.take_out(j);
    const double odds = model.log_odds(j);
    if (inclusion != nullptr) inclusion[j] += probability(odds);
    const double ratio = was_in ? -odds : odds;  // of the flipped model to this one
    const bool accepted = ratio >= 0 || random.uniform() < std::exp(ratio);
    if (was_in != accepted) model.take_in(j);
    ++counts.flips_proposed;
    if (accepted) ++counts.flips_accepted;
  }
}

// For every slab proposes to exchange one for another candidate.
inline void swap_all(BlockModel& model, Philox& random, MoveCounts& counts) {
  const std::size_t k = model.slabs(), size = model.size();
  if (k == 0 || k == size) return;
  for (std::size_t i = 0; i < k; ++i) {
    const std::size_t out = model.member(random.below(k));
    std::size_t in = random.below(size - k);
    for (std::size_t j = 0; j < size; ++j) {
      if (model.contains(j)) continue;
      if (in == 0) {
        in = j;
        break;
      }
      --in;
    }
    model.take_out(out);
    const double ratio = model.log_odds(in) - model.log_odds(out);
    const bool accepted = ratio >= 0 || random.uniform() < std::exp(ratio);
    model.take_in(accepted ? in : out);
    ++counts.swaps_proposed;
    if (accepted) ++counts.swaps_accepted;
  }
}

}  // namespace mrfast
