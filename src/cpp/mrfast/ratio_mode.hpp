// Modes of the kernel density of Wald ratios: estimates and their bootstrap.
#pragma once

#include <cstddef>

#include "mrfast/normal_law.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

// J ratios with their standard errors, and weights that sum to 1.
struct RatioSample {
  std::size_t n = 0;
  const double* ratios = nullptr;
  const double* errors = nullptr;
  const double* weights = nullptr;
};

struct ModeEstimate {
  double mode = 0;
  double bandwidth = 0;
};

// Bandwidth 0.9 factor min(sd, 1.4826 mad) / J^(1/5), at least 1e-8.
double mode_bandwidth(const double* ratios, std::size_t n, double factor);

// Largest of 512 points between three bandwidths beyond the ends, of the density whose mass has
// been put on another 512 points: what density() of R before 4.4 gives.
ModeEstimate binned_mode(const RatioSample& data, double factor);

// The point where the weighted sum of normal kernels is largest.
ModeEstimate exact_mode(const RatioSample& data, double factor);

// Standard error of the mode by the bootstrap law, the bandwidth held fixed.
double mode_law_error(const RatioSample& data, const ModeEstimate& mode);

// Modes of r* ~ N(r, errors), each with its own bandwidth; on the 512 points or exact. Returns the
// share of draws where the points are further apart than the bandwidth.
double bootstrap_modes(const RatioSample& data, const NormalStream& stream, double factor,
                       bool exact, std::size_t draws, double* modes, std::size_t threads,
                       Monitor& monitor);

// Modes of given samples (draws, n), as bootstrap_modes finds them.
void modes_of(const double* samples, const double* weights, std::size_t draws, std::size_t n,
              double factor, bool exact, double* modes);

}  // namespace mrfast
