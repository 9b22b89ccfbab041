// Moments of the effects over all models of a block. With e = effects + noise, noise of covariance
// P, and C, e_S the covariance and the residuals under model S, the noise has posterior mean
// P C^-1 e_S and covariance P - P C^-1 P: derivatives of the likelihood by e and by P. Those of the
// sum over all models come from one pass back through the tree of ld_blocks.cpp.
#include <algorithm>
#include <cmath>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/ld_tree.hpp"

namespace mrfast {

namespace {

struct EffectSums : TreeRoot {
  explicit EffectSums(std::size_t size)
      : TreeRoot(size),
        inclusion(size),
        matrix_slope(packed(size)),
        vector_slope(size),
        mean(size),
        second(packed(size)),
        pending(size * (packed(size) + size + 1)) {
    buffers.resize(buffer_lanes());
  }

  Lanes total;
  std::vector<Lanes> inclusion;                   // (m,) sums of the models with a row in
  std::vector<Lanes> matrix_slope, vector_slope;  // derivatives of the total by G and w
  std::vector<Lanes> mean, second;                // by candidate
  std::vector<Lanes> pending, buffers;
};

// Adds row m - 1 to the derivatives: `slope` and `vector` hold, for the rows before it, those of
// the models with the row in, whose sum is `inside`; they are derivatives by what elimination left.
MRFAST_INLINE void take_back(const State& state, std::size_t m, const Lanes& inside, Lanes* slope,
                             Lanes* vector) {
  const Lanes* const row = state.matrix + packed(m - 1);
  const Lanes diagonal = row[m - 1], last = state.vector[m - 1];
  Lanes inverse, scaled, quadratic{}, linear{};
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double root = inverse_root(diagonal.v[l]);
    inverse.v[l] = root * root;
    scaled.v[l] = last.v[l] * inverse.v[l];
  }
  Lanes product[kMaxBlock];  // slope times row
  for (std::size_t a = 0; a + 1 < m; ++a) {
    const Lanes g = row[a];
    Lanes sum;
    for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] = slope[packed(a) + a].v[l] * g.v[l];
    for (std::size_t b = 0; b < a; ++b) {
      const Lanes x = slope[packed(a) + b], y = row[b];
      Lanes other = product[b];
      for (std::size_t l = 0; l < kLanes; ++l) {
        sum.v[l] += x.v[l] * y.v[l];
        other.v[l] += x.v[l] * g.v[l];
      }
      product[b] = other;
    }
    product[a] = sum;
  }
  Lanes* const out = slope + packed(m - 1);
  for (std::size_t a = 0; a + 1 < m; ++a) {
    const Lanes g = row[a], u = product[a], h = vector[a];
    Lanes x;
    for (std::size_t l = 0; l < kLanes; ++l) {
      quadratic.v[l] += g.v[l] * u.v[l];
      linear.v[l] += g.v[l] * h.v[l];
      x.v[l] = -(u.v[l] * inverse.v[l] + 0.5 * h.v[l] * scaled.v[l]);
    }
    out[a] = x;
  }
  Lanes x, y;
  for (std::size_t l = 0; l < kLanes; ++l) {
    x.v[l] = inverse.v[l] * (quadratic.v[l] * inverse.v[l] + linear.v[l] * scaled.v[l]) -
             0.5 * inside.v[l] * (scaled.v[l] * scaled.v[l] + inverse.v[l]);
    y.v[l] = inside.v[l] * scaled.v[l] - linear.v[l] * inverse.v[l];
  }
  out[m - 1] = x;
  vector[m - 1] = y;
}

// Total, inclusion and slopes, weighted with coefficients (B + 1) by the number of slabs.
MRFAST_INLINE void differentiate(EffectSums& sums, const Lanes* coefficients) {
  const std::size_t size = sums.m, stride = packed(size) + size + 1;
  Lanes* const slope = sums.matrix_slope.data();
  Lanes* const vector = sums.vector_slope.data();
  std::fill(sums.inclusion.begin(), sums.inclusion.end(), Lanes{});
  State at[kMaxBlock + 1];
  Lanes* buffer[kMaxBlock];
  bool in[kMaxBlock];
  Lanes* next = sums.buffers.data();
  for (std::size_t t = 0; t < size; ++t) {
    buffer[t] = next;
    const std::size_t left = size - 1 - t;
    next += packed(left) + left + 2;
  }
  at[0] = {sums.matrix.data(), sums.vector.data(), sums.scalars};
  std::size_t depth = 0, slabs = 0;
  for (;;) {
    for (; depth < size; ++depth) {
      in[depth] = false;
      at[depth + 1] = at[depth];
    }
    const Lanes exponent = at[depth].scalars[0], factor = at[depth].scalars[1];
    Lanes total = coefficients[slabs];
    for (std::size_t l = 0; l < kLanes; ++l) total.v[l] *= factor.v[l] * fast_exp(exponent.v[l]);
    while (depth > 0 && in[depth - 1]) {
      --depth;
      --slabs;
      const std::size_t left = size - 1 - depth;
      take_back(at[depth], left + 1, total, slope, vector);
      const Lanes* const out = sums.pending.data() + depth * stride;  // those with the row out
      for (std::size_t i = 0; i < packed(left); ++i) {
        Lanes x = slope[i];
        const Lanes y = out[i];
        for (std::size_t l = 0; l < kLanes; ++l) x.v[l] += y.v[l];
        slope[i] = x;
      }
      Lanes inside = sums.inclusion[left];
      for (std::size_t l = 0; l < kLanes; ++l) inside.v[l] += total.v[l];
      sums.inclusion[left] = inside;
      for (std::size_t i = 0; i <= left; ++i) {
        const Lanes y = out[packed(left) + i];
        if (i == left) {
          for (std::size_t l = 0; l < kLanes; ++l) total.v[l] += y.v[l];
        } else {
          Lanes x = vector[i];
          for (std::size_t l = 0; l < kLanes; ++l) x.v[l] += y.v[l];
          vector[i] = x;
        }
      }
    }
    if (depth == 0) {
      sums.total = total;
      return;
    }
    --depth;
    const std::size_t left = size - 1 - depth;
    Lanes* const out = sums.pending.data() + depth * stride;
    std::copy(slope, slope + packed(left), out);
    std::copy(vector, vector + left, out + packed(left));
    out[packed(left) + left] = total;
    in[depth] = true;
    ++slabs;
    Lanes* const to = buffer[depth];
    Lanes* const w = to + packed(left);
    eliminate(at[depth], left + 1, sums.gain[left], to, w, w + left);
    at[depth + 1] = {to, w, w + left};
    ++depth;
  }
}

// Sums over all models, weighted with the prior odds, the coefficients by the number of slabs, and
// the likelihood divided by exp(log_scale).
MRFAST_DISPATCH void sum_effects(EffectSums& sums, const Block& block,
                                 const BlockNode* const* nodes, const double* log_odds,
                                 const Lanes& log_scale, const Lanes* coefficients) {
  const std::size_t size = block.size;
  Spectrum spectrum;
  prepare(sums, spectrum, block, nodes, log_odds, 0.0, Lanes{});
  for (std::size_t l = 0; l < kLanes; ++l)
    sums.scalars[0].v[l] += sums.log_scale.v[l] - log_scale.v[l];
  differentiate(sums, coefficients);

  // T: total, r = R e, s^2 = d = A1 - A0, H and h the slopes by G and w, K = P R. Summed, the noise
  // is T P r - s K h, and its square T (P r r' P - K P + P) - 2 d K H K' - s (K h r' P + P r h'
  // K').
  const Lanes total = sums.total;
  Lanes noise[kMaxBlock], shrunk[kMaxBlock], pull[kMaxBlock];  // P r, K h
  Lanes kept[kMaxBlock], keep[kMaxBlock], variance[kMaxBlock];
  for (std::size_t k = 0; k < size; ++k)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double v = nodes[l]->variances[k];
      kept[k].v[l] = v * spectrum.rotated[k].v[l];
      keep[k].v[l] = v * spectrum.precision[k].v[l];
      variance[k].v[l] = v * (1.0 - keep[k].v[l]);
    }
  const auto between = [&](const Lanes* diagonal, std::size_t j, std::size_t i) {
    Lanes sum{};
    for (std::size_t k = 0; k < size; ++k) {
      const double v = block.eigenvectors[j * size + k] * block.eigenvectors[i * size + k];
      const Lanes x = diagonal[k];
      for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += v * x.v[l];
    }
    return sum;
  };
  Lanes shrink[kMaxBlock][kMaxBlock];  // K
  for (std::size_t j = 0; j < size; ++j)
    for (std::size_t i = 0; i <= j; ++i) shrink[j][i] = shrink[i][j] = between(keep, j, i);
  for (std::size_t j = 0; j < size; ++j) {
    shrunk[j] = rotate_back(block, j, kept);
    Lanes sum{};
    for (std::size_t i = 0; i < size; ++i) {
      const Lanes x = shrink[j][i], y = sums.vector_slope[size - 1 - i];
      for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += x.v[l] * y.v[l];
    }
    Lanes e, mean;
    for (std::size_t l = 0; l < kLanes; ++l) {
      sum.v[l] *= std::sqrt(spectrum.difference.v[l]);
      e.v[l] = nodes[l]->residuals[j];
      noise[j].v[l] = total.v[l] * shrunk[j].v[l] - sum.v[l];
      mean.v[l] = total.v[l] * e.v[l] - noise[j].v[l];
    }
    pull[j] = sum;
    sums.mean[j] = mean;
  }
  Lanes half[kMaxBlock];  // row j of K H
  for (std::size_t j = 0; j < size; ++j) {
    for (std::size_t i = 0; i < size; ++i) {
      Lanes sum{};
      for (std::size_t k = 0; k < size; ++k) {
        const std::size_t a = size - 1 - k, b = size - 1 - i;
        const Lanes x = shrink[j][k];
        const Lanes y = sums.matrix_slope[a < b ? packed(b) + a : packed(a) + b];
        for (std::size_t l = 0; l < kLanes; ++l) sum.v[l] += x.v[l] * y.v[l];
      }
      half[i] = sum;
    }
    for (std::size_t i = 0; i <= j; ++i) {
      Lanes product{};
      for (std::size_t k = 0; k < size; ++k) {
        const Lanes x = half[k], y = shrink[i][k];
        for (std::size_t l = 0; l < kLanes; ++l) product.v[l] += x.v[l] * y.v[l];
      }
      const Lanes own = between(variance, j, i);  // P - K P
      Lanes second;
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double ei = nodes[l]->residuals[i], ej = nodes[l]->residuals[j];
        const double square = total.v[l] * (shrunk[i].v[l] * shrunk[j].v[l] + own.v[l]) -
                              2.0 * spectrum.difference.v[l] * product.v[l] -
                              (pull[j].v[l] * shrunk[i].v[l] + shrunk[j].v[l] * pull[i].v[l]);
        second.v[l] = total.v[l] * ei * ej - ei * noise[j].v[l] - ej * noise[i].v[l] + square;
      }
      sums.second[packed(j) + i] = second;
    }
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
        inclusion[node * size + a] += sums.inclusion[size - 1 - a].v[l];
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
      for (std::size_t b = 0; b < size; ++b) {
        double& value = covariance[(i * size + a) * size + b];
        value -= mean[i * size + a] * mean[i * size + b];
        if (a == b) value = std::max(value, 0.0);  // without spread but for rounding
      }
}

}  // namespace mrfast
