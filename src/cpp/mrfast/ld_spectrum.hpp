// Noise and residuals of a block along its eigenvectors, for eight nodes side by side.
#pragma once

#include <cmath>
#include <cstddef>

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

}  // namespace mrfast
