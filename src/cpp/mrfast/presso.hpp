// MR-PRESSO: residuals of leave-one-out fits, the cumulants of their sum of squares under the
// null, and the draws of its simulated tests. Verbanck, Chen, Neale, Do (2018),
// doi:10.1038/s41588-018-0099-7.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mrfast/parallel.hpp"
#include "mrfast/random.hpp"

namespace mrfast {

// J SNPs and K exposures; matrices row by row, one row a SNP.
struct PressoData {
  std::size_t snps = 0;
  std::size_t exposures = 0;
  const double* beta_exposure = nullptr;  // (J, K)
  const double* se_exposure = nullptr;    // (J, K)
  const double* beta_outcome = nullptr;   // (J,)
  const double* se_outcome = nullptr;     // (J,)
};

struct PressoSummary {
  double rss = 0;
  double cumulants[3] = {0, 0, 0};  // of the sum of squares under the null
};

// False where a fit has no solution: exposures that are collinear, in all SNPs or without one.
// estimate and centre are (K,), the rest (J, K) or (J,):
// leave_one_out  estimates without each SNP
// residuals      of each SNP about the fit without it, in its outcome's units
// p_values       of that residual: exact under normal errors, without correction
// centre         limit of the slope that is fitted again to data under the null
bool presso_closed_form(const PressoData& data, double* estimate, double* leave_one_out,
                        double* residuals, double* p_values, double* centre,
                        PressoSummary& summary);

// Which numbers a test draws: draw, SNP and purpose make up a counter of the generator. At most
// 2^32 draws in all.
struct PressoDraws {
  Philox::Key key{};
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// Draws of the global test: how many sums of squares lie above `rss`. Where `leave_one_out` is
// given, `outliers` (J,) counts the draws whose residual about the observed fit without the SNP is
// larger than the observed one, |residuals|. False where it was stopped.
bool presso_global_draws(const PressoData& data, const double* leave_one_out,
                         const double* residuals, double rss, const PressoDraws& draws,
                         std::size_t threads, Monitor& monitor, std::uint64_t& above,
                         std::uint64_t* outliers);

// Draws of the distortion test: data about `estimate` (K,) without outliers, of which the
// `dropped` SNPs of the largest standardised residuals are dropped. Counts, for each exposure, the
// draws whose estimate changes by at least `ratio` times the estimate afterwards (K,), and by at
// least `difference` (K,). False where it was stopped.
bool presso_distortion_draws(const PressoData& data, const double* estimate, std::size_t dropped,
                             const double* ratio, const double* difference,
                             const PressoDraws& draws, std::size_t threads, Monitor& monitor,
                             std::uint64_t* ratio_count, std::uint64_t* difference_count);

}  // namespace mrfast
