// The models of a block form a binary tree: take the candidates one after the other, each out or
// in. With R = (V diag(v) V' + A0 I)^-1, d = A1 - A0, G = I + d R and w = sqrt(d) R e +
// mean/sqrt(d),
//   log L(S) = log L(no slab) - (1/2) log det G_SS + (1/2) w_S' G_SS^-1 w_S - sum_S mean^2/(2 d),
// where taking candidate j in is one step of Gauss elimination on the candidates still to come and
// leaving it out is nothing at all. The elimination of the last candidates is the most frequent and
// the cheapest: the average model costs a few operations, whatever the size of the block.
// Eight nodes are summed side by side, or, for few nodes, the eight choices for the first three
// candidates of one node.
#include "mrfast/ld_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "mrfast/dispatch.hpp"
#include "mrfast/lanes.hpp"
#include "mrfast/ld_tree.hpp"

namespace mrfast {

namespace {

constexpr double kUnderflow = 1e-250;  // sums below are computed again with another scale
constexpr std::size_t kLeaf = 3;       // last candidates, summed in one go

enum class Sum { kTotal, kInclusion, kSlabs, kSlabsInclusion };

constexpr bool by_slabs(Sum sum) { return sum == Sum::kSlabs || sum == Sum::kSlabsInclusion; }
constexpr bool with_inclusion(Sum sum) {
  return sum == Sum::kInclusion || sum == Sum::kSlabsInclusion;
}

// Scratch memory of one thread.
struct Workspace : TreeRoot {
  explicit Workspace(std::size_t size)
      : TreeRoot(std::max(size, kLeaf)),
        pending(m * (m + 1)),
        total(m + 1),
        inclusion(m * (m + 1)) {
    buffers.resize(buffer_lanes());
  }

  std::vector<Lanes> buffers, pending;
  std::vector<Lanes> total;      // (1 or m + 1,) sums
  std::vector<Lanes> inclusion;  // (m, 1 or m + 1) those with a row in
};

// Weights with row 0 out and in, the only one left.
MRFAST_INLINE void leaf_one(double g00, double w0, double exponent, double factor, double c0,
                            double& out, double& in) {
  const double root = inverse_root(g00), z = w0 * root;
  out = factor * fast_exp(exponent);
  in = factor * root * fast_exp(exponent + (0.5 * z * z + c0));
}

// Weights of the eight models of the last three candidates; bit a of the index: row a is in.
MRFAST_INLINE void leaf_weights(const State& in, const Lanes* gain, Lanes* weights) {
  Lanes out[8];
  for (std::size_t l = 0; l < kLanes; ++l) {
    const double g00 = in.matrix[0].v[l], g10 = in.matrix[1].v[l], g11 = in.matrix[2].v[l];
    const double g20 = in.matrix[3].v[l], g21 = in.matrix[4].v[l], g22 = in.matrix[5].v[l];
    const double w0 = in.vector[0].v[l], w1 = in.vector[1].v[l], w2 = in.vector[2].v[l];
    const double c0 = gain[0].v[l], c1 = gain[1].v[l], c2 = gain[2].v[l];
    const double exponent = in.scalars[0].v[l], factor = in.scalars[1].v[l];
    leaf_one(g00, w0, exponent, factor, c0, out[0].v[l], out[1].v[l]);
    {
      const double root = inverse_root(g11), z = w1 * root, f = g10 * root;
      leaf_one(g00 - f * f, w0 - f * z, exponent + (0.5 * z * z + c1), factor * root, c0,
               out[2].v[l], out[3].v[l]);
    }
    const double root = inverse_root(g22), z = w2 * root, f0 = g20 * root, f1 = g21 * root;
    const double h00 = g00 - f0 * f0, h10 = g10 - f1 * f0, h11 = g11 - f1 * f1;
    const double u0 = w0 - f0 * z, u1 = w1 - f1 * z;
    const double exponent2 = exponent + (0.5 * z * z + c2), factor2 = factor * root;
    leaf_one(h00, u0, exponent2, factor2, c0, out[4].v[l], out[5].v[l]);
    const double root1 = inverse_root(h11), z1 = u1 * root1, f = h10 * root1;
    leaf_one(h00 - f * f, u0 - f * z1, exponent2 + (0.5 * z1 * z1 + c1), factor2 * root1, c0,
             out[6].v[l], out[7].v[l]);
  }
  for (std::size_t i = 0; i < 8; ++i) weights[i] = out[i];
}

MRFAST_INLINE void add(Lanes& to, const Lanes& x) {
  for (std::size_t l = 0; l < kLanes; ++l) to.v[l] += x.v[l];
}

MRFAST_INLINE Lanes sum(const Lanes& a, const Lanes& b) {
  Lanes out;
  for (std::size_t l = 0; l < kLanes; ++l) out.v[l] = a.v[l] + b.v[l];
  return out;
}

// Sums over all models of m >= 3 candidates.
template <Sum kSum>
MRFAST_INLINE void descend(Workspace& work, const State& root, std::size_t m) {
  const std::size_t width = by_slabs(kSum) ? m + 1 : 1, depths = m - kLeaf;
  Lanes* const total = work.total.data();
  Lanes* const inclusion = work.inclusion.data();
  Lanes* const pending = work.pending.data();  // (depths, width): sums with the candidate out
  const Lanes zero{};
  if (with_inclusion(kSum)) std::fill(inclusion, inclusion + m * width, zero);

  State at[kMaxBlock];
  Lanes* buffer[kMaxBlock];
  bool in[kMaxBlock];
  Lanes* next = work.buffers.data();
  for (std::size_t t = 0; t < depths; ++t) {
    buffer[t] = next;
    next += packed(m - 1 - t) + (m - 1 - t) + 2;
  }
  at[0] = root;
  std::size_t depth = 0, slabs = 0;
  for (;;) {
    for (; depth < depths; ++depth) {
      in[depth] = false;
      at[depth + 1] = at[depth];
    }
    Lanes w[8];
    leaf_weights(at[depth], work.gain.data(), w);
    if constexpr (by_slabs(kSum)) {
      total[0] = w[0];
      total[1] = sum(sum(w[1], w[2]), w[4]);
      total[2] = sum(sum(w[3], w[5]), w[6]);
      total[3] = w[7];
      if constexpr (with_inclusion(kSum)) {
        for (std::size_t a = 0; a < kLeaf; ++a) {
          const std::size_t self = std::size_t{1} << a;
          const std::size_t one = a == 0 ? 2 : 1, other = a == 2 ? 2 : 4;
          Lanes* row = inclusion + a * width + slabs;
          add(row[1], w[self]);
          add(row[2], sum(w[self | one], w[self | other]));
          add(row[3], w[7]);
        }
      }
    } else {
      const Lanes in2 = sum(sum(w[4], w[5]), sum(w[6], w[7]));
      total[0] = sum(sum(sum(w[0], w[1]), sum(w[2], w[3])), in2);
      if constexpr (with_inclusion(kSum)) {
        const Lanes both = sum(w[3], w[7]);
        add(inclusion[0], sum(sum(w[1], w[5]), both));
        add(inclusion[1], sum(sum(w[2], w[6]), both));
        add(inclusion[2], in2);
      }
    }
    std::size_t terms = by_slabs(kSum) ? kLeaf + 1 : 1;
    while (depth > 0 && in[depth - 1]) {
      --depth;
      const Lanes* out = pending + depth * width;
      if constexpr (by_slabs(kSum)) {
        --slabs;
        if constexpr (with_inclusion(kSum)) {
          Lanes* row = inclusion + (m - 1 - depth) * width + slabs + 1;
          for (std::size_t k = 0; k < terms; ++k) add(row[k], total[k]);
        }
        total[terms] = total[terms - 1];
        for (std::size_t k = terms - 1; k > 0; --k) total[k] = sum(out[k], total[k - 1]);
        total[0] = out[0];
        ++terms;
      } else {
        if constexpr (with_inclusion(kSum)) add(inclusion[m - 1 - depth], total[0]);
        total[0] = sum(out[0], total[0]);
      }
    }
    if (depth == 0) break;
    --depth;
    std::copy(total, total + terms, pending + depth * width);
    in[depth] = true;
    if constexpr (by_slabs(kSum)) ++slabs;
    const std::size_t left = m - 1 - depth;
    Lanes* const to = buffer[depth];
    Lanes* const vector = to + packed(left);
    Lanes* const scalars = vector + left;
    eliminate(at[depth], m - depth, work.gain[left], to, vector, scalars);
    at[depth + 1] = {to, vector, scalars};
    ++depth;
  }
}

// Eliminates row m - 1 in place, in the lanes whose number has this bit.
MRFAST_INLINE void eliminate_in_lanes(Workspace& work, std::size_t m, std::size_t bit) {
  const Lanes* const row = work.matrix.data() + packed(m - 1);
  Lanes inverse, scaled;
  for (std::size_t l = 0; l < kLanes; ++l) {
    const bool in = (l & bit) != 0;
    const double root = inverse_root(row[m - 1].v[l]), w = work.vector[m - 1].v[l];
    inverse.v[l] = in ? root * root : 0.0;
    scaled.v[l] = w * inverse.v[l];
    work.scalars[0].v[l] += in ? 0.5 * w * scaled.v[l] + work.gain[m - 1].v[l] : 0.0;
    work.scalars[1].v[l] *= in ? root : 1.0;
  }
  for (std::size_t a = 0; a + 1 < m; ++a) {
    Lanes f = row[a];
    for (std::size_t l = 0; l < kLanes; ++l) {
      work.vector[a].v[l] -= f.v[l] * scaled.v[l];
      f.v[l] *= inverse.v[l];
    }
    Lanes* const to = work.matrix.data() + packed(a);
    for (std::size_t b = 0; b <= a; ++b) {
      Lanes x = to[b];
      const Lanes y = row[b];
      for (std::size_t l = 0; l < kLanes; ++l) x.v[l] -= f.v[l] * y.v[l];
      to[b] = x;
    }
  }
}

// What a group of lanes is asked for.
struct Task {
  const Block& block;
  const BlockNode* const* nodes;  // of the lanes
  const double* log_odds;
  double most;
  bool split;  // the lanes are the choices for the first three candidates of one node
};

template <Sum kSum>
MRFAST_INLINE void sum_lanes(Workspace& work, const Task& task, const Lanes& extra) {
  Spectrum spectrum;
  prepare(work, spectrum, task.block, task.nodes, task.log_odds, task.most, extra);
  std::size_t m = work.m;
  if (task.split)
    for (std::size_t bit = 4; bit > 0; bit /= 2) eliminate_in_lanes(work, m--, bit);
  descend<kSum>(work, {work.matrix.data(), work.vector.data(), work.scalars}, m);
}

MRFAST_DISPATCH void sum_total(Workspace& work, const Task& task, const Lanes& extra) {
  sum_lanes<Sum::kTotal>(work, task, extra);
}
MRFAST_DISPATCH void sum_inclusion(Workspace& work, const Task& task, const Lanes& extra) {
  sum_lanes<Sum::kInclusion>(work, task, extra);
}
MRFAST_DISPATCH void sum_slabs(Workspace& work, const Task& task, const Lanes& extra) {
  sum_lanes<Sum::kSlabs>(work, task, extra);
}
MRFAST_DISPATCH void sum_slabs_inclusion(Workspace& work, const Task& task, const Lanes& extra) {
  sum_lanes<Sum::kSlabsInclusion>(work, task, extra);
}

using SumLanes = void (*)(Workspace&, const Task&, const Lanes&);

// Calls use(logarithm of the weight) for every model, in the order of the binary numbers whose
// digits say which rows are in, the last row first. scratch: as Workspace::buffers.
template <class Use>
void visit_models(const double* matrix, const double* vector, const double* gain, std::size_t m,
                  double value, double* scratch, const Use& use) {
  if (m == 0) {
    use(value);
    return;
  }
  visit_models(matrix, vector, gain, m - 1, value, scratch, use);
  const double* const row = matrix + packed(m - 1);
  const double pivot = std::max(row[m - 1], 1.0), w = vector[m - 1];
  double* const left = scratch;
  double* const u = left + packed(m - 1);
  for (std::size_t a = 0; a + 1 < m; ++a) {
    const double f = row[a] / pivot;
    u[a] = vector[a] - f * w;
    for (std::size_t b = 0; b <= a; ++b) left[packed(a) + b] = matrix[packed(a) + b] - f * row[b];
  }
  value += 0.5 * (w * w / pivot - std::log(pivot)) + gain[m - 1];
  visit_models(left, u, gain, m - 1, value, u + (m - 1), use);
}

template <class Use>
void visit_lane(const Workspace& work, std::size_t lane, const Use& use) {
  const auto of_lane = [&](const std::vector<Lanes>& lanes) {
    std::vector<double> out;
    for (const Lanes& x : lanes) out.push_back(x.v[lane]);
    return out;
  };
  const auto matrix = of_lane(work.matrix), vector = of_lane(work.vector);
  const auto gain = of_lane(work.gain);
  std::vector<double> scratch(work.buffers.size() + 1);
  visit_models(matrix.data(), vector.data(), gain.data(), work.m, work.scalars[0].v[lane],
               scratch.data(), use);
}

// Sums in one lane: by number of slabs (1 or B + 1), and those with candidate j in (B, the same).
struct LaneSums {
  std::vector<double> total, inclusion;
};

void collect(const Workspace& work, const Task& task, Sum kind, std::size_t lane, LaneSums& out) {
  const std::size_t size = task.block.size, left = task.split ? size - kLeaf : work.m;
  const std::size_t width = by_slabs(kind) ? size + 1 : 1;
  const std::size_t from = by_slabs(kind) ? left + 1 : 1;
  out.total.assign(width, 0.0);
  out.inclusion.assign(size * width, 0.0);
  const std::size_t begin = task.split ? 0 : lane, end = task.split ? kLanes : lane + 1;
  for (std::size_t l = begin; l < end; ++l) {
    const std::size_t slabs =
        task.split && by_slabs(kind) ? static_cast<std::size_t>(std::popcount(l)) : 0;
    for (std::size_t k = 0; k < from && k + slabs < width; ++k) {
      out.total[k + slabs] += work.total[k].v[l];
      if (!with_inclusion(kind)) continue;
      for (std::size_t j = 0; j < size; ++j) {
        double& to = out.inclusion[j * width + k + slabs];
        if (!task.split || j >= kLeaf)
          to += work.inclusion[(size - 1 - j) * from + k].v[l];
        else if ((l >> (kLeaf - 1 - j)) & 1)
          to += work.total[k].v[l];
      }
    }
  }
}

// Runs all nodes through the lanes and hands each node's sums to take(node, log scale, sums).
template <class Take>
void for_each_node(const Block& block, const BlockNode* nodes, std::size_t count,
                   const double* log_odds, Sum kind, SumLanes run, const Take& take) {
  Workspace work(block.size);
  LaneSums sums;
  double most = 0;
  for (std::size_t j = 0; log_odds != nullptr && j < block.size; ++j)
    most += std::max(log_odds[j], 0.0);
  for (std::size_t done = 0; done < count;) {
    // Few nodes of a large block: one at a time is faster than lanes that stand idle.
    const bool split = block.size >= 2 * kLeaf && count - done < kLanes - 2;
    const std::size_t taken = split ? 1 : std::min(kLanes, count - done);
    const BlockNode* lanes[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = nodes + done + std::min(l, taken - 1);
    const Task task{block, lanes, log_odds, most, split};
    Lanes extra{};
    run(work, task, extra);
    bool again = false;
    for (std::size_t l = 0; l < taken; ++l) {
      collect(work, task, kind, l, sums);
      double total = 0;
      for (const double x : sums.total) total += x;
      if (!(total < kUnderflow)) continue;
      Spectrum spectrum;
      if (!again) prepare(work, spectrum, block, lanes, log_odds, most, extra);
      again = true;
      double largest = -std::numeric_limits<double>::infinity();
      visit_lane(work, l, [&](double value) { largest = std::max(largest, value); });
      for (std::size_t i = 0; i < kLanes; ++i)
        if (split || i == l) extra.v[i] = -largest;
    }
    if (again) run(work, task, extra);
    for (std::size_t l = 0; l < taken; ++l) {
      collect(work, task, kind, l, sums);
      take(done + l, work.log_scale.v[l], sums);
    }
    done += taken;
  }
}

}  // namespace

double log_total_odds(const double* log_odds, std::size_t size) {
  double sum = 0;
  for (std::size_t j = 0; j < size; ++j)
    sum += std::max(log_odds[j], 0.0) + std::log1p(std::exp(-std::abs(log_odds[j])));
  return sum;
}

void sum_block(const Block& block, const BlockNode* nodes, std::size_t count,
               const double* log_odds, double* log_evidence, double* inclusion) {
  const double prior = log_total_odds(log_odds, block.size);
  const bool with = inclusion != nullptr;
  for_each_node(block, nodes, count, log_odds, with ? Sum::kInclusion : Sum::kTotal,
                with ? sum_inclusion : sum_total,
                [&](std::size_t i, double log_scale, const LaneSums& sums) {
                  log_evidence[i] = log_scale + std::log(sums.total[0]) - prior;
                  for (std::size_t j = 0; with && j < block.size; ++j)
                    inclusion[i * block.size + j] = sums.inclusion[j] / sums.total[0];
                });
}

void sum_block_by_slabs(const Block& block, const BlockNode* nodes, std::size_t count,
                        double* log_scale, double* sums, double* inclusion) {
  const std::size_t width = block.size + 1;
  const bool with = inclusion != nullptr;
  for_each_node(block, nodes, count, nullptr, with ? Sum::kSlabsInclusion : Sum::kSlabs,
                with ? sum_slabs_inclusion : sum_slabs,
                [&](std::size_t i, double scale, const LaneSums& lane) {
                  log_scale[i] = scale;
                  std::copy(lane.total.begin(), lane.total.end(), sums + i * width);
                  if (with)
                    std::copy(lane.inclusion.begin(), lane.inclusion.end(),
                              inclusion + i * block.size * width);
                });
}

std::vector<bool> draw_model(const Block& block, const BlockNode& node, const double* log_odds,
                             double uniform) {
  Workspace work(block.size);
  const BlockNode* lanes[kLanes];
  std::fill(lanes, lanes + kLanes, &node);
  Spectrum spectrum;
  prepare(work, spectrum, block, lanes, log_odds, 0.0, Lanes{});
  std::vector<double> weights;
  double largest = -std::numeric_limits<double>::infinity(), total = 0;
  visit_lane(work, 0, [&](double value) {
    weights.push_back(value);
    largest = std::max(largest, value);
  });
  for (double& w : weights) total += w = std::exp(w - largest);
  std::size_t index = 0;
  double left = uniform * total;
  while (index + 1 < weights.size() && left >= weights[index]) left -= weights[index++];
  std::vector<bool> model(block.size);
  for (std::size_t j = 0; j < block.size; ++j)
    model[j] = ((index >> (block.size - 1 - j)) & 1) != 0;
  return model;
}

}  // namespace mrfast
