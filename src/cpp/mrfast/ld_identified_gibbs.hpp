// Collapsed Gibbs sampler under the prior on the identified scale, for blocks of correlated
// candidates whose models are too many to be enumerated: over the models of these blocks, the
// effect on the nodes of a quadrature and the table of hyper-parameters, all else summed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/ld_likelihood.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// n effects, H nodes of the table of hyper-parameters.
struct EffectTable {
  std::vector<double> effect;  // (n,), b
  std::vector<double> weight;  // (n,) of the quadrature; 0: only the density is wanted there
  // (n, H): log density of b, the node and everything outside the large blocks
  const double* log_rest = nullptr;
};

struct ModelSampling {
  std::size_t chains = 4;
  std::uint64_t sweeps = 10000;  // kept, after
  std::uint64_t burn_in = 1000;  // that are not
  std::size_t states = 1000;     // of every chain that are stored, at most
  std::size_t models = 100;      // of every chain whose evidence is computed
  std::size_t threads = 1;
  std::uint64_t seed = 0;
};

// B members of all large blocks, one block after the other; rows are chains.
struct ModelSample {
  std::vector<double> log_density;     // (chains, n) posterior density of b
  std::vector<double> joint;           // (n, H) posterior of quadrature node and hyper node
  std::vector<double> hyper;           // (chains, H)
  std::vector<double> inclusion;       // (chains, B)
  std::vector<double> flip_rate;       // (chains,) accepted of the proposed
  std::vector<double> swap_rate;       // (chains,)
  std::vector<double> log_evidence;    // (chains,), nan where none
  std::vector<double> coverage;        // (chains,) share of time in the models that give it
  std::vector<char> slab;              // (states, B): stored states
  std::vector<std::int64_t> at, node;  // (states,): effect and hyper node
};

class LargeBlocks {
 public:
  LargeBlocks(const Associations& data, const HyperTable& table, double g,
              const std::vector<CorrelatedGroup>& groups);

  std::size_t members() const { return members_; }
  std::size_t bytes(std::size_t effects) const;  // of memory that the sampler needs

  // Every chain has a stream of its own: the result is the same for any number of threads.
  ModelSample sample(const EffectTable& table, const ModelSampling& options,
                     Monitor& monitor) const;

  // Means over states (b, node, slab (n, B)) of the first and second moments of the pleiotropic
  // and of the first-stage effects, given each state: (4, J), 0 for candidates outside the blocks.
  std::vector<double> moments(const double* b, const std::int64_t* node, const bool* slab,
                              std::size_t n, std::size_t threads, Monitor& monitor) const;

  // Draws the effects given states: normals (n, 2 J); rows of slab, first_stage and pleiotropy have
  // J columns, of which those of the blocks are written.
  void draw(const double* b, const std::int64_t* node, const bool* model, std::size_t n,
            const double* normals, bool* slab, double* first_stage, double* pleiotropy,
            std::size_t threads, Monitor& monitor) const;

 private:
  BlockLikelihood likelihood_;
  std::size_t size_, members_;
};

}  // namespace mrfast
