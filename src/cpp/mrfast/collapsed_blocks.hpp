// Blocks of correlated candidates in the collapsed posterior under MASSIVE's prior.
#pragma once

#include <cstddef>
#include <vector>

#include "mrfast/ld_blocks.hpp"

namespace mrfast {

// Candidates in linkage disequilibrium. Along every eigenvector of their correlation matrix the
// block is a candidate of its own, its noise factors divided by the eigenvalue, but for the
// pleiotropic effects; over these all models of the block are summed.
struct CorrelatedBlock {
  std::vector<std::size_t> members;
  std::vector<double> eigenvalues;
  Block block;
  double n11 = 0, ratio = 0, n22 = 0, excess = 0;  // n12 / n11, n22 - n12^2 / n11
  std::vector<double> a, b;                        // along the eigenvectors
  std::vector<double> log_odds;                    // of the members
};

// What a block sees of a point: beta and m in units of eta_hat, s1 and s3 the residual variances in
// units of their estimates, g, a0 and a1 prior variances in units of Sigma11 and Sigma22.1.
struct BlockPoint {
  double beta, m, s1, s3, g, a0, a1;
};

// Log likelihood of a block at n points, in `out`.
void block_values(const CorrelatedBlock& block, const BlockPoint* points, std::size_t n,
                  double* out);

// Moments of the members at one point: inclusion (B), means and second moments of gamma and alpha.
struct BlockMoments {
  std::vector<double> inclusion, first, first2, direct, direct2;
};
void block_moments(const CorrelatedBlock& block, const BlockPoint& point, BlockMoments& out);

// One draw of a block's indicators and effects: a uniform and 3 B normals.
void draw_block(const CorrelatedBlock& block, const BlockPoint& point, double uniform,
                const double* normals, bool* slab, double* first, double* direct);

}  // namespace mrfast
