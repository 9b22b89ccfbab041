// Notation as in ld_gibbs.cpp: given the effect b and the spike's variance A0 a block has
// R = V diag(1 / (v + A0)) V' and r = R e, and with S the candidates in the slab, d the difference
// of the variances and m the slab's means,
//   log L(S) = log L(no slab) - (1/2) log det G_SS + (1/2) w_S' G_SS^-1 w_S - (1/2) m_S' m_S / d,
//   G = I + d R,  w = sqrt(d) r + m / sqrt(d).
// A sweep moves S given b and the hyper-parameters, draws b given S and these from all effects,
// and the hyper-parameters given S and b from the whole table.
#include "mrfast/ld_identified_gibbs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/ld_model.hpp"
#include "mrfast/small.hpp"

namespace mrfast {

namespace {

constexpr double kLogTwo = 0x1.62e42fefa39efp-1;

using Part = BlockLikelihood::Part;

// R (packed) and r of one block, eight effects to a tile, the tiles of one spike after the other.
struct Tiles {
  std::size_t size = 0, stride = 0;
  std::vector<Lanes> lanes;
};

// Nodes of the table with the same variances, and of these the ones with the same slab's means.
struct Family {
  SlabMean mean;
  double shift;  // rho a1
  std::size_t first, count;
};
struct Scale {
  std::size_t spike;  // which
  double difference;  // d
  std::vector<Family> families;
};

// Constant while the chains run.
struct Prepared {
  Prepared(const BlockLikelihood& blocks_of, const EffectTable& effects)
      : likelihood(blocks_of), table(effects) {}

  const BlockLikelihood& likelihood;
  const EffectTable& table;
  std::size_t count = 0, hyper = 0, tiles = 0, members = 0;
  std::vector<double> spikes;                   // variances A0
  std::vector<std::size_t> spike_of, scale_of;  // (H,)
  std::vector<double> shift;                    // (H,)
  std::vector<Scale> scales;
  std::vector<Tiles> blocks;
  std::vector<double> base;                // (spikes, 8 tiles): log likelihood without a slab
  std::vector<double> by_hyper;            // (H, 8 tiles): log_rest with base
  std::vector<double> by_effect;           // (n, H): the same
  std::vector<double> weight;              // (8 tiles,)
  std::vector<double> log_pi, log_not_pi;  // (H,)

  const Lanes* tile(std::size_t block, std::size_t spike, std::size_t t) const {
    return blocks[block].lanes.data() + (spike * tiles + t) * blocks[block].stride;
  }
};

const std::vector<double>& direction(const Part& part, SlabMean mean) {
  return mean == SlabMean::kSign ? part.sign : part.proportional;
}

void arrange(Prepared& p) {
  const HyperTable& t = p.likelihood.table();
  const double unit = p.likelihood.unit();
  std::vector<std::pair<double, double>> seen;
  for (std::size_t h = 0; h < p.hyper; ++h) {
    const double a0 = t.a0[h] * unit, a1 = t.a1[h] * unit;
    const double spike = a0 * a0;
    std::size_t s = 0;
    while (s < p.spikes.size() && p.spikes[s] != spike) ++s;
    if (s == p.spikes.size()) p.spikes.push_back(spike);
    std::size_t k = 0;
    while (k < p.scales.size() && (p.scales[k].spike != s || p.scales[k].difference != a1 * a1))
      ++k;
    if (k == p.scales.size()) p.scales.push_back({s, a1 * a1, {}});
    p.spike_of.push_back(s);
    p.scale_of.push_back(k);
    p.shift.push_back(t.mean[h] == SlabMean::kCentred ? 0.0 : t.rho[h] * a1);
    p.log_pi.push_back(std::log(t.pi[h]));
    p.log_not_pi.push_back(std::log1p(-t.pi[h]));
    auto& families = p.scales[k].families;
    const bool follows =
        h > 0 && p.scale_of[h - 1] == k && t.mean[h - 1] == t.mean[h] && t.rho[h - 1] == t.rho[h];
    if (!follows) families.push_back({t.mean[h], p.shift.back(), h, 0});
    ++families.back().count;
  }
}

void fill_effect(Prepared& p, std::size_t i) {
  const double b = p.table.effect[std::min(i, p.count - 1)];
  const std::size_t lane = i % kLanes;
  for (std::size_t s = 0; s < p.spikes.size(); ++s) p.base[s * p.tiles * kLanes + i] = 0;
  for (std::size_t k = 0; k < p.blocks.size(); ++k) {
    const Part& part = p.likelihood.parts()[k];
    const std::size_t size = part.block.size;
    const double* const v = part.block.eigenvectors.data();
    const auto at = p.likelihood.at_effect(part, b);
    std::vector<double> row(size), transposed(size * size);
    for (std::size_t j = 0; j < size; ++j)
      for (std::size_t c = 0; c < size; ++c) transposed[c * size + j] = v[j * size + c];
    for (std::size_t s = 0; s < p.spikes.size(); ++s) {
      Lanes* const tile =
          p.blocks[k].lanes.data() + (s * p.tiles + i / kLanes) * p.blocks[k].stride;
      double determinant = 0, square = 0;
      for (std::size_t c = 0; c < size; ++c) {
        const double variance = at.variances[c] + p.spikes[s];
        determinant += std::log(variance);
        square += at.rotated[c] * at.rotated[c] / variance;
      }
      p.base[s * p.tiles * kLanes + i] -=
          0.5 * (static_cast<double>(size) * kLogTwoPi + determinant + square);
      for (std::size_t j = 0; j < size; ++j) {
        std::fill(row.begin(), row.end(), 0.0);
        double r = 0;
        for (std::size_t c = 0; c < size; ++c) {
          const double f = v[j * size + c] / (at.variances[c] + p.spikes[s]);
          const double* const other = transposed.data() + c * size;
          for (std::size_t l = 0; l <= j; ++l) row[l] += f * other[l];
          r += f * at.rotated[c];
        }
        for (std::size_t l = 0; l <= j; ++l) tile[packed(j) + l].v[lane] = row[l];
        tile[packed(size) + j].v[lane] = r;
      }
    }
  }
}

// Adds the log likelihood ratio of a model to the one without slabs at every effect, less the term
// in the slab's means: exponents, and factors to be multiplied. shifted: m / sqrt(d) of the
// members. scratch: (k (k + 1) / 2 + k,)
MRFAST_DISPATCH void model_terms(const Lanes* tile, std::size_t size, std::size_t stride,
                                 std::size_t count, const Members& members, double difference,
                                 const double* shifted, Lanes* scratch, double* exponents,
                                 double* factors) {
  const std::size_t k = members.size();
  const double root = std::sqrt(difference);
  Lanes* const z = scratch + packed(k);
  for (std::size_t t = 0; t < count; ++t, tile += stride) {
    Lanes exponent{};
    LogProduct product;
    for (std::size_t a = 0; a < k; ++a) {
      const std::size_t j = members[a];
      Lanes* const row = scratch + packed(a);  // of the factor, its diagonal inverted
      Lanes pivot = tile[packed(j) + j], w = tile[packed(size) + j];
      for (std::size_t l = 0; l < kLanes; ++l) {
        pivot.v[l] = 1.0 + difference * pivot.v[l];
        w.v[l] = root * w.v[l] + shifted[a];
      }
      for (std::size_t b = 0; b < a; ++b) {
        const Lanes* const other = scratch + packed(b);
        Lanes x = tile[packed(j) + members[b]];
        for (std::size_t l = 0; l < kLanes; ++l) x.v[l] *= difference;
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
        exponent.v[l] += 0.5 * w.v[l] * w.v[l];
        product.product[l] *= inverse.v[l];
      }
      product.renormalise();
      row[a] = inverse;
      z[a] = w;
    }
    for (std::size_t l = 0; l < kLanes; ++l) {
      exponents[t * kLanes + l] += exponent.v[l] + product.exponent[l] * kLogTwo;
      factors[t * kLanes + l] *= product.product[l];
    }
  }
}

// out = factors exp(exponents - largest)
MRFAST_DISPATCH void scaled_exponentials(const double* exponents, const double* factors,
                                         double largest, std::size_t n, double* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = factors[i] * fast_exp(exponents[i] - largest);
}
MRFAST_DISPATCH void add_scaled(const double* values, double f, std::size_t n, double* sums) {
  for (std::size_t i = 0; i < n; ++i) sums[i] += f * values[i];
}

// What the table needs of a model at one effect: with X one of r, sign and proportional,
// products X_S' G_SS^-1 Y_S, and the squares of the means.
class HyperTerms {
 public:
  explicit HyperTerms(const Prepared& p) : p_(p), value_(p.hyper) {
    std::size_t largest = 0;
    for (const Tiles& tiles : p.blocks) largest = std::max(largest, tiles.size);
    gathered_.resize(packed(largest) + largest);
    factor_.resize(packed(largest));
    z_.resize(3 * largest);
  }

  // Log density of every node of the table with the models at effect i.
  const std::vector<double>& compute(const std::vector<Members>& models, std::size_t i) {
    const std::size_t scales = p_.scales.size();
    sums_.assign(scales, {});
    std::size_t slabs = 0;
    double squares[2] = {};
    for (std::size_t k = 0; k < models.size(); ++k) {
      const Members& model = models[k];
      const Part& part = p_.likelihood.parts()[k];
      slabs += model.size();
      for (const std::uint32_t j : model) {
        squares[0] += part.sign[j] * part.sign[j];
        squares[1] += part.proportional[j] * part.proportional[j];
      }
      std::size_t spike = p_.spikes.size();
      for (std::size_t s = 0; s < scales; ++s) {
        if (p_.scales[s].spike != spike) {
          spike = p_.scales[s].spike;
          gather(k, model, spike, i);
        }
        add_products(part, model, p_.scales[s].difference, sums_[s]);
      }
    }
    const double k = static_cast<double>(slabs), rest = static_cast<double>(p_.members - slabs);
    const double* const base = p_.by_effect.data() + i * p_.hyper;
    for (std::size_t s = 0; s < scales; ++s) {
      const Products& q = sums_[s];
      const double d = p_.scales[s].difference;
      for (const Family& family : p_.scales[s].families) {
        double exponent = q.log_root + 0.5 * d * q.rr;
        if (family.mean != SlabMean::kCentred) {
          const std::size_t kind = family.mean == SlabMean::kSign ? 0 : 1;
          exponent += family.shift * q.rx[kind] +
                      0.5 * family.shift * family.shift / d * (q.xx[kind] - squares[kind]);
        }
        for (std::size_t h = family.first; h < family.first + family.count; ++h)
          value_[h] = base[h] + exponent + k * p_.log_pi[h] + rest * p_.log_not_pi[h];
      }
    }
    return value_;
  }

 private:
  struct Products {
    double log_root = 0, rr = 0, rx[2] = {}, xx[2] = {};
  };

  void gather(std::size_t block, const Members& model, std::size_t spike, std::size_t i) {
    const std::size_t size = p_.blocks[block].size, lane = i % kLanes;
    const Lanes* const tile = p_.tile(block, spike, i / kLanes);
    for (std::size_t a = 0; a < model.size(); ++a) {
      for (std::size_t b = 0; b <= a; ++b)
        gathered_[packed(a) + b] = tile[packed(model[a]) + model[b]].v[lane];
      gathered_[packed(model.size()) + a] = tile[packed(size) + model[a]].v[lane];
    }
  }

  void add_products(const Part& part, const Members& model, double difference, Products& out) {
    const std::size_t k = model.size();
    double product = 1;
    double *const zr = z_.data(), *const zs = zr + k, *const zp = zs + k;
    for (std::size_t a = 0; a < k; ++a) {
      double* const row = factor_.data() + packed(a);
      const double* const from = gathered_.data() + packed(a);
      double pivot = 1.0 + difference * from[a];
      double r = gathered_[packed(k) + a], s = part.sign[model[a]], x = part.proportional[model[a]];
      for (std::size_t b = 0; b < a; ++b) {
        const double* const other = factor_.data() + packed(b);
        double value = difference * from[b];
        for (std::size_t c = 0; c < b; ++c) value -= row[c] * other[c];
        value *= other[b];
        row[b] = value;
        pivot -= value * value;
        r -= value * zr[b];
        s -= value * zs[b];
        x -= value * zp[b];
      }
      const double inverse = inverse_root(pivot);
      row[a] = inverse;
      zr[a] = r *= inverse;
      zs[a] = s *= inverse;
      zp[a] = x *= inverse;
      product *= inverse;
      if (a % 8 == 7) {
        out.log_root += std::log(product);
        product = 1;
      }
      out.rr += r * r;
      out.rx[0] += r * s;
      out.rx[1] += r * x;
      out.xx[0] += s * s;
      out.xx[1] += x * x;
    }
    out.log_root += std::log(product);
  }

  const Prepared& p_;
  std::vector<double> value_, gathered_, factor_, z_;
  std::vector<Products> sums_;
};

std::size_t draw_index(const double* weights, std::size_t n, double sum, double uniform) {
  double left = uniform * sum;
  std::size_t last = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    last = i;
    if (left < weights[i]) break;
    left -= weights[i];
  }
  return last;
}

class Chain {
 public:
  Chain(const Prepared& p, std::uint64_t seed, std::size_t stream)
      : p_(p),
        random_(seed, stream),
        hyper_(p),
        density_sum(p.tiles * kLanes),
        joint(p.hyper * p.tiles * kLanes),
        hyper_sum(p.hyper),
        inclusion_sum(p.members) {
    std::size_t largest = 0;
    for (const Tiles& tiles : p.blocks) {
      models_.emplace_back(tiles.size);
      largest = std::max(largest, tiles.size);
    }
    sorted_.resize(models_.size());
    scratch_.resize(packed(largest) + largest);
    shifted_.resize(largest);
    exponents_.resize(p.tiles * kLanes);
    factors_.resize(p.tiles * kLanes);
    values_.resize(p.tiles * kLanes);
    shares_.resize(p.hyper);
    key_.resize((p.members + 63) / 64);
    // Begins with hyper-parameters and a model drawn from the prior, at any effect.
    const auto& prior = p.likelihood.table().weight;
    double total = 0;
    for (const double w : prior) total += w;
    node_ = draw_index(prior.data(), p.hyper, total, random_.uniform());
    do at_ = random_.below(p.count);
    while (!(p.weight[at_] > 0));
    load();
    for (BlockModel& model : models_)
      for (std::size_t j = 0; j < model.size(); ++j)
        if (random_.uniform() < p.likelihood.table().pi[node_]) model.take_in(j);
  }

  void sweep(bool keep) {
    std::size_t first = 0;
    for (std::size_t k = 0; k < models_.size(); ++k) {
      flip_all(models_[k], random_, moves, keep ? inclusion_sum.data() + first : nullptr);
      swap_all(models_[k], random_, moves);
      sorted_[k] = models_[k].members();
      std::sort(sorted_[k].begin(), sorted_[k].end());
      first += models_[k].size();
    }
    draw_effect(keep);
    draw_hyper(keep);
    load();
    if (keep) visit();
  }

  std::size_t at() const { return at_; }
  std::size_t node() const { return node_; }
  void write(char* slab) const {
    for (const BlockModel& model : models_)
      for (std::size_t j = 0; j < model.size(); ++j) *slab++ = model.contains(j);
  }

 private:
  void draw_effect(bool keep) {
    const std::size_t n = exponents_.size();
    const std::size_t spike = p_.spike_of[node_];
    const double d = p_.scales[p_.scale_of[node_]].difference, root = std::sqrt(d);
    const SlabMean mean = p_.likelihood.table().mean[node_];
    const double* const rest = p_.by_hyper.data() + node_ * n;
    std::copy(rest, rest + n, exponents_.begin());
    std::fill(factors_.begin(), factors_.end(), 1.0);
    for (std::size_t k = 0; k < models_.size(); ++k) {
      const Members& model = sorted_[k];
      if (model.empty()) continue;
      const Part& part = p_.likelihood.parts()[k];
      for (std::size_t a = 0; a < model.size(); ++a)
        shifted_[a] = mean == SlabMean::kCentred
                          ? 0.0
                          : p_.shift[node_] * direction(part, mean)[model[a]] / root;
      model_terms(p_.tile(k, spike, 0), p_.blocks[k].size, p_.blocks[k].stride, p_.tiles, model, d,
                  shifted_.data(), scratch_.data(), exponents_.data(), factors_.data());
    }
    double largest = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < p_.count; ++i)
      if (p_.weight[i] > 0) largest = std::max(largest, exponents_[i]);
    scaled_exponentials(exponents_.data(), factors_.data(), largest, n, values_.data());
    double sum = 0;
    for (std::size_t i = 0; i < p_.count; ++i) sum += values_[i] * p_.weight[i];
    if (keep) add_scaled(values_.data(), 1 / sum, n, density_sum.data());
    if (keep) add_scaled(values_.data(), 1 / sum, n, joint.data() + node_ * n);
    for (std::size_t i = 0; i < p_.count; ++i) values_[i] *= p_.weight[i];
    at_ = draw_index(values_.data(), p_.count, sum, random_.uniform());
  }

  void draw_hyper(bool keep) {
    const std::vector<double>& value = hyper_.compute(sorted_, at_);
    const double largest = *std::max_element(value.begin(), value.end());
    double sum = 0;
    for (std::size_t h = 0; h < p_.hyper; ++h) {
      shares_[h] = fast_exp(value[h] - largest);
      sum += shares_[h];
    }
    if (keep) add_scaled(shares_.data(), 1 / sum, p_.hyper, hyper_sum.data());
    node_ = draw_index(shares_.data(), p_.hyper, sum, random_.uniform());
  }

  // Takes the models to the effect and the hyper-parameters.
  void load() {
    const std::size_t spike = p_.spike_of[node_], lane = at_ % kLanes;
    const double d = p_.scales[p_.scale_of[node_]].difference, root = std::sqrt(d);
    const SlabMean mean = p_.likelihood.table().mean[node_];
    const double odds = p_.log_pi[node_] - p_.log_not_pi[node_];
    for (std::size_t k = 0; k < models_.size(); ++k) {
      const Part& part = p_.likelihood.parts()[k];
      const std::size_t size = p_.blocks[k].size;
      const Lanes* const tile = p_.tile(k, spike, at_ / kLanes);
      double* const local = models_[k].local().data();
      for (std::size_t i = 0; i < packed(size); ++i) local[i] = d * tile[i].v[lane];
      for (std::size_t j = 0; j < size; ++j) {
        const double m =
            mean == SlabMean::kCentred ? 0.0 : p_.shift[node_] * direction(part, mean)[j] / root;
        local[packed(j) + j] += 1.0;
        local[packed(size) + j] = root * tile[packed(size) + j].v[lane] + m;
        local[packed(size) + size + j] = odds - 0.5 * m * m;
      }
      models_[k].moved();
    }
  }

  void visit() {
    std::fill(key_.begin(), key_.end(), 0);
    std::size_t first = 0;
    for (std::size_t k = 0; k < models_.size(); ++k) {
      for (const std::uint32_t j : sorted_[k])
        key_[(first + j) / 64] |= std::uint64_t{1} << ((first + j) % 64);
      first += models_[k].size();
    }
    const auto [place, inserted] = index.try_emplace(key_, visited.size());
    if (inserted) visited.emplace_back(key_, 0);
    ++visited[place->second].second;
  }

  const Prepared& p_;
  Philox random_;
  HyperTerms hyper_;
  std::vector<BlockModel> models_;
  std::vector<Members> sorted_;
  std::size_t at_ = 0, node_ = 0;
  std::vector<double> exponents_, factors_, values_, shares_, shifted_;
  std::vector<Lanes> scratch_;
  Key key_;

 public:
  std::vector<double> density_sum, joint, hyper_sum, inclusion_sum;
  MoveCounts moves;
  std::unordered_map<Key, std::size_t, KeyHash> index;
  std::vector<std::pair<Key, std::uint64_t>> visited;  // in the order of the first visits
};

std::vector<Members> models_of(const Prepared& p, const Key& key) {
  std::vector<Members> out;
  std::size_t first = 0;
  for (const Tiles& tiles : p.blocks) {
    Members model;
    for (std::size_t j = 0; j < tiles.size; ++j)
      if (key[(first + j) / 64] >> ((first + j) % 64) & 1)
        model.push_back(static_cast<std::uint32_t>(j));
    out.push_back(std::move(model));
    first += tiles.size;
  }
  return out;
}

// log p(data, model), summed over the table and the effects.
double log_joint(const Prepared& p, const Key& key) {
  HyperTerms terms(p);
  const auto models = models_of(p, key);
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (std::size_t i = 0; i < p.count; ++i) {
    if (!(p.weight[i] > 0)) continue;
    const std::vector<double>& value = terms.compute(models, i);
    const double top = *std::max_element(value.begin(), value.end());
    if (top < largest - 60) continue;
    double here = 0;
    for (const double x : value) here += fast_exp(x - top);
    here *= p.weight[i];
    if (top > largest) {
      sum = sum * std::exp(largest - top) + here;
      largest = top;
    } else {
      sum += here * std::exp(top - largest);
    }
  }
  return largest + std::log(sum);
}

// The evidence is that of a set of models divided by the set's probability. The models that the
// other chains visited most are such a set: p(data, model) is computed for each, and the chain's
// share of time in them estimates their probability, without bias since it had no part in them.
void estimate_evidence(const Prepared& p, const std::vector<Chain>& chains,
                       const ModelSampling& options, Monitor& monitor, ModelSample& out) {
  if (chains.size() < 2 || options.models == 0) return;
  std::vector<std::vector<Key>> sets;
  std::unordered_map<Key, std::size_t, KeyHash> place;
  std::vector<Key> keys;
  for (std::size_t c = 0; c < chains.size(); ++c) {
    std::unordered_map<Key, std::size_t, KeyHash> index;
    std::vector<std::pair<Key, std::uint64_t>> others;
    for (std::size_t o = 0; o < chains.size(); ++o) {
      if (o == c) continue;
      for (const auto& [key, visits] : chains[o].visited) {
        const auto [at, inserted] = index.try_emplace(key, others.size());
        if (inserted) others.emplace_back(key, 0);
        others[at->second].second += visits;
      }
    }
    std::stable_sort(others.begin(), others.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    if (others.size() > options.models) others.resize(options.models);
    sets.emplace_back();
    for (const auto& [key, visits] : others) {
      sets.back().push_back(key);
      if (place.try_emplace(key, keys.size()).second) keys.push_back(key);
    }
  }
  std::vector<double> joint(keys.size());
  parallel_for(keys.size(), options.threads, monitor, [&](std::size_t i) {
    joint[i] = log_joint(p, keys[i]);
    monitor.step(0);
  });
  for (std::size_t c = 0; c < chains.size(); ++c) {
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    std::uint64_t inside = 0;
    for (const Key& key : sets[c]) top = std::max(top, joint[place.at(key)]);
    for (const Key& key : sets[c]) {
      sum += std::exp(joint[place.at(key)] - top);
      const auto at = chains[c].index.find(key);
      if (at != chains[c].index.end()) inside += chains[c].visited[at->second].second;
    }
    const double share = static_cast<double>(inside) / static_cast<double>(options.sweeps);
    out.coverage.push_back(share);
    out.log_evidence.push_back(inside > 0 ? top + std::log(sum) - std::log(share)
                                          : std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace

LargeBlocks::LargeBlocks(const Associations& data, const HyperTable& table, double g,
                         const std::vector<CorrelatedGroup>& groups)
    : likelihood_(data, table, g, groups), size_(data.x.size()), members_(0) {
  for (const Part& part : likelihood_.parts()) members_ += part.block.size;
}

std::size_t LargeBlocks::bytes(std::size_t effects) const {
  std::size_t cells = 0;
  for (const Part& part : likelihood_.parts()) cells += packed(part.block.size) + part.block.size;
  std::vector<double> spikes = likelihood_.table().a0;
  std::sort(spikes.begin(), spikes.end());
  spikes.erase(std::unique(spikes.begin(), spikes.end()), spikes.end());
  return (cells * spikes.size() + 6 * likelihood_.table().size()) * (effects + kLanes) *
         sizeof(double);
}

ModelSample LargeBlocks::sample(const EffectTable& table, const ModelSampling& options,
                                Monitor& monitor) const {
  Prepared p(likelihood_, table);
  p.count = table.effect.size();
  p.hyper = likelihood_.table().size();
  p.tiles = (p.count + kLanes - 1) / kLanes;
  p.members = members_;
  arrange(p);
  const std::size_t n = p.tiles * kLanes;
  for (const Part& part : likelihood_.parts()) {
    Tiles tiles;
    tiles.size = part.block.size;
    tiles.stride = packed(tiles.size) + tiles.size;
    tiles.lanes.resize(tiles.stride * p.tiles * p.spikes.size());
    p.blocks.push_back(std::move(tiles));
  }
  p.base.resize(p.spikes.size() * n);
  parallel_for(p.tiles, options.threads, monitor, [&](std::size_t t) {
    for (std::size_t l = 0; l < kLanes; ++l) fill_effect(p, t * kLanes + l);
    monitor.step(0);
  });
  ModelSample out;
  if (monitor.stopped()) return out;
  p.weight.assign(n, 0.0);
  std::copy(table.weight.begin(), table.weight.end(), p.weight.begin());
  p.by_hyper.resize(p.hyper * n);
  p.by_effect.resize(p.count * p.hyper);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t h = 0; h < p.hyper; ++h) {
      const std::size_t from = std::min(i, p.count - 1);
      const double value = table.log_rest[from * p.hyper + h] + p.base[p.spike_of[h] * n + from];
      p.by_hyper[h * n + i] = value;
      p.by_effect[from * p.hyper + h] = value;
    }

  const std::uint64_t gap = std::max<std::uint64_t>(
      1, (options.sweeps + options.states - 1) / std::max<std::size_t>(options.states, 1));
  const std::size_t stored =
      options.states == 0 ? 0 : static_cast<std::size_t>(options.sweeps / gap);
  out.slab.resize(options.chains * stored * members_);
  out.at.resize(options.chains * stored);
  out.node.resize(options.chains * stored);
  std::vector<Chain> chains;
  for (std::size_t c = 0; c < options.chains; ++c) chains.emplace_back(p, options.seed, c);
  parallel_for(options.chains, options.threads, monitor, [&](std::size_t c) {
    Chain& chain = chains[c];
    std::size_t done = 0;
    for (std::uint64_t s = 0; s < options.burn_in + options.sweeps; ++s) {
      if (monitor.step()) return;
      const bool keep = s >= options.burn_in;
      chain.sweep(keep);
      if (!keep || done == stored || (s - options.burn_in) % gap != gap - 1) continue;
      const std::size_t row = c * stored + done++;
      chain.write(out.slab.data() + row * members_);
      out.at[row] = static_cast<std::int64_t>(chain.at());
      out.node[row] = static_cast<std::int64_t>(chain.node());
    }
  });
  if (monitor.stopped()) return out;

  const double sweeps = static_cast<double>(options.sweeps);
  out.joint.assign(p.count * p.hyper, 0.0);
  for (const Chain& chain : chains) {
    for (std::size_t i = 0; i < p.count; ++i) {
      out.log_density.push_back(std::log(chain.density_sum[i] / sweeps));
      for (std::size_t h = 0; h < p.hyper; ++h)
        out.joint[i * p.hyper + h] +=
            chain.joint[h * n + i] * p.weight[i] / sweeps / static_cast<double>(options.chains);
    }
    for (const double x : chain.hyper_sum) out.hyper.push_back(x / sweeps);
    for (const double x : chain.inclusion_sum) out.inclusion.push_back(x / sweeps);
    out.flip_rate.push_back(chain.moves.flip_rate());
    out.swap_rate.push_back(chain.moves.swap_rate());
  }
  estimate_evidence(p, chains, options, monitor, out);
  return out;
}

std::vector<double> LargeBlocks::moments(const double* b, const std::int64_t* node,
                                         const bool* slab, std::size_t n, std::size_t threads,
                                         Monitor& monitor) const {
  constexpr std::size_t kStates = 64;  // in a chunk
  const std::size_t chunks = (n + kStates - 1) / kStates;
  std::vector<std::vector<double>> partial(chunks);
  parallel_for(chunks, threads, monitor, [&](std::size_t chunk) {
    std::vector<double>& sums = partial[chunk];
    sums.assign(4 * size_, 0.0);
    for (std::size_t i = chunk * kStates; i < std::min(n, (chunk + 1) * kStates); ++i) {
      const bool* in = slab + i * members_;
      for (const Part& part : likelihood_.parts()) {
        const std::size_t size = part.block.size, h = static_cast<std::size_t>(node[i]);
        const auto at = likelihood_.at_effect(part, b[i]);
        const auto means = likelihood_.slab_means(part, h);
        const BlockNode here = likelihood_.block_node(at, h, means.data());
        const double* const v = part.block.eigenvectors.data();
        // Pleiotropic effects given the model: precision Psi^-1 + 1 / A. Along the eigenvectors
        // (W columns) covariance V' C V.
        std::vector<double> precision(size * size), mean(size), column(size);
        for (std::size_t j = 0; j < size; ++j) {
          for (std::size_t k = 0; k < size; ++k) {
            const double f = v[j * size + k] / at.variances[k];
            mean[j] += f * at.rotated[k];
            for (std::size_t l = 0; l <= j; ++l) precision[j * size + l] += f * v[l * size + k];
          }
          const double variance = in[j] ? here.slab : here.spike;
          precision[j * size + j] += 1 / variance;
          if (in[j]) mean[j] += means[j] / variance;
        }
        cholesky_in_place(precision, size);
        cholesky_solve_in_place(precision, size, mean.data());
        // First stage along the eigenvectors: shrunk + coupling (rotated - V' a), variance spread.
        std::vector<double> stage(size), shift(size);
        for (std::size_t k = 0; k < size; ++k) {
          double along = 0;
          for (std::size_t j = 0; j < size; ++j) along += v[j * size + k] * mean[j];
          shift[k] = at.shrunk[k] + at.coupling[k] * (at.rotated[k] - along);
        }
        for (std::size_t j = 0; j < size; ++j) {
          // Variances: |L^-1 e_j|^2, and |L^-1 V diag(coupling) V' e_j|^2.
          double variance[2] = {};
          for (int which = 0; which < 2; ++which) {
            std::fill(column.begin(), column.end(), 0.0);
            if (which == 0) {
              column[j] = 1;
            } else {
              for (std::size_t k = 0; k < size; ++k) {
                const double f = at.coupling[k] * v[j * size + k];
                for (std::size_t l = 0; l < size; ++l) column[l] += v[l * size + k] * f;
              }
            }
            for (std::size_t a = 0; a < size; ++a) {
              double x = column[a];
              for (std::size_t c = 0; c < a; ++c) x -= precision[a * size + c] * column[c];
              column[a] = x / precision[a * size + a];
              variance[which] += column[a] * column[a];
            }
          }
          double first = 0;
          for (std::size_t k = 0; k < size; ++k) {
            first += v[j * size + k] * shift[k];
            variance[1] += v[j * size + k] * v[j * size + k] * at.spread[k];
          }
          const std::size_t place = part.members[j];
          sums[place] += mean[j];
          sums[size_ + place] += mean[j] * mean[j] + variance[0];
          sums[2 * size_ + place] += first;
          sums[3 * size_ + place] += first * first + variance[1];
        }
        in += size;
      }
    }
    monitor.step(0);
  });
  std::vector<double> out(4 * size_, 0.0);
  for (const auto& sums : partial)
    for (std::size_t i = 0; i < sums.size(); ++i) out[i] += sums[i] / static_cast<double>(n);
  return out;
}

void LargeBlocks::draw(const double* b, const std::int64_t* node, const bool* model, std::size_t n,
                       const double* normals, bool* slab, double* first_stage, double* pleiotropy,
                       std::size_t threads, Monitor& monitor) const {
  parallel_for(n, threads, monitor, [&](std::size_t i) {
    const bool* in = model + i * members_;
    for (const Part& part : likelihood_.parts()) {
      const std::size_t size = part.block.size, h = static_cast<std::size_t>(node[i]);
      const auto at = likelihood_.at_effect(part, b[i]);
      const auto means = likelihood_.slab_means(part, h);
      const BlockNode here = likelihood_.block_node(at, h, means.data());
      const std::vector<bool> chosen(in, in + size);
      likelihood_.draw_effects(part, at, here, chosen, normals + i * 2 * size_, slab + i * size_,
                               first_stage + i * size_, pleiotropy + i * size_);
      in += size;
    }
    monitor.step(0);
  });
}

}  // namespace mrfast
