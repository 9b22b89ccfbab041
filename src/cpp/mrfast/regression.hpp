// Weighted regressions of outcome associations on exposure associations: inverse-variance
// weighting (through the origin) and Egger regression (with an intercept), of one pair of traits
// or of many.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mrfast/parallel.hpp"

namespace mrfast {

// Slope through the origin with weights 1/s^2; q is Cochran's Q about it.
struct OriginFit {
  double slope, information, q;
};
OriginFit fit_origin(const double* x, const double* y, const double* s, std::size_t n);

// Line with weights 1/s^2 after turning every x positive; valid unless all |x| are equal.
struct LineFit {
  double slope, intercept, slope_variance, intercept_variance, covariance, q;
  bool valid;
};
LineFit fit_line(const double* x, const double* y, const double* s, std::size_t n);

// Mean of (x/s)^2.
double mean_square_ratio(const double* x, const double* s, std::size_t n);

// Cochran's Q of |x|/scale with standard errors s/scale; no scale where the pointer is null.
double heterogeneity_of_size(const double* x, const double* s, const double* scale, std::size_t n);

// ------------------------------------------------------------------------ many pairs

// Outcomes in blocks of `width`: for each block and SNP 1/sy^2, by/sy^2 and by^2/sy^2 of its
// outcomes, shape (blocks, snps, 3, width); all 0 where missing. Rows lie close together, as they
// are read in an order that no cache foresees.
template <class Real>
struct OutcomePanel {
  const Real* data;
  std::size_t snps, outcomes, width;
};

// Instruments of exposure e: entries starts[e] to starts[e + 1] of rows (of the panel) and bx.
struct ExposureLists {
  const std::int64_t* starts;
  const std::int64_t* rows;
  const double* bx;
  std::size_t exposures;
};

inline constexpr std::size_t kWidest = 256;  // block: its sums stay in the first-level cache

// Planes of the results, each of shape (exposures, outcomes).
enum PairPlane : std::size_t {
  kIvw,
  kIvwError,
  kIvwQ,
  kEgger,
  kEggerError,
  kIntercept,
  kInterceptError,
  kEggerQ,
  kPairPlanes
};

// Multiplicative random effects, the residual standard error taken as at least 1. NaN where there
// are too few SNPs (1, and 3 for Egger regression). `counts`, (exposures, outcomes), may be null;
// it has to be given where the panel has missing entries, and is filled then.
void fit_pairs(const OutcomePanel<float>& panel, const ExposureLists& lists, double* out,
               std::int32_t* counts, std::size_t threads, Monitor& monitor);
void fit_pairs(const OutcomePanel<double>& panel, const ExposureLists& lists, double* out,
               std::int32_t* counts, std::size_t threads, Monitor& monitor);

}  // namespace mrfast
