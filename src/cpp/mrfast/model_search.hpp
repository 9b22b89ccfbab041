// Search over the 2^J spike-and-slab models: greedy, then Markov chains (MC3).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "mrfast/evidence_cache.hpp"
#include "mrfast/parallel.hpp"
#include "mrfast/random.hpp"

namespace mrfast {

// Kinds of proposals; every one of them keeps detailed balance by itself.
enum Move : std::size_t {
  kFlip = 0,      // one indicator, uniformly (MASSIVE in R)
  kInformed = 1,  // one indicator, by its predicted evidence ratio (Zanella 2020, JASA)
  kSwap = 2,      // a slab and a spike exchange, each by its predicted evidence ratio
  kJump = 3       // all indicators in which two typical models differ
};
inline constexpr std::size_t kMoves = 4;

struct SearchOptions {
  std::uint64_t iterations = 0;
  std::size_t chains = 1;
  std::size_t threads = 1;
  std::uint64_t seed = 0;
  std::array<double, kMoves> move_probability{};
};

struct SearchReport {
  std::array<std::uint64_t, kMoves> proposed{}, accepted{};
  std::vector<std::uint64_t> visits;  // by entry of the cache, over all chains
  bool interrupted = false;
};

class ModelSearch {
 public:
  // log_odds: prior log odds of the slab, (J).
  ModelSearch(const Statistics& statistics, const Prior& prior, std::vector<double> log_odds,
              EvidenceCache& cache);

  // Evidence by the scan for all modes: a function of the model alone, so that results do not
  // depend on which thread or chain came first.
  const EvidenceCache::Entry& evaluate(const Bits& bits);
  double log_prior(const Bits& bits) const;  // up to the constant of the model without slabs

  // Log of evidence times prior for every neighbour (one indicator flipped), predicted by one
  // Newton step from each mode of the model.
  std::vector<double> predict_neighbours(const EvidenceCache::Entry& entry) const;

  // Models that fit where the candidates' ratio estimates agree, best first.
  std::vector<Bits> typical_models(std::size_t most) const;

  SearchReport run(const SearchOptions& options, Monitor& monitor);

 private:
  struct Chain;

  const EvidenceCache::Entry* climb(const Bits& bits, Monitor& monitor);
  SearchReport run_chains(const SearchOptions& options, Monitor& monitor);
  double target(const EvidenceCache::Entry& entry) const {
    return entry.evidence.log_evidence + log_prior(entry.bits);
  }

  const Statistics& statistics_;
  const Prior& prior_;
  std::vector<double> log_odds_;
  EvidenceCache& cache_;
  Monitor* monitor_ = nullptr;  // of the run that is going on
};

}  // namespace mrfast
