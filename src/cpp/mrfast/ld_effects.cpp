// Moments of the effects over all models of a block, by rank-one updates of the inverse of the
// residuals' covariance along the same tree of models as in ld_blocks.cpp.
#include <algorithm>
#include <cmath>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/ld_blocks.hpp"
#include "mrfast/ld_spectrum.hpp"

namespace mrfast {

namespace {

// Inverse of the covariance of the residuals under a model, and its product with the residuals.
struct EffectState {
  const Lanes* inverse;  // (B (B + 1) / 2,)
  const Lanes* vector;   // (B,)
  const Lanes* scalars;  // exponent, factor
};

struct EffectSums {
  explicit EffectSums(std::size_t size) : mean(size), inclusion(size), second(packed(size)) {
    buffers.resize((size + 1) * (packed(size) + size + 2));
  }
  std::vector<Lanes> mean, inclusion, second, buffers;
};

// One rank-one update: candidate j gets a slab.
MRFAST_INLINE void take_in(const EffectState& in, std::size_t size, std::size_t j,
                           const Lanes& difference, const Lanes& mean, double log_odds,
                           Lanes* inverse, Lanes* vector, Lanes* scalars) {
  Lanes column[kMaxBlock], gain, scaled;
  for (std::size_t i = 0; i < size; ++i)
    column[i] = in.inverse[i < j ? packed(j) + i : packed(i) + j];
  Lanes exponent = in.scalars[0], factor = in.scalars[1];
  const Lanes r = in.vector[j], diagonal = column[j];
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double d = difference.v[l];
    const double root = inverse_root(1.0 + d * diagonal.v[l]);
    const double h = d * r.v[l] + mean.v[l];
    scaled.v[l] = h * root * root;
    gain.v[l] = d * root * root;
    exponent.v[l] += 0.5 * (h * scaled.v[l] - mean.v[l] * mean.v[l]) / d + log_odds;
    factor.v[l] *= root;
  }
  scalars[0] = exponent;
  scalars[1] = factor;
  for (std::size_t a = 0; a < size; ++a) {
    Lanes f = column[a], w = in.vector[a];
    for (std::size_t l = 0; l < kLanes; ++l) {
      w.v[l] -= scaled.v[l] * f.v[l];
      f.v[l] *= gain.v[l];
    }
    vector[a] = w;
    for (std::size_t b = 0; b <= a; ++b) {
      Lanes x = in.inverse[packed(a) + b];
      const Lanes y = column[b];
      for (std::size_t l = 0; l < kLanes; ++l) x.v[l] -= f.v[l] * y.v[l];
      inverse[packed(a) + b] = x;
    }
  }
}

// Sums over all models, weighted with the prior odds, the coefficients (B + 1) by the number of
// slabs, and the likelihood divided by exp(log_scale).
MRFAST_DISPATCH void sum_effects(EffectSums& sums, const Block& block,
                                 const BlockNode* const* nodes, const double* log_odds,
                                 const Lanes& log_scale, const Lanes* coefficients) {
  const std::size_t size = block.size, stride = packed(size) + size + 2;
  Spectrum spectrum;
  decompose(spectrum, block, nodes);
  const auto zero = [](std::vector<Lanes>& lanes) {
    std::fill(lanes.begin(), lanes.end(), Lanes{});
  };
  zero(sums.mean);
  zero(sums.inclusion);
  zero(sums.second);
  const auto state_at = [&](std::size_t i) { return sums.buffers.data() + i * stride; };

  Lanes means[kMaxBlock], spike, slab;
  Lanes* first = state_at(size);
  for (std::size_t j = 0; j < size; ++j) {
    for (std::size_t i = 0; i <= j; ++i) first[packed(j) + i] = precision_of(block, j, i, spectrum);
    first[packed(size) + j] = rotate_back(block, j, spectrum.rotated);
    for (std::size_t l = 0; l < kLanes; ++l)
      means[j].v[l] = nodes[l]->means == nullptr ? 0.0 : nodes[l]->means[j];
  }
  for (std::size_t l = 0; l < kLanes; ++l) {
    spike.v[l] = nodes[l]->spike;
    slab.v[l] = nodes[l]->slab;
    first[stride - 2].v[l] = spectrum.log_spikes.v[l] - 0.5 * spectrum.square.v[l] - log_scale.v[l];
    first[stride - 1].v[l] = 1.0;
  }
  const Lanes* at[kMaxBlock + 1];
  bool in[kMaxBlock];
  at[0] = first;
  for (std::size_t depth = 0;;) {
    for (; depth < size; ++depth) {
      in[depth] = false;
      at[depth + 1] = at[depth];
    }
    const Lanes* const state = at[depth];
    std::size_t slabs = 0;
    for (std::size_t a = 0; a < size; ++a) slabs += in[a] ? 1 : 0;
    const Lanes exponent = state[stride - 2], factor = state[stride - 1];
    Lanes weight = coefficients[slabs], variance[kMaxBlock], effect[kMaxBlock];
    for (std::size_t l = 0; l < kLanes; ++l) weight.v[l] *= factor.v[l] * fast_exp(exponent.v[l]);
    for (std::size_t a = 0; a < size; ++a) {
      const Lanes r = state[packed(size) + a];
      variance[a] = in[a] ? slab : spike;
      Lanes mean = sums.mean[a], inside = sums.inclusion[a];
      const double slab_here = in[a] ? 1.0 : 0.0;
      for (std::size_t l = 0; l < kLanes; ++l) {
        effect[a].v[l] = slab_here * means[a].v[l] + variance[a].v[l] * r.v[l];
        mean.v[l] += weight.v[l] * effect[a].v[l];
        inside.v[l] += slab_here * weight.v[l];
      }
      sums.mean[a] = mean;
      sums.inclusion[a] = inside;
      for (std::size_t b = 0; b <= a; ++b) {
        const Lanes s = state[packed(a) + b];
        Lanes second = sums.second[packed(a) + b];
        const double unit = a == b ? 1.0 : 0.0;
        for (std::size_t l = 0; l < kLanes; ++l)
          second.v[l] += weight.v[l] * (effect[a].v[l] * effect[b].v[l] +
                                        variance[a].v[l] * (unit - s.v[l] * variance[b].v[l]));
        sums.second[packed(a) + b] = second;
      }
    }
    while (depth > 0 && in[depth - 1]) --depth;
    if (depth == 0) break;
    --depth;
    in[depth] = true;
    Lanes* const to = state_at(depth);
    take_in({at[depth], at[depth] + packed(size), at[depth] + (stride - 2)}, size, depth,
            spectrum.difference, means[depth], log_odds == nullptr ? 0.0 : log_odds[depth], to,
            to + packed(size), to + (stride - 2));
    at[depth + 1] = to;
    ++depth;
  }
}

}  // namespace

void add_effect_sums(const Block& block, const BlockNode* nodes, std::size_t count,
                     const double* log_odds, const double* log_scale, const double* coefficients,
                     double* inclusion, double* mean, double* square) {
  const std::size_t size = block.size;
  EffectSums sums(size);
  for (std::size_t done = 0; done < count; done += kLanes) {
    const std::size_t taken = std::min(kLanes, count - done);
    const BlockNode* lanes[kLanes];
    Lanes scale, by_slabs[kMaxBlock + 1];
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t node = done + std::min(l, taken - 1);
      lanes[l] = nodes + node;
      scale.v[l] = log_scale[node];
      for (std::size_t k = 0; k <= size; ++k)
        by_slabs[k].v[l] = coefficients == nullptr ? 1.0 : coefficients[node * (size + 1) + k];
    }
    sum_effects(sums, block, lanes, log_odds, scale, by_slabs);
    for (std::size_t l = 0; l < taken; ++l) {
      const std::size_t node = done + l;
      for (std::size_t a = 0; a < size; ++a) {
        mean[node * size + a] += sums.mean[a].v[l];
        inclusion[node * size + a] += sums.inclusion[a].v[l];
        for (std::size_t b = 0; b <= a; ++b) {
          const double value = sums.second[packed(a) + b].v[l];
          square[(node * size + a) * size + b] += value;
          if (b < a) square[(node * size + b) * size + a] += value;
        }
      }
    }
  }
}

void block_effects(const Block& block, const BlockNode* nodes, std::size_t count,
                   const double* log_odds, double* log_evidence, double* inclusion, double* mean,
                   double* covariance) {
  const std::size_t size = block.size;
  const double prior = log_total_odds(log_odds, size);
  sum_block(block, nodes, count, log_odds, log_evidence, nullptr);
  std::vector<double> log_scale(log_evidence, log_evidence + count);
  for (double& x : log_scale) x += prior;
  std::fill(inclusion, inclusion + count * size, 0.0);
  std::fill(mean, mean + count * size, 0.0);
  std::fill(covariance, covariance + count * size * size, 0.0);
  add_effect_sums(block, nodes, count, log_odds, log_scale.data(), nullptr, inclusion, mean,
                  covariance);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t a = 0; a < size; ++a)
      for (std::size_t b = 0; b < size; ++b)
        covariance[(i * size + a) * size + b] -= mean[i * size + a] * mean[i * size + b];
}

}  // namespace mrfast
