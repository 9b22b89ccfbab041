// Modes of a model's log posterior, and the Laplace approximation of its evidence.
#pragma once

#include <functional>
#include <vector>

#include "mrfast/profile.hpp"

namespace mrfast {

struct Mode {
  Vector<5> parameters{};  // b, kX, kY, lX, lY; kX >= 0
  double log_density = 0;  // log posterior at the mode
  double log_laplace = 0;  // log of its Laplace term, log 2 included where a mirror image exists
};

struct Evidence {
  double log_evidence = 0;  // log-sum-exp over the modes; -infinity without any
  std::vector<Mode> modes;  // by descending log_laplace
};

struct Start {
  double kappa_x, kappa_y;
};

// Maximum-likelihood b, lX, lY at given confounding coefficients (Appendix A).
Vector<5> maximum_likelihood(const Statistics& statistics, double kappa_x, double kappa_y);

// The three starting points of MASSIVE in R (Appendix C, with correlations).
std::vector<Start> massive_starts(const Statistics& statistics);

// Starting points from a deterministic scan of the confounding manifold.
std::vector<Start> scan_starts(const Profile& profile);

// Climbs to a stationary point; false where it is not a strict maximum, or on the way to a known
// mode.
bool climb(const Profile& profile, const Vector<5>& start, const std::vector<Mode>& known,
           Mode& mode);

// A matrix whose product with its transpose is the posterior covariance of the five parameters at a
// mode, computed where it is well conditioned; false where p is not a mode.
bool covariance_root(const Profile& profile, const Vector<5>& p, Matrix<5>& root);

// Thrown between two climbs where stop() said so; half an evidence is none.
struct Interrupted {};
using Stop = std::function<bool()>;

Evidence evidence_from_points(const Profile& profile, const std::vector<Vector<5>>& points,
                              const Stop& stop = {});
Evidence evidence_from_starts(const Profile& profile, const std::vector<Start>& starts,
                              const Stop& stop = {});
Evidence scan_evidence(const Profile& profile, const Stop& stop = {});

double log_sum_exp(const std::vector<double>& values);

}  // namespace mrfast
