// The tree of the models of a block for eight nodes side by side; see ld_blocks.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "mrfast/lanes.hpp"
#include "mrfast/ld_blocks.hpp"

namespace mrfast {

// What eight nodes need before the candidates are taken one by one.
struct Spectrum {
  Lanes precision[kMaxBlock];  // 1 / (v_k + A0)
  Lanes rotated[kMaxBlock];    // V' e, times the precision
  Lanes difference;            // A1 - A0
  Lanes square;                // e' R e
  Lanes log_spikes;            // log likelihood without a slab, without its exponent
};

MRFAST_INLINE void decompose(Spectrum& out, const Block& block, const BlockNode* const* nodes) {
  const std::size_t size = block.size;
  const double* const vectors = block.eigenvectors.data();
  Lanes residual[kMaxBlock], low, high;
  for (std::size_t l = 0; l < kLanes; ++l) {
    out.difference.v[l] = nodes[l]->slab - nodes[l]->spike;
    out.square.v[l] = 0.0;
    low.v[l] = high.v[l] = 1.0;
  }
  for (std::size_t k = 0; k < size; ++k) {
    Lanes& product = k < kMaxBlock / 2 ? low : high;  // so that no product underflows
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double variance = nodes[l]->variances[k] + nodes[l]->spike;
      residual[k].v[l] = nodes[l]->residuals[k];
      out.precision[k].v[l] = 1.0 / variance;
      product.v[l] *= variance;
    }
  }
  for (std::size_t k = 0; k < size; ++k) {
    Lanes sum{};
    for (std::size_t j = 0; j < size; ++j) {
      const double v = vectors[j * size + k];
      const Lanes e = residual[j];
      for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += v * e.v[l];
    }
    const Lanes p = out.precision[k];
    for (std::size_t l = 0; l < kLanes; ++l) {
      out.square.v[l] += sum.v[l] * sum.v[l] * p.v[l];
      sum.v[l] *= p.v[l];
    }
    out.rotated[k] = sum;
  }
  for (std::size_t l = 0; l < kLanes; ++l) {
    double determinant = std::log(low.v[l]);
    if (size > kMaxBlock / 2) determinant += std::log(high.v[l]);
    out.log_spikes.v[l] = -0.5 * (static_cast<double>(size) * 1.8378770664093454836 + determinant);
  }
}

// Row j of V times a vector.
MRFAST_INLINE Lanes rotate_back(const Block& block, std::size_t j, const Lanes* vector) {
  Lanes sum{};
  for (std::size_t k = 0; k < block.size; ++k) {
    const double v = block.eigenvectors[j * block.size + k];
    const Lanes x = vector[k];
    for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += v * x.v[l];
  }
  return sum;
}

// Element (j, i) of R.
MRFAST_INLINE Lanes precision_of(const Block& block, std::size_t j, std::size_t i,
                                 const Spectrum& spectrum) {
  Lanes sum{};
  for (std::size_t k = 0; k < block.size; ++k) {
    const double v =
        block.eigenvectors[j * block.size + k] * block.eigenvectors[i * block.size + k];
    const Lanes x = spectrum.precision[k];
    for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += v * x.v[l];
  }
  return sum;
}

// Candidates still to come, m of them, in reverse order: the next one is row m - 1, and what is
// left without it is a prefix of the arrays.
struct State {
  const Lanes* matrix;   // (m (m + 1) / 2,) lower triangle of G
  const Lanes* vector;   // (m,) w
  const Lanes* scalars;  // exponent, factor: the weight so far is factor exp(exponent)
};

// Where the tree begins.
struct TreeRoot {
  explicit TreeRoot(std::size_t rows) : m(rows), matrix(packed(m)), vector(m), gain(m) {}

  // Of the states below the root, one for every depth.
  std::size_t buffer_lanes() const {
    std::size_t lanes = 0;
    for (std::size_t left = 0; left < m; ++left) lanes += packed(left) + left + 2;
    return lanes;
  }

  std::size_t m;                            // candidates, with those that fill up a small block
  std::vector<Lanes> matrix, vector, gain;  // G, w and what a slab adds to the exponent
  Lanes scalars[2];                         // exponent and factor of the model without slabs
  Lanes log_scale;                          // the sums are to be multiplied by its exponential
};

// Takes row m - 1 in: one step of elimination on the rows before it.
MRFAST_INLINE void eliminate(const State& in, std::size_t m, const Lanes& gain, Lanes* matrix,
                             Lanes* vector, Lanes* scalars) {
  const Lanes* const row = in.matrix + packed(m - 1);
  const Lanes diagonal = row[m - 1], last = in.vector[m - 1], c = gain;
  Lanes exponent = in.scalars[0], factor = in.scalars[1], inverse, scaled;
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double root = inverse_root(diagonal.v[l]);
    inverse.v[l] = root * root;
    scaled.v[l] = last.v[l] * inverse.v[l];
    exponent.v[l] += 0.5 * last.v[l] * scaled.v[l] + c.v[l];
    factor.v[l] *= root;
  }
  scalars[0] = exponent;
  scalars[1] = factor;
  for (std::size_t a = 0; a + 1 < m; ++a) {
    Lanes f = row[a], w = in.vector[a];
    for (std::size_t l = 0; l < kLanes; ++l) {
      w.v[l] -= f.v[l] * scaled.v[l];
      f.v[l] *= inverse.v[l];
    }
    vector[a] = w;
    const Lanes* const from = in.matrix + packed(a);
    Lanes* const to = matrix + packed(a);
    for (std::size_t b = 0; b <= a; ++b) {
      Lanes x = from[b];
      const Lanes y = row[b];
      for (std::size_t l = 0; l < kLanes; ++l) x.v[l] -= f.v[l] * y.v[l];
      to[b] = x;
    }
  }
}

inline constexpr double kNever = -1e4;  // log odds of candidates that only fill up a block

// G and w of eight nodes, rows in reverse order of the candidates; most: log odds of the model
// that is most probable before the data. The exponent of a model is -q/2, with q what it leaves of
// the squared residual, plus its log odds less most.
MRFAST_INLINE void prepare(TreeRoot& root, Spectrum& spectrum, const Block& block,
                           const BlockNode* const* nodes, const double* log_odds, double most,
                           const Lanes& extra) {
  const std::size_t size = block.size, m = root.m;
  decompose(spectrum, block, nodes);
  Lanes scale;
  for (std::size_t l = 0; l < kLanes; ++l) {
    scale.v[l] = std::sqrt(spectrum.difference.v[l]);
    root.log_scale.v[l] = spectrum.log_spikes.v[l] + (most - extra.v[l]);
    root.scalars[0].v[l] = extra.v[l] - (0.5 * spectrum.square.v[l] + most);
    root.scalars[1].v[l] = 1.0;
  }
  for (std::size_t j = 0; j < size; ++j) {
    const std::size_t a = size - 1 - j;
    const double odds = log_odds == nullptr ? 0.0 : log_odds[j];
    const Lanes r = rotate_back(block, j, spectrum.rotated);
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double mean = nodes[l]->means == nullptr ? 0.0 : nodes[l]->means[j] / scale.v[l];
      root.vector[a].v[l] = scale.v[l] * r.v[l] + mean;
      root.gain[a].v[l] = odds - 0.5 * mean * mean;
    }
    for (std::size_t i = j; i < size; ++i) {
      Lanes g = precision_of(block, j, i, spectrum);
      const double unit = i == j ? 1.0 : 0.0;
      for (std::size_t l = 0; l < kLanes; ++l) g.v[l] = g.v[l] * spectrum.difference.v[l] + unit;
      root.matrix[packed(a) + (size - 1 - i)] = g;
    }
  }
  for (std::size_t a = size; a < m; ++a) {  // rows that fill up a small block
    for (std::size_t b = 0; b <= a; ++b)
      for (std::size_t l = 0; l < kLanes; ++l) root.matrix[packed(a) + b].v[l] = a == b ? 1.0 : 0.0;
    for (std::size_t l = 0; l < kLanes; ++l) {
      root.vector[a].v[l] = 0.0;
      root.gain[a].v[l] = kNever;
    }
  }
}

}  // namespace mrfast
