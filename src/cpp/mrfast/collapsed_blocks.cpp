#include "mrfast/collapsed_blocks.hpp"

#include <cmath>

#include "mrfast/small.hpp"

namespace mrfast {

namespace {

// A block at one point, along its eigenvectors: variance of the noise of b given a, what b leaves
// of a, and how gamma follows from both.
struct Directions {
  double constant = 0;  // of the log likelihood
  std::vector<double> noise, rotated, residual, base, pull, spread;

  Directions(const CorrelatedBlock& block, const BlockPoint& at, bool with_first_stage) {
    const std::size_t n = block.members.size();
    noise.resize(n), rotated.resize(n), residual.assign(n, 0);
    if (with_first_stage) base.resize(n), pull.resize(n), spread.resize(n);
    const double w = block.ratio * at.m - at.beta, turn = at.s1 / at.s3;
    double product = 1;
    for (std::size_t k = 0; k < n; ++k) {
      const double inverse = 1 / block.eigenvalues[k];
      const double n11 = block.n11 * inverse, n22 = block.n22 * inverse;
      const double excess = block.excess * inverse;
      const double share = n11 / (n11 + at.g), c11 = at.s1 * (n11 + at.g);
      noise[k] = at.s3 * n22 + at.s1 * (at.g * share * w * w + excess * at.m * at.m);
      rotated[k] = block.b[k] - (at.beta + share * w) * block.a[k];
      product = n11 * (n22 + at.m * at.m * turn * excess) * at.s1 * at.s3 / c11;
      constant += 0.5 * (std::log(product) - block.a[k] * block.a[k] / c11 + kLogTwoPi);
      if (with_first_stage) {
        const double prior = at.s1 * at.g, lift = share * w * prior;
        base[k] = block.a[k] * (at.g / (n11 + at.g));
        pull[k] = lift / noise[k];
        spread[k] = prior * share - lift * pull[k];
      }
    }
    const double* v = block.block.eigenvectors.data();
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < n; ++k) residual[j] += v[j * n + k] * rotated[k];
  }
  BlockNode node(const BlockPoint& at) const {
    return {noise.data(), residual.data(), nullptr, at.s3 * at.a0, at.s3 * at.a1};
  }
};

}  // namespace

void block_values(const CorrelatedBlock& block, const BlockPoint* points, std::size_t n,
                  double* out) {
  std::vector<Directions> directions;
  std::vector<BlockNode> nodes;
  directions.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    directions.emplace_back(block, points[i], false);
    nodes.push_back(directions.back().node(points[i]));
  }
  sum_block(block.block, nodes.data(), n, block.log_odds.data(), out, nullptr);
  for (std::size_t i = 0; i < n; ++i) out[i] += directions[i].constant;
}

void block_moments(const CorrelatedBlock& block, const BlockPoint& point, BlockMoments& out) {
  const std::size_t n = block.members.size();
  const Directions at(block, point, true);
  const BlockNode node = at.node(point);
  double log_evidence = 0;
  std::vector<double> covariance(n * n);
  out.inclusion.assign(n, 0), out.direct.assign(n, 0), out.direct2.assign(n, 0);
  out.first.assign(n, 0), out.first2.assign(n, 0);
  block_effects(block.block, &node, 1, block.log_odds.data(), &log_evidence, out.inclusion.data(),
                out.direct.data(), covariance.data());
  const double* v = block.block.eigenvectors.data();
  // Given alpha, gamma along eigenvector k is base - pull (rotated - V' alpha) with variance
  // spread.
  std::vector<double> mean(n), turned(n * n, 0), along(n * n, 0);
  for (std::size_t k = 0; k < n; ++k) {
    double alpha = 0;
    for (std::size_t j = 0; j < n; ++j) alpha += v[j * n + k] * out.direct[j];
    mean[k] = at.base[k] - at.pull[k] * (at.rotated[k] - alpha);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) turned[i * n + k] += covariance[i * n + j] * v[j * n + k];
  }
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t l = 0; l < n; ++l) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) sum += v[i * n + k] * turned[i * n + l];
      along[k * n + l] = sum * at.pull[k] * at.pull[l] + (k == l ? at.spread[k] : 0);
    }
  for (std::size_t j = 0; j < n; ++j) {
    double variance = 0;
    for (std::size_t k = 0; k < n; ++k) {
      out.first[j] += v[j * n + k] * mean[k];
      for (std::size_t l = 0; l < n; ++l)
        variance += v[j * n + k] * v[j * n + l] * along[k * n + l];
    }
    out.first2[j] = out.first[j] * out.first[j] + variance;
    out.direct2[j] = out.direct[j] * out.direct[j] + covariance[j * n + j];
  }
}

void draw_block(const CorrelatedBlock& block, const BlockPoint& point, double uniform,
                const double* normals, bool* slab, double* first, double* direct) {
  const std::size_t n = block.members.size();
  const Directions at(block, point, true);
  const BlockNode node = at.node(point);
  const std::vector<bool> model = draw_model(block.block, node, block.log_odds.data(), uniform);
  const double* v = block.block.eigenvectors.data();
  // Matheron's rule: a draw from the prior, moved by the gain times what it leaves unexplained.
  std::vector<double> matrix(n * n, 0), gap(n);
  std::vector<double> variance(n);
  for (std::size_t j = 0; j < n; ++j) {
    slab[j] = model[j];
    variance[j] = model[j] ? node.slab : node.spike;
    direct[j] = std::sqrt(variance[j]) * normals[j];
    gap[j] = at.residual[j] - direct[j];
    for (std::size_t k = 0; k < n; ++k) {
      gap[j] -= v[j * n + k] * std::sqrt(at.noise[k]) * normals[n + k];
      for (std::size_t i = 0; i < n; ++i)
        matrix[j * n + i] += v[j * n + k] * at.noise[k] * v[i * n + k];
    }
    matrix[j * n + j] += variance[j];
  }
  cholesky_in_place(matrix, n);
  cholesky_solve_in_place(matrix, n, gap.data());
  for (std::size_t j = 0; j < n; ++j) {
    direct[j] += variance[j] * gap[j];
    first[j] = 0;
  }
  for (std::size_t k = 0; k < n; ++k) {
    double alpha = 0;
    for (std::size_t j = 0; j < n; ++j) alpha += v[j * n + k] * direct[j];
    const double gamma = at.base[k] - at.pull[k] * (at.rotated[k] - alpha) +
                         std::sqrt(at.spread[k]) * normals[2 * n + k];
    for (std::size_t j = 0; j < n; ++j) first[j] += v[j * n + k] * gamma;
  }
}

}  // namespace mrfast
