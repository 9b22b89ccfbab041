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
#include "mrfast/random.hpp"

namespace mrfast {

namespace {

constexpr double kLogTwoPi = 1.8378770664093454836;
constexpr double kLogTwo = 0x1.62e42fefa39efp-1;
constexpr double kOutside = -1e300;  // log weight of lanes beyond the last node

// Members of a model, in ascending order.
using Members = std::vector<std::uint32_t>;

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

// A model of one block at one node: its candidates may be taken in and out.
class BlockModel {
 public:
  explicit BlockModel(const Tiles& tiles)
      : tiles_(tiles),
        size_(tiles.size),
        in_(size_, 0),
        local_(tiles.stride),
        factor_(packed(size_)),
        z_(size_),
        column_(size_) {}

  std::size_t size() const { return size_; }
  std::size_t slabs() const { return members_.size(); }
  bool contains(std::size_t j) const { return in_[j] != 0; }
  std::size_t member(std::size_t i) const { return members_[i]; }
  const Members& members() const { return members_; }

  void move_to(std::size_t node) {
    const Lanes* const tile = tiles_.lanes.data() + node / kLanes * tiles_.stride;
    const std::size_t lane = node % kLanes;
    for (std::size_t i = 0; i < tiles_.stride; ++i) local_[i] = tile[i].v[lane];
    std::sort(members_.begin(), members_.end());
    factorise(0);
  }

  // Logarithm of the odds of candidate j, which is out, to be in.
  double log_odds(std::size_t j) {
    const std::size_t k = members_.size();
    double pivot = g(j, j);
    double w = local_[tiles_.vector_at() + j];
    solve(j);
    for (std::size_t a = 0; a < k; ++a) {
      pivot -= column_[a] * column_[a];
      w -= column_[a] * z_[a];
    }
    pivot = std::max(pivot, 1.0);
    return 0.5 * (w * w / pivot - std::log(pivot)) + local_[tiles_.gain_at() + j];
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
      double vector = local_[tiles_.vector_at() + j] - mean / root, diagonal = g(j, j) - 1.0;
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
      double pivot = g(j, j), w = local_[tiles_.vector_at() + j];
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

  const Tiles& tiles_;
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

double probability(double log_odds) { return 1.0 / (1.0 + std::exp(-log_odds)); }

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
      models_.emplace_back(tiles);
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
      flips(models_[i], keep ? inclusion_sum.data() + first : nullptr);
      swaps(models_[i]);
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

 private:
  void flips(BlockModel& model, double* inclusion) {
    for (std::size_t j = 0; j < model.size(); ++j) {
      const bool was_in = model.contains(j);
      if (was_in) model.take_out(j);
      const double odds = model.log_odds(j);
      if (inclusion != nullptr) inclusion[j] += probability(odds);
      const double ratio = was_in ? -odds : odds;  // of the flipped model to this one
      const bool accepted = ratio >= 0 || random_.uniform() < std::exp(ratio);
      if (was_in != accepted) model.take_in(j);
      ++flips_proposed;
      if (accepted) ++flips_accepted;
    }
  }

  void swaps(BlockModel& model) {
    const std::size_t k = model.slabs(), size = model.size();
    if (k == 0 || k == size) return;
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t out = model.member(random_.below(k));
      std::size_t in = random_.below(size - k);
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
      const bool accepted = ratio >= 0 || random_.uniform() < std::exp(ratio);
      model.take_in(accepted ? in : out);
      ++swaps_proposed;
      if (accepted) ++swaps_accepted;
    }
  }

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
    for (BlockModel& model : models_) model.move_to(node);
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
  std::uint64_t flips_proposed = 0, flips_accepted = 0, swaps_proposed = 0, swaps_accepted = 0;
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

double rate(std::uint64_t accepted, std::uint64_t proposed) {
  return proposed == 0 ? 0.0 : static_cast<double>(accepted) / static_cast<double>(proposed);
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
  std::vector<ModelLog> logs(chains);
  parallel_for(chains, options.threads, monitor, [&](std::size_t c) {
    Chain chain(prepared, options.seed, c);
    for (std::uint64_t s = 0; s < options.burn_in + options.sweeps; ++s) {
      if (monitor.step()) return;
      chain.sweep(s >= options.burn_in);
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
    result.flip_rate[c] = rate(chain.flips_accepted, chain.flips_proposed);
    result.swap_rate[c] = rate(chain.swaps_accepted, chain.swaps_proposed);
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

}  // namespace mrfast
