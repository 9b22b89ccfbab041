// One block of a matrix of pairs: all exposures against up to 256 outcomes, with p-values, and only
// the pairs kept that are asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mrfast/parallel.hpp"
#include "mrfast/regression.hpp"

namespace mrfast {

// Associations of a block of outcomes, each (snps, outcomes); NaN in both is missing.
struct OutcomeBlock {
  std::size_t snps, outcomes;
  const double* beta;
  const double* se;
};

enum PairMethod : unsigned { kPairIvw = 1, kPairEgger = 2, kPairMedian = 4, kPairWald = 8 };
inline constexpr std::size_t kPairMethods = 4;

struct PairPlan {
  unsigned methods;    // to be reported
  unsigned deciding;   // those whose p-value may keep a pair
  double keep_p;       // pairs are kept below it; all of them where it is above 1
  bool leave_one_out;  // smallest and largest IVW estimate without one SNP
  bool single;         // the panel stores float, not double
  const double* sx;    // standard errors of bx, for the median; may be null without it
};

// Numbers of a kept pair, in this order, of those methods that are asked for.
// ivw: estimate, standard error, p, Q, p of Q; then, with leave_one_out, smallest and largest
// estimate. Egger: estimate, standard error, p, intercept, its standard error and p, Q, p of Q.
// Weighted median and Wald ratio: estimate, standard error, p.
std::size_t pair_columns(const PairPlan& plan);

struct KeptPairs {
  std::vector<std::int32_t> exposure, outcome, snps;
  std::vector<double> values;          // (pairs, columns)
  std::uint64_t tested[kPairMethods];  // pairs with a p-value, kept or not
};

// Why a block is refused: an entry that is not finite, a standard error that is not above 0, or
// numbers whose squares leave the range of what is stored.
struct BadEntry {
  bool found = false;
  std::size_t snp = 0, outcome = 0;
};

// Sorted by exposure, then outcome; the same whatever the number of threads.
BadEntry pair_matrix(const OutcomeBlock& block, const ExposureLists& lists, const PairPlan& plan,
                     std::vector<KeptPairs>& parts, std::size_t threads, Monitor& monitor);

}  // namespace mrfast
