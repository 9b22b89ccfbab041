// Notation as in ld_blocks.cpp: with S the candidates in the slab,
//   log L(S | node) = base(node) - (1/2) log det G_SS + (1/2) w_S' G_SS^-1 w_S + sum_S gain,
// so that a model with k slabs costs a k x k Cholesky factor per node, whatever the size of the
// block. A sweep proposes to flip every candidate and, for every slab, to exchange it for another
// candidate; then it draws the node from its exact conditional distribution.
#include "mrfast/ld_gibbs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/ld_model.hpp"
#include "mrfast/random.hpp"
#include "mrfast/small.hpp"

namespace mrfast {

namespace {

constexpr double kLogTwo = 0x1.62e42fefa39efp-1;
constexpr double kOutside = -1e300;  // log weight of lanes beyond the last node

// G (packed), w and gain of one block, eight nodes to a tile.
struct Tiles {
  std::size_t size = 0, stride = 0;
  std::vector<Lanes> lanes;

  std::size_t vector_at() const { return packed(size); }
  std::size_t gain_at() const { return packed(size) + size; }
};

// What the chains share: constant while they run.
struct Prepared {
  const NodeTable& table;
  std::size_t tiles = 0;
  std::vector<Tiles> blocks;
  std::vector<double> base;  // (8 tiles,)
};

void fill_node(Prepared& prepared, std::size_t node) {
  const NodeTable& table = prepared.table;
  const std::size_t lane = node % kLanes, from = std::min(node, table.count - 1);
  const double spike = table.spike[from], difference = table.slab[from] - spike;
  const double root = std::sqrt(difference);
  double base = table.log_weight[from];
  for (std::size_t i = 0; i < table.blocks.size(); ++i) {
    const GibbsBlock& block = table.blocks[i];
    Tiles& tiles = prepared.blocks[i];
    const std::size_t size = tiles.size;
    const double* const vectors = block.block.eigenvectors.data();
    const double* const e = block.residuals + from * size;
    std::vector<double> precision(size), rotated(size), row(size), transposed(size * size);
    double determinant = 0, square = 0;
    for (std::size_t k = 0; k < size; ++k) {
      const double variance = block.variances[from * size + k] + spike;
      for (std::size_t j = 0; j < size; ++j) {
        transposed[k * size + j] = vectors[j * size + k];
        rotated[k] += vectors[j * size + k] * e[j];
      }
      precision[k] = 1 / variance;
      determinant += std::log(variance);
      square += rotated[k] * rotated[k] / variance;
    }
    base -= 0.5 * (static_cast<double>(size) * kLogTwoPi + determinant + square);
    base -= log_total_odds(block.log_odds + from * size, size);
    Lanes* const tile = tiles.lanes.data() + node / kLanes * tiles.stride;
    for (std::size_t j = 0; j < size; ++j) {
      std::fill(row.begin(), row.end(), 0.0);
      double r = 0;
      for (std::size_t k = 0; k < size; ++k) {
        const double f = vectors[j * size + k] * precision[k] * difference;
        const double* const other = transposed.data() + k * size;
        for (std::size_t b = 0; b <= j; ++b) row[b] += f * other[b];
        r += vectors[j * size + k] * precision[k] * rotated[k];
      }
      row[j] += 1.0;
      for (std::size_t b = 0; b <= j; ++b) tile[packed(j) + b].v[lane] = row[b];
      const double mean = block.means == nullptr ? 0.0 : block.means[from * size + j] / root;
      tile[tiles.vector_at() + j].v[lane] = root * r + mean;
      tile[tiles.gain_at() + j].v[lane] = block.log_odds[from * size + j] - 0.5 * mean * mean;
    }
  }
  prepared.base[node] = node < table.count ? base : kOutside;
}

// Log likelihood ratio of a model to the one without slabs at every node, as an exponent and a
// factor. scratch: (k (k + 1) / 2 + k,)
MRFAST_DISPATCH void model_terms(const Tiles& tiles, std::size_t count, const Members& members,
                                 Lanes* scratch, double* exponents, double* factors) {
  const std::size_t k = members.size();
  Lanes* const z = scratch + packed(k);
  for (std::size_t t = 0; t < count; ++t) {
    const Lanes* const tile = tiles.lanes.data() + t * tiles.stride;
    Lanes exponent{};
    LogProduct product;
    for (std::size_t a = 0; a < k; ++a) {
      const std::size_t j = members[a];
      Lanes* const row = scratch + packed(a);  // of the factor, its diagonal inverted
      Lanes pivot = tile[packed(j) + j], w = tile[tiles.vector_at() + j];
      const Lanes gain = tile[tiles.gain_at() + j];
      for (std::size_t b = 0; b < a; ++b) {
        const Lanes* const other = scratch + packed(b);
        Lanes x = tile[packed(j) + members[b]];
        for (std::size_t c = 0; c < b; ++c) {
          const Lanes p = row[c], q = other[c];
          for (std::size_t l = 0; l < kLanes; ++l) x.v[l] -= p.v[l] * q.v[l];
        }
        const Lanes inverse = other[b], zb = z[b];
        for (std::size_t l = 0; l < kLanes; ++l) {
          x.v[l] *= inverse.v[l];
          pivot.v[l] -= x.v[l] * x.v[l];
          w.v[l] -= x.v[l] * zb.v[l];
        }
        row[b] = x;
      }
      Lanes inverse;
      for (std::size_t l = 0; l < kLanes; ++l) {
        inverse.v[l] = inverse_root(pivot.v[l]);
        w.v[l] *= inverse.v[l];
        exponent.v[l] += 0.5 * w.v[l] * w.v[l] + gain.v[l];
        product.product[l] *= inverse.v[l];
      }
      product.renormalise();
      row[a] = inverse;
      z[a] = w;
    }
    for (std::size_t l = 0; l < kLanes; ++l) {
      exponents[t * kLanes + l] = exponent.v[l] + product.exponent[l] * kLogTwo;
      factors[t * kLanes + l] = product.product[l];
    }
  }
}

// weights: unnormalised probabilities of the nodes, those of a tile added up in tile_sums.
MRFAST_DISPATCH void node_weights(const double* exponents, const double* factors, double largest,
                                  std::size_t count, double* weights, double* tile_sums) {
  for (std::size_t t = 0; t < count; ++t) {
    Lanes w;
    for (std::size_t l = 0; l < kLanes; ++l)
      w.v[l] = factors[t * kLanes + l] * fast_exp(exponents[t * kLanes + l] - largest);
    for (std::size_t l = 0; l < kLanes; ++l) weights[t * kLanes + l] = w.v[l];
    double sum = 0;
    for (std::size_t l = 0; l < kLanes; ++l) sum += w.v[l];
    tile_sums[t] = sum;
  }
}

struct Visited {
  Key key;
  double log_joint;  // log p(data, model)
  std::uint64_t visits;
};

// The models of a chain in the order of their first visits.
struct ModelLog {
  std::unordered_map<Key, std::size_t, KeyHash> index;
  std::vector<Visited> models;

  void visit(const Key& key, double log_joint) {
    const auto [at, inserted] = index.try_emplace(key, models.size());
    if (inserted) models.push_back({key, log_joint, 0});
    ++models[at->second].visits;
  }
};

class Chain {
 public:
  Chain(const Prepared& prepared, std::uint64_t seed, std::size_t stream)
      : prepared_(prepared),
        random_(seed, stream),
        exponents_(prepared.blocks.size()),
        factors_(prepared.blocks.size()),
        old_(prepared.blocks.size()),
        total_(prepared.base.size()),
        product_(prepared.base.size()),
        weights_(prepared.base.size()),
        tile_sums_(prepared.tiles),
        node_sum(prepared.base.size()) {
    std::size_t largest = 0, candidates = 0;
    for (const Tiles& tiles : prepared.blocks) {
      models_.emplace_back(tiles.size);
      largest = std::max(largest, tiles.size);
      candidates += tiles.size;
    }
    scratch_.resize(packed(largest) + largest);
    for (std::size_t i = 0; i < models_.size(); ++i) {
      exponents_[i].resize(prepared.base.size());
      factors_[i].resize(prepared.base.size());
    }
    key_.resize((candidates + 63) / 64);
    inclusion_sum.resize(candidates);
    mean_sum.resize(candidates);
    square_sum.resize(candidates);
    // Begins with a node without regard to its weight and a model drawn from the prior.
    move_to(random_.below(prepared.table.count));
    for (std::size_t i = 0; i < models_.size(); ++i) {
      const double* const odds = prepared.table.blocks[i].log_odds + node_ * models_[i].size();
      for (std::size_t j = 0; j < models_[i].size(); ++j)
        if (random_.uniform() < probability(odds[j])) models_[i].take_in(j);
    }
    changed_ = true;
  }

  void sweep(bool keep) {
    std::size_t first = 0;
    for (std::size_t i = 0; i < models_.size(); ++i) {
      flip_all(models_[i], random_, moves, keep ? inclusion_sum.data() + first : nullptr);
      swap_all(models_[i], random_, moves);
      if (keep) {
        const GibbsBlock& block = prepared_.table.blocks[i];
        const double* const means =
            block.means == nullptr ? nullptr : block.means + node_ * block.block.size;
        models_[i].add_effects(prepared_.table.spike[node_], prepared_.table.slab[node_], means,
                               mean_sum.data() + first, square_sum.data() + first);
      }
      first += models_[i].size();
    }
    update_weights();
    if (keep) {
      log.visit(key_, log_joint_);
      ++repeats_;
    }
    draw_node();
  }

  void finish() { flush(); }

  std::size_t node() const { return node_; }
  void write(char* slab) const {
    for (const BlockModel& model : models_)
      for (std::size_t j = 0; j < model.size(); ++j) *slab++ = model.contains(j);
  }

 private:
  // Weights of the nodes under the model.
  void update_weights() {
    const std::size_t lanes = total_.size();
    bool changed = changed_;
    for (std::size_t i = 0; i < models_.size(); ++i) {
      sorted_ = models_[i].members();
      std::sort(sorted_.begin(), sorted_.end());
      if (!changed_ && sorted_ == old_[i]) continue;
      if (!changed) flush();
      changed = true;
      model_terms(prepared_.blocks[i], prepared_.tiles, sorted_, scratch_.data(),
                  exponents_[i].data(), factors_[i].data());
      old_[i] = sorted_;
    }
    if (!changed) return;
    changed_ = false;
    std::copy(prepared_.base.begin(), prepared_.base.end(), total_.begin());
    std::fill(product_.begin(), product_.end(), 1.0);
    std::fill(key_.begin(), key_.end(), 0);
    std::size_t first = 0;
    for (std::size_t i = 0; i < models_.size(); ++i) {
      const double *const e = exponents_[i].data(), *const f = factors_[i].data();
      for (std::size_t n = 0; n < lanes; ++n) {
        total_[n] += e[n];
        product_[n] *= f[n];
      }
      for (const std::uint32_t j : old_[i])
        key_[(first + j) / 64] |= std::uint64_t{1} << ((first + j) % 64);
      first += models_[i].size();
    }
    const double largest = *std::max_element(total_.begin(), total_.end());
    node_weights(total_.data(), product_.data(), largest, prepared_.tiles, weights_.data(),
                 tile_sums_.data());
    sum_ = 0;
    for (const double x : tile_sums_) sum_ += x;
    log_joint_ = largest + std::log(sum_);
  }

  void draw_node() {
    double left = random_.uniform() * sum_;
    std::size_t tile = 0;
    while (tile + 1 < tile_sums_.size() && left >= tile_sums_[tile]) left -= tile_sums_[tile++];
    std::size_t node = tile * kLanes;
    const std::size_t end = std::min(node + kLanes, prepared_.table.count);
    while (node + 1 < end && left >= weights_[node]) left -= weights_[node++];
    if (node != node_) move_to(node);
  }

  void move_to(std::size_t node) {
    node_ = node;
    const std::size_t lane = node % kLanes;
    for (std::size_t i = 0; i < models_.size(); ++i) {
      const Tiles& tiles = prepared_.blocks[i];
      const Lanes* const tile = tiles.lanes.data() + node / kLanes * tiles.stride;
      std::vector<double>& local = models_[i].local();
      for (std::size_t k = 0; k < tiles.stride; ++k) local[k] = tile[k].v[lane];
      models_[i].moved();
    }
  }

  // Adds the probabilities of the nodes as often as their model was kept.
  void flush() {
    if (repeats_ == 0) return;
    const double f = static_cast<double>(repeats_) / sum_;
    for (std::size_t n = 0; n < weights_.size(); ++n) node_sum[n] += f * weights_[n];
    repeats_ = 0;
  }

  const Prepared& prepared_;
  Philox random_;
  std::vector<BlockModel> models_;
  std::size_t node_ = 0;
  std::vector<std::vector<double>> exponents_, factors_;  // of the models in old_, by block
  std::vector<Members> old_;
  std::vector<double> total_, product_, weights_, tile_sums_;
  std::vector<Lanes> scratch_;
  Members sorted_;
  Key key_;
  bool changed_ = false;
  double sum_ = 0, log_joint_ = 0;
  std::uint64_t repeats_ = 0;

 public:
  std::vector<double> node_sum, inclusion_sum, mean_sum, square_sum;
  MoveCounts moves;
  ModelLog log;
};

// Sum of exponentials, as its logarithm.
class LogSum {
 public:
  void add(double x) {
    if (x > largest_) {
      sum_ = sum_ * std::exp(largest_ - x) + 1;
      largest_ = x;
    } else {
      sum_ += std::exp(x - largest_);
    }
  }
  double log() const { return largest_ + std::log(sum_); }

 private:
  double largest_ = -std::numeric_limits<double>::infinity();
  double sum_ = 0;
};

// The evidence is that of a set of models divided by the set's probability. The models that the
// other chains visited are such a set: p(data, model) is known for each of them, and the chain's
// share of time in them estimates their probability, without bias since it had no part in them.
void estimate_evidence(const std::vector<ModelLog>& logs, std::uint64_t sweeps,
                       GibbsResult& result) {
  std::unordered_map<Key, std::size_t, KeyHash> index;
  std::vector<std::size_t> owners, last;  // chains that visited a model, and the last of them
  std::vector<double> joint;
  for (std::size_t c = 0; c < logs.size(); ++c)
    for (const Visited& model : logs[c].models) {
      const auto [at, inserted] = index.try_emplace(model.key, joint.size());
      if (inserted) {
        joint.push_back(model.log_joint);
        owners.push_back(0);
        last.push_back(c);
      }
      ++owners[at->second];
      last[at->second] = c;
    }
  result.models = joint.size();
  LogSum all;
  for (const double x : joint) all.add(x);
  result.log_evidence_bound = all.log();
  if (logs.size() < 2) return;
  for (std::size_t c = 0; c < logs.size(); ++c) {
    LogSum others;
    for (std::size_t i = 0; i < joint.size(); ++i)
      if (owners[i] > 1 || last[i] != c) others.add(joint[i]);
    std::uint64_t inside = 0;
    for (const Visited& model : logs[c].models)
      if (owners[index.at(model.key)] > 1) inside += model.visits;
    const double share = static_cast<double>(inside) / static_cast<double>(sweeps);
    result.coverage.push_back(share);
    result.log_evidence.push_back(share > 0 ? others.log() - std::log(share)
                                            : std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace

std::size_t NodeTable::candidates() const {
  std::size_t total = 0;
  for (const auto& block : blocks) total += block.block.size;
  return total;
}

std::size_t NodeTable::bytes() const {
  std::size_t total = 0;
  for (const auto& block : blocks) total += packed(block.block.size) + 2 * block.block.size;
  return total * (count + kLanes) * sizeof(double);
}

GibbsResult gibbs(const NodeTable& table, const GibbsOptions& options, Monitor& monitor) {
  Prepared prepared{table, (table.count + kLanes - 1) / kLanes, {}, {}};
  prepared.base.resize(prepared.tiles * kLanes);
  for (const auto& block : table.blocks) {
    Tiles tiles;
    tiles.size = block.block.size;
    tiles.stride = packed(tiles.size) + 2 * tiles.size;
    tiles.lanes.resize(tiles.stride * prepared.tiles);
    prepared.blocks.push_back(std::move(tiles));
  }
  parallel_for(prepared.tiles, options.threads, monitor, [&](std::size_t tile) {
    for (std::size_t l = 0; l < kLanes; ++l) fill_node(prepared, tile * kLanes + l);
    monitor.step(0);
  });

  const std::size_t chains = options.chains, size = table.candidates();
  GibbsResult result;
  result.inclusion.resize(chains * size);
  result.effect_mean.resize(chains * size);
  result.effect_square.resize(chains * size);
  result.node_probability.resize(chains * table.count);
  result.flip_rate.resize(chains);
  result.swap_rate.resize(chains);
  const std::uint64_t gap = std::max<std::uint64_t>(
      1, (options.sweeps + options.states - 1) / std::max<std::size_t>(options.states, 1));
  const std::size_t stored =
      options.states == 0 ? 0 : static_cast<std::size_t>(options.sweeps / gap);
  result.slab.resize(chains * stored * size);
  result.state_node.resize(chains * stored);
  std::vector<ModelLog> logs(chains);
  parallel_for(chains, options.threads, monitor, [&](std::size_t c) {
    Chain chain(prepared, options.seed, c);
    std::size_t done = 0;
    for (std::uint64_t s = 0; s < options.burn_in + options.sweeps; ++s) {
      if (monitor.step()) return;
      const bool keep = s >= options.burn_in;
      chain.sweep(keep);
      if (!keep || done == stored || (s - options.burn_in) % gap != gap - 1) continue;
      const std::size_t row = c * stored + done++;
      chain.write(result.slab.data() + row * size);
      result.state_node[row] = static_cast<std::int64_t>(chain.node());
    }
    chain.finish();
    const double sweeps = static_cast<double>(options.sweeps);
    for (std::size_t j = 0; j < size; ++j) {
      result.inclusion[c * size + j] = chain.inclusion_sum[j] / sweeps;
      result.effect_mean[c * size + j] = chain.mean_sum[j] / sweeps;
      result.effect_square[c * size + j] = chain.square_sum[j] / sweeps;
    }
    for (std::size_t n = 0; n < table.count; ++n)
      result.node_probability[c * table.count + n] = chain.node_sum[n] / sweeps;
    result.flip_rate[c] = chain.moves.flip_rate();
    result.swap_rate[c] = chain.moves.swap_rate();
    logs[c] = std::move(chain.log);
  });
  for (std::size_t j = 0; j < size; ++j) {
    double low = 1, high = 0;
    for (std::size_t c = 0; c < chains; ++c) {
      low = std::min(low, result.inclusion[c * size + j]);
      high = std::max(high, result.inclusion[c * size + j]);
    }
    result.difference = std::max(result.difference, high - low);
  }
  if (!monitor.stopped()) estimate_evidence(logs, options.sweeps, result);
  return result;
}

void draw_effects(const Block& block, const BlockNode& node, const bool* model,
                  const double* normals, double* out) {
  const std::size_t n = block.size;
  const double* const v = block.eigenvectors.data();
  // Matheron's rule: a draw from the prior, moved by the gain times what it leaves unexplained.
  std::vector<double> matrix(n * n, 0), gap(n), variance(n);
  for (std::size_t j = 0; j < n; ++j) {
    variance[j] = model[j] ? node.slab : node.spike;
    out[j] = std::sqrt(variance[j]) * normals[j];
    gap[j] = node.residuals[j] - out[j];
    for (std::size_t k = 0; k < n; ++k) {
      gap[j] -= v[j * n + k] * std::sqrt(node.variances[k]) * normals[n + k];
      for (std::size_t i = 0; i <= j; ++i)
        matrix[j * n + i] += v[j * n + k] * node.variances[k] * v[i * n + k];
    }
    matrix[j * n + j] += variance[j];
  }
  cholesky_in_place(matrix, n);
  cholesky_solve_in_place(matrix, n, gap.data());
  for (std::size_t j = 0; j < n; ++j) out[j] += variance[j] * gap[j];
}

}  // namespace mrfast
