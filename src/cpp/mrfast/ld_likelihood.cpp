#include "mrfast/ld_likelihood.hpp"

#include <algorithm>
#include <cmath>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/small.hpp"
#include "mrfast/vector_log.hpp"

namespace mrfast {

namespace {

constexpr double kNegligible = 1e-13;  // posterior weight of a family that is not worth a sum
constexpr double kLeast = 1e-300;      // in place of sums that underflow

// Adds to terms (count, kLanes) the logarithms of sums over the models: by_slabs (kLanes, B + 1)
// are those with k slabs, odds (count, B + 1) the probability of one such model.
MRFAST_DISPATCH void add_logs(std::size_t width, std::size_t count, const double* by_slabs,
                              const double* log_scale, const double* odds, double* terms) {
  Lanes sums[kMaxBlock + 1], scale;
  for (std::size_t l = 0; l < kLanes; ++l) {
    scale.v[l] = log_scale[l];
    for (std::size_t k = 0; k < width; ++k) sums[k].v[l] = by_slabs[l * width + k];
  }
  for (std::size_t p = 0; p < count; ++p) {
    Lanes total{}, term;
    for (std::size_t k = 0; k < width; ++k) {
      const double f = odds[p * width + k];
      for (std::size_t l = 0; l < kLanes; ++l) total.v[l] += f * sums[k].v[l];
    }
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double sum = total.v[l] < kLeast ? kLeast : total.v[l];
      term.v[l] = scale.v[l] + fast_log(sum);
    }
    for (std::size_t l = 0; l < kLanes; ++l) terms[p * kLanes + l] += term.v[l];
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

// V' times a vector, and V times one.
std::vector<double> rotate(const Block& block, const std::vector<double>& v) {
  std::vector<double> out(block.size, 0.0);
  for (std::size_t j = 0; j < block.size; ++j)
    for (std::size_t k = 0; k < block.size; ++k)
      out[k] += block.eigenvectors[j * block.size + k] * v[j];
  return out;
}
std::vector<double> rotate_back(const Block& block, const std::vector<double>& v) {
  std::vector<double> out(block.size, 0.0);
  for (std::size_t j = 0; j < block.size; ++j)
    for (std::size_t k = 0; k < block.size; ++k)
      out[j] += block.eigenvectors[j * block.size + k] * v[k];
  return out;
}

}  // namespace

BlockLikelihood::BlockLikelihood(const Associations& data, const HyperTable& table, double g,
                                 const std::vector<CorrelatedGroup>& groups)
    : table_(table),
      size_(data.x.size()),
      g_(g),
      slope_(data.slope),
      unit_(std::sqrt(median(data.n22))) {
  double square = 0;
  for (const double x : data.x) square += x * x;
  const double rms = std::sqrt(square / static_cast<double>(size_));
  for (const CorrelatedGroup& group : groups) {
    Part part{group.members, group.block, {}, {}, {}, {}, {}, {}, {}};
    const std::size_t first = group.members.front();
    for (const std::size_t j : group.members) {
      const double x = data.x[j];
      part.x.push_back(x);
      part.y.push_back(data.y[j]);
      part.sign.push_back(x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0);
      part.proportional.push_back(rms > 0 ? x / rms : 0.0);
    }
    part.x = rotate(part.block, part.x);
    part.y = rotate(part.block, part.y);
    for (const double value : group.eigenvalues) {
      part.n11.push_back(data.n11[first] / value);
      part.n22.push_back(data.n22[first] / value);
      part.n12.push_back(data.n12[first] / value);
    }
    parts_.push_back(std::move(part));
  }
}

BlockLikelihood::AtEffect BlockLikelihood::at_effect(const Part& part, double b) const {
  AtEffect out;
  for (std::size_t k = 0; k < part.block.size; ++k) {
    const double n11 = part.n11[k], n22 = part.n22[k], n12 = part.n12[k];
    const double rest = std::max(n22 - n12 * n12 / n11, 0.0), total = n11 + g_;
    const double gap = b - slope_ * n12 / n11;
    const double base = n22 + slope_ * slope_ * rest;  // determinant of the noise over n11
    const double steep = g_ * n11 / total;
    const double variance = base + steep * gap * gap;
    out.variances.push_back(variance);
    out.rotated.push_back(part.y[k] - (n12 * slope_ + b * g_) * part.x[k] / total);
    out.shrunk.push_back(g_ * part.x[k] / total);
    out.coupling.push_back(steep * gap / variance);
    out.spread.push_back(steep * base / variance);
  }
  out.residuals = rotate_back(part.block, out.rotated);
  return out;
}

std::vector<BlockLikelihood::Family> BlockLikelihood::families(const std::size_t* nodes,
                                                               std::size_t n) const {
  std::vector<Family> out;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t h = nodes[i];
    if (i > 0) {
      const std::size_t before = nodes[i - 1];
      if (table_.a0[h] == table_.a0[before] && table_.a1[h] == table_.a1[before] &&
          table_.rho[h] == table_.rho[before] && table_.mean[h] == table_.mean[before]) {
        ++out.back().count;
        continue;
      }
    }
    out.push_back({i, 1});
  }
  return out;
}

std::vector<double> BlockLikelihood::slab_means(const Part& part, std::size_t node) const {
  const double shift = table_.rho[node] * table_.a1[node] * unit_;
  std::vector<double> out(part.block.size, 0.0);
  if (table_.mean[node] == SlabMean::kCentred) return out;
  const auto& direction = table_.mean[node] == SlabMean::kSign ? part.sign : part.proportional;
  for (std::size_t j = 0; j < out.size(); ++j) out[j] = shift * direction[j];
  return out;
}

BlockNode BlockLikelihood::block_node(const AtEffect& at, std::size_t node,
                                      const double* means) const {
  const double spike = table_.a0[node] * unit_, slab = table_.a1[node] * unit_;
  return {at.variances.data(), at.residuals.data(), means, spike * spike,
          spike * spike + slab * slab};
}

// Prior probability of one model with k slabs: (B + 1,)
void BlockLikelihood::model_odds(std::size_t size, std::size_t node, double* out) const {
  const double pi = table_.pi[node];
  for (std::size_t k = 0; k <= size; ++k)
    out[k] = std::pow(pi, static_cast<double>(k)) * std::pow(1 - pi, static_cast<double>(size - k));
}

void BlockLikelihood::add(const double* b, const std::size_t* nodes, std::size_t n,
                          double* terms) const {
  const auto groups = families(nodes, n);
  for (const Part& part : parts_) {
    const std::size_t size = part.block.size, width = size + 1;
    std::vector<AtEffect> at;
    for (std::size_t l = 0; l < kLanes; ++l) at.push_back(at_effect(part, b[l]));
    std::vector<std::vector<double>> means;
    std::vector<BlockNode> block_nodes;
    for (const Family& family : groups) {
      means.push_back(slab_means(part, nodes[family.first]));
      for (std::size_t l = 0; l < kLanes; ++l)
        block_nodes.push_back(block_node(at[l], nodes[family.first], means.back().data()));
    }
    std::vector<double> scale(block_nodes.size()), sums(block_nodes.size() * width);
    sum_block_by_slabs(part.block, block_nodes.data(), block_nodes.size(), scale.data(),
                       sums.data(), nullptr);
    std::vector<double> odds(n * width);
    for (std::size_t i = 0; i < n; ++i) model_odds(size, nodes[i], odds.data() + i * width);
    for (std::size_t f = 0; f < groups.size(); ++f)
      add_logs(width, groups[f].count, sums.data() + f * kLanes * width, scale.data() + f * kLanes,
               odds.data() + groups[f].first * width, terms + groups[f].first * kLanes);
  }
}

void BlockLikelihood::summarise(const double* b, const std::size_t* nodes, std::size_t n,
                                const double* weights, double* sums) const {
  double weight[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t l = 0; l < kLanes; ++l) weight[l] += weights[i * kLanes + l];
  const auto groups = families(nodes, n);
  for (const Part& part : parts_) {
    const std::size_t size = part.block.size, width = size + 1;
    std::vector<AtEffect> at;
    for (std::size_t l = 0; l < kLanes; ++l) at.push_back(at_effect(part, b[l]));
    std::vector<double> odds(width), scale(kLanes), by_slabs(kLanes * width);
    std::vector<double> coefficients(kLanes * width);
    std::vector<double> inclusion(kLanes * size), mean(kLanes * size), square(kLanes * size * size);
    for (const Family& family : groups) {
      const double* const share = weights + family.first * kLanes;
      double worth = 0;
      for (std::size_t l = 0; l < kLanes; ++l) {
        double here = 0;
        for (std::size_t p = 0; p < family.count; ++p) here += share[p * kLanes + l];
        worth += std::abs(here);
      }
      if (worth < kNegligible) continue;
      const std::size_t node = nodes[family.first];
      const auto means = slab_means(part, node);
      BlockNode lanes[kLanes];
      for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = block_node(at[l], node, means.data());
      sum_block_by_slabs(part.block, lanes, kLanes, scale.data(), by_slabs.data(), nullptr);
      std::fill(coefficients.begin(), coefficients.end(), 0.0);
      for (std::size_t p = 0; p < family.count; ++p) {
        model_odds(size, nodes[family.first + p], odds.data());
        for (std::size_t l = 0; l < kLanes; ++l) {
          double total = 0;
          for (std::size_t k = 0; k < width; ++k) total += odds[k] * by_slabs[l * width + k];
          const double f = share[p * kLanes + l] / std::max(total, kLeast);
          for (std::size_t k = 0; k < width; ++k) coefficients[l * width + k] += f * odds[k];
        }
      }
      add_effect_sums(part.block, lanes, kLanes, nullptr, scale.data(), coefficients.data(),
                      inclusion.data(), mean.data(), square.data());
    }
    // First stage given the pleiotropic effects a, along the eigenvectors:
    // shrunk + coupling (residual - a), with variance spread.
    for (std::size_t l = 0; l < kLanes; ++l) {
      const AtEffect& here = at[l];
      std::vector<double> fixed(size), matrix(size * size);
      for (std::size_t k = 0; k < size; ++k)
        fixed[k] = here.shrunk[k] + here.coupling[k] * here.rotated[k];
      fixed = rotate_back(part.block, fixed);
      const double* const v = part.block.eigenvectors.data();
      for (std::size_t i = 0; i < size; ++i)
        for (std::size_t j = 0; j < size; ++j)
          for (std::size_t k = 0; k < size; ++k)
            matrix[i * size + j] += v[i * size + k] * here.coupling[k] * v[j * size + k];
      const double* const first = mean.data() + l * size;
      const double* const second = square.data() + l * size * size;
      for (std::size_t i = 0; i < size; ++i) {
        double pull = 0, spread = 0, quadratic = 0;
        for (std::size_t j = 0; j < size; ++j) {
          pull += matrix[i * size + j] * first[j];
          spread += v[i * size + j] * v[i * size + j] * here.spread[j];
          for (std::size_t k = 0; k < size; ++k)
            quadratic += matrix[i * size + j] * second[j * size + k] * matrix[i * size + k];
        }
        const std::size_t column = part.members[i];
        sums[column] += inclusion[l * size + i];
        sums[size_ + column] += first[i];
        sums[2 * size_ + column] += second[i * size + i];
        sums[3 * size_ + column] += weight[l] * fixed[i] - pull;
        sums[4 * size_ + column] +=
            weight[l] * (fixed[i] * fixed[i] + spread) - 2 * fixed[i] * pull + quadratic;
      }
    }
  }
}

Associations BlockLikelihood::directions() const {
  Associations out;
  out.slope = slope_;
  for (const Part& part : parts_) {
    out.x.insert(out.x.end(), part.x.begin(), part.x.end());
    out.y.insert(out.y.end(), part.y.begin(), part.y.end());
    out.n11.insert(out.n11.end(), part.n11.begin(), part.n11.end());
    out.n22.insert(out.n22.end(), part.n22.begin(), part.n22.end());
    out.n12.insert(out.n12.end(), part.n12.begin(), part.n12.end());
  }
  return out;
}

void BlockLikelihood::draw(double b, std::size_t node, const double* uniforms,
                           const double* normals, bool* slab, double* first_stage,
                           double* pleiotropy) const {
  for (const Part& part : parts_) {
    const std::size_t size = part.block.size;
    const AtEffect at = at_effect(part, b);
    const auto means = slab_means(part, node);
    const BlockNode here = block_node(at, node, means.data());
    const double pi = table_.pi[node];
    const std::vector<double> log_odds(size, std::log(pi) - std::log1p(-pi));
    const auto model =
        draw_model(part.block, here, log_odds.data(), uniforms[part.members.front()]);
    // Effects given the model: precision Psi^-1 + 1 / A.
    std::vector<double> precision(size * size), effects(size), unit(size);
    const double* const v = part.block.eigenvectors.data();
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = 0; j <= i; ++j)
        for (std::size_t k = 0; k < size; ++k)
          precision[i * size + j] += v[i * size + k] * v[j * size + k] / at.variances[k];
      for (std::size_t k = 0; k < size; ++k)
        effects[i] += v[i * size + k] * at.rotated[k] / at.variances[k];
      const double variance = model[i] ? here.slab : here.spike;
      precision[i * size + i] += 1 / variance;
      if (model[i]) effects[i] += means[i] / variance;
    }
    cholesky_in_place(precision, size);
    cholesky_solve_in_place(precision, size, effects.data());
    for (std::size_t i = size; i-- > 0;) {  // L'^-1 z
      unit[i] += normals[2 * part.members[i]];
      unit[i] /= precision[i * size + i];
      for (std::size_t j = 0; j < i; ++j) unit[j] -= precision[i * size + j] * unit[i];
    }
    for (std::size_t i = 0; i < size; ++i) effects[i] += unit[i];
    std::vector<double> stage = rotate(part.block, effects);
    for (std::size_t k = 0; k < size; ++k)
      stage[k] = at.shrunk[k] + at.coupling[k] * (at.rotated[k] - stage[k]) +
                 std::sqrt(at.spread[k]) * normals[2 * part.members[k] + 1];
    stage = rotate_back(part.block, stage);
    for (std::size_t i = 0; i < size; ++i) {
      slab[part.members[i]] = model[i];
      pleiotropy[part.members[i]] = effects[i];
      first_stage[part.members[i]] = stage[i];
    }
  }
}

}  // namespace mrfast
