// Weighted medians of Wald ratios: estimates, their bootstrap law, their bootstrap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mrfast/normal_law.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// J SNPs of one exposure and one outcome, and weights that sum to 1.
struct WeightedRatios {
  std::size_t n = 0;
  const double* bx = nullptr;
  const double* sx = nullptr;
  const double* by = nullptr;
  const double* sy = nullptr;
  const double* weights = nullptr;
};

// Interpolated weighted median: where the cumulative weight less half of the own one is 1/2;
// equal values keep their order.
double weighted_median(const double* values, const double* weights, std::size_t n);

// Medians of eight rows that stand side by side, value j of row l at [8 j + l]; the weights are
// shared by the rows (n,). `start` and `scale`: where they may be found, and how far from there.
class MedianLanes {
 public:
  void operator()(const double* values, const double* weights, std::size_t n, const double* start,
                  const double* scale, double* medians);
  // The same with weights that stand as the values do.
  void own_weights(const double* values, const double* weights, std::size_t n, const double* start,
                   const double* scale, double* medians);

 private:
  template <bool kShared>
  void run(const double* values, const double* weights, std::size_t n, const double* start,
           const double* scale, double* medians);
};

struct MedianErrors {
  double halfwidth = 0;  // of the bootstrap law
  double bahadur = 0;    // the same from one evaluation
  double robust = 0;
  double gap = 0;  // between the neighbours of the estimate, over the sum of their errors
};

// Kernel width of the robust standard error, in standard errors of each ratio.
inline constexpr double kRobustWidth = 0.577;

MedianErrors median_errors(const WeightedRatios& data, double estimate);

// Where the bootstrap law of the median has the normal scores `scores`; NaN where it never has.
void median_quantiles(const WeightedRatios& data, double estimate, const double* scores,
                      std::size_t count, double* quantiles);

// Normal scores z(t) of the bootstrap law: P(b* <= t) = Phi(z(t)).
void median_scores(const WeightedRatios& data, const double* t, std::size_t count, double* scores);

// Medians of parametric bootstraps: bx* ~ N(bx, sx), by* ~ N(by, sy), the weights as they are.
void bootstrap_medians(const WeightedRatios& data, const NormalStream& stream, double estimate,
                       double scale, std::size_t draws, double* medians, std::size_t threads,
                       Monitor& monitor);

enum class RatioWeights { kFirstOrder, kSecondOrder, kSimple };

// Associations of all SNPs of a panel with outcomes, and of exposures with their own SNPs.
template <class Real>
struct RatioPanel {
  std::size_t snps = 0, outcomes = 0, exposures = 0;
  const Real* by = nullptr;  // (snps, outcomes); NaN is missing
  const Real* sy = nullptr;
  const std::int64_t* offsets = nullptr;  // (exposures + 1,) into ids, bx, sx
  const std::int64_t* ids = nullptr;
  const double* bx = nullptr;
  const double* sx = nullptr;
};

// Medians with their robust standard errors of every exposure (rows) and outcome (columns); NaN
// for pairs of fewer than `minimum` SNPs. counts: SNPs of each pair.
template <class Real>
void median_matrix(const RatioPanel<Real>& panel, RatioWeights kind, std::size_t minimum,
                   double* estimates, double* robust, std::int32_t* counts, std::size_t threads,
                   Monitor& monitor);

}  // namespace mrfast
