// Profile likelihood of a ratio of effects, its robust forms, and over-dispersion.
//
// SNP j adds rho(t_j) with t_j = (by - theta bx) / sqrt(sy^2 + tau2 + theta^2 sx^2 - 2 theta psi
// sx sy), psi the correlation of its two errors. With theta = scale tan(angle) the sum is a smooth
// periodic function of the angle (period pi) that is defined at an infinite theta too, so that
// every stationary point is found on a circle.
// Zhao, Wang, Hemani, Bowden, Small (2020), doi:10.1214/19-AOS1866.
#pragma once

#include <cstddef>
#include <vector>

#include "mrfast/normal_law.hpp"
#include "mrfast/parallel.hpp"

namespace mrfast {

enum class Loss { kSquare, kHuber, kTukey };

struct RatioData {
  std::size_t snps;
  const double *bx, *sx, *by, *sy;
  double overlap;  // psi
};

// rho and its constant; the square has none.
struct LossForm {
  Loss kind;
  double constant;
};

struct StationaryPoint {
  double angle, theta;  // theta may be infinite
  double value;         // sum of rho
  bool minimum;
};

struct LevelSet {
  bool everything;                                // no theta is above the level
  std::vector<std::pair<double, double>> pieces;  // of theta, ascending, may have infinite ends
};

// Stationary points in ascending order of the angle.
std::vector<StationaryPoint> stationary_points(const RatioData& data, LossForm loss, double tau2);

// The lowest minimum: index into the points, which hold at least one.
std::size_t lowest(const std::vector<StationaryPoint>& points);

// Where the sum is at most `level`; `points` are the stationary points of the same sum.
LevelSet level_set(const RatioData& data, LossForm loss, double tau2,
                   const std::vector<StationaryPoint>& points, double level);

// A solution of both estimating equations.
struct DispersedRoot {
  double tau2, theta;
  double lower, upper;  // bracket of tau2 on the coarse grid
  bool jump;            // theta jumps there: the equation changes sign, but not through 0
};

// Roots in tau2 of sum_j sx^2 (t rho'(t) - delta) / v at the theta that minimises the sum of rho,
// where it falls from positive to negative; (0, theta) first where it is not above 0 at 0.
std::vector<DispersedRoot> dispersed_roots(const RatioData& data, LossForm loss, double delta,
                                           Monitor& monitor);

// Sums over SNPs of draws by ~ N(mean, error^2), bx ~ N(bx, sx^2), one row a draw:
// by bx / sy^2, bx^2 / sy^2, (bx^2 - sx^2) sx^2 / sy^4, by bx sx^2 / sy^4,
// ((bx^2 - sx^2) error^2 + by^2 sx^2) / sy^4.
inline constexpr std::size_t kRatioSums = 5;
void ratio_sum_draws(const RatioData& data, const double* mean, const double* error,
                     const NormalStream& stream, std::size_t draws, double* out,
                     std::size_t threads, Monitor& monitor);

}  // namespace mrfast
