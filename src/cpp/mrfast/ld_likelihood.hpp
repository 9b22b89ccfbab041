// Blocks of correlated candidates under the prior on the identified scale.
#pragma once

#include <cstddef>
#include <vector>

#include "mrfast/identified.hpp"
#include "mrfast/ld_blocks.hpp"

namespace mrfast {

// A block of candidates with the eigenvalues and eigenvectors of their correlation matrix.
struct CorrelatedGroup {
  std::vector<std::size_t> members;
  std::vector<double> eigenvalues;  // (B,)
  Block block;
};

// Along every eigenvector a block is a candidate of its own with the noise factors divided by the
// eigenvalue, but for the pleiotropic effects; over these all models of the block are summed.
class BlockLikelihood final : public ExtraLikelihood {
 public:
  BlockLikelihood(const Associations& data, const HyperTable& table, double g,
                  const std::vector<CorrelatedGroup>& groups);

  void add(const double* b, const std::size_t* nodes, std::size_t n, double* terms) const override;
  void summarise(const double* b, const std::size_t* nodes, std::size_t n, const double* weights,
                 double* sums) const override;
  Associations directions() const override;
  void draw(double b, std::size_t node, const double* uniforms, const double* normals, bool* slab,
            double* first_stage, double* pleiotropy) const override;

 private:
  struct Part {
    std::vector<std::size_t> members;
    Block block;
    std::vector<double> x, y, n11, n22, n12;  // along the eigenvectors
    std::vector<double> sign, proportional;   // of the members
  };
  // A block at one effect: what remains of y given x, and how the first stage follows from it.
  struct AtEffect {
    std::vector<double> variances, rotated, residuals;  // (B,)
    std::vector<double> shrunk, coupling, spread;       // (B,)
  };
  // Nodes of the table that differ in pi only, as a range of the nodes that were asked for.
  struct Family {
    std::size_t first, count;
  };

  AtEffect at_effect(const Part& part, double b) const;
  std::vector<Family> families(const std::size_t* nodes, std::size_t n) const;
  std::vector<double> slab_means(const Part& part, std::size_t node) const;
  BlockNode block_node(const AtEffect& at, std::size_t node, const double* means) const;
  void model_odds(std::size_t size, std::size_t node, double* out) const;

  HyperTable table_;
  std::vector<Part> parts_;
  std::size_t size_;  // J
  double g_, slope_, unit_;
};

}  // namespace mrfast
