// Collapsed Gibbs sampler over the models of large blocks of correlated candidates and the node of
// an outer quadrature, for blocks whose models are too many to be enumerated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/ld_blocks.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// A block with one row for every node of the table.
struct GibbsBlock {
  Block block;
  const double* variances = nullptr;  // (n, B)
  const double* residuals = nullptr;  // (n, B)
  const double* means = nullptr;      // (n, B), or null: 0
  const double* log_odds = nullptr;   // (n, B)
};

// Nodes of the quadrature: weights and variances of the effects are common to all blocks.
struct NodeTable {
  std::size_t count = 0;
  const double* log_weight = nullptr;  // (n,) with the likelihood of everything outside the blocks
  const double* spike = nullptr;       // (n,)
  const double* slab = nullptr;        // (n,)
  std::vector<GibbsBlock> blocks;

  std::size_t candidates() const;
  std::size_t bytes() const;  // of memory that the sampler needs for them
};

struct GibbsOptions {
  std::size_t chains = 4;
  std::uint64_t sweeps = 10000;  // kept, after
  std::uint64_t burn_in = 1000;  // that are not
  std::size_t threads = 1;
  std::uint64_t seed = 0;
};

// J candidates of all blocks, one block after the other; rows are chains.
struct GibbsResult {
  std::vector<double> inclusion;         // (chains, J)
  std::vector<double> node_probability;  // (chains, n)
  std::vector<double> effect_mean;       // (chains, J)
  std::vector<double> effect_square;     // (chains, J) posterior mean of the squared effect
  std::vector<double> flip_rate;         // (chains,) accepted of the proposed
  std::vector<double> swap_rate;         // (chains,)
  std::vector<double> log_evidence;      // (chains,) independent estimates; empty for one chain
  std::vector<double> coverage;          // (chains,) share of time in models that others visited
  double log_evidence_bound = 0;         // evidence of the models visited: never above the whole
  std::size_t models = 0;                // visited
  double difference = 0;                 // largest between two chains in an inclusion probability
};

// Every chain has a stream of its own: the result is the same for any number of threads.
GibbsResult gibbs(const NodeTable& table, const GibbsOptions& options, Monitor& monitor);

}  // namespace mrfast
