// Sums over the spike-and-slab models of a block of correlated candidates.
//
// Residuals of a block: e ~ N(sum over slabs of mean_j, V diag(v) V' + diag(A)), where A_j is the
// slab's variance for the candidates in the slab and the spike's for the others.
#pragma once

#include <cstddef>
#include <vector>

namespace mrfast {

inline constexpr std::size_t kMaxBlock = 16;  // candidates of a block that is enumerated

// What is the same at every node: the eigenvectors of the correlation matrix, one a column.
struct Block {
  std::size_t size = 0;
  std::vector<double> eigenvectors;  // (B, B) row by row
};

// One node of an outer quadrature.
struct BlockNode {
  const double* variances = nullptr;  // (B,) noise variance along each eigenvector
  const double* residuals = nullptr;  // (B,) by candidate
  const double* means = nullptr;      // (B,) of the slabs; null: 0
  double spike = 0;                   // variance of a spike
  double slab = 0;                    // variance of a slab, above the spike's
};

// Logarithm of the sum of the prior odds of all models.
double log_total_odds(const double* log_odds, std::size_t size);

// Log evidence of each node, summed over all models with prior log odds log_odds (B,), and, unless
// inclusion is null, the inclusion probabilities (count, B).
void sum_block(const Block& block, const BlockNode* nodes, std::size_t count,
               const double* log_odds, double* log_evidence, double* inclusion);

// Sums of likelihoods over the models with k slabs, divided by exp(log_scale): sums (count, B + 1)
// and, unless inclusion is null, over those of them with candidate j in the slab (count, B, B + 1).
void sum_block_by_slabs(const Block& block, const BlockNode* nodes, std::size_t count,
                        double* log_scale, double* sums, double* inclusion);

// One draw of the candidates in the slab, by inversion of their joint distribution.
std::vector<bool> draw_model(const Block& block, const BlockNode& node, const double* log_odds,
                             double uniform);

// Adds to inclusion (count, B), mean (count, B) and square (count, B, B) the sums over all models
// of the indicators, the effects and their products, weighted with the odds (null: 1), the
// likelihood divided by exp(log_scale), and coefficients (count, B + 1) by the number of slabs
// (null: 1).
void add_effect_sums(const Block& block, const BlockNode* nodes, std::size_t count,
                     const double* log_odds, const double* log_scale, const double* coefficients,
                     double* inclusion, double* mean, double* square);

// Also posterior means (count, B) and covariances (count, B, B) of the candidates' effects, the
// e without noise. Slower than sum_block.
void block_effects(const Block& block, const BlockNode* nodes, std::size_t count,
                   const double* log_odds, double* log_evidence, double* inclusion, double* mean,
                   double* covariance);

}  // namespace mrfast
