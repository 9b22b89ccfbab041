// Correlations of genotypes kept as bits, and greedy clumping of variants by them.
#pragma once

#include <cstdint>
#include <vector>

#include "mrfast/parallel.hpp"

namespace mrfast {

// Sums over persons of the copies of the counted allele.
struct CopySums {
  std::int64_t persons = 0;  // with a genotype
  std::int64_t copies = 0;
  std::int64_t squares = 0;
};

// Genotypes as bit planes, 64 persons a word.
class GenotypePlanes {
 public:
  // packed: rows of a PLINK .bed file, two bits a person, four persons a byte; keep: which of the
  // persons count.
  GenotypePlanes(const std::uint8_t* packed, std::size_t variants, std::size_t persons,
                 const bool* keep);

  std::size_t variants() const { return sums_.size(); }
  const CopySums& sums(std::size_t variant) const { return sums_[variant]; }

  // Of the copies of two variants, over the persons with both genotypes; NaN where one of them
  // does not vary among these.
  double correlation(std::size_t i, std::size_t j) const;

 private:
  std::size_t words_;
  std::int64_t persons_ = 0;           // that count
  std::vector<std::uint64_t> planes_;  // variants x (one copy, two copies, has a genotype) x words
  std::vector<CopySums> sums_;
};

// All correlations: matrix[i * variants + j].
void genotype_correlations(const GenotypePlanes& planes, double* matrix, std::size_t threads,
                           Monitor& monitor);

// Candidates in groups that do not touch each other (chromosomes); within a group they stand in
// the order of their positions.
struct ClumpProblem {
  std::size_t groups;
  const std::int64_t* offsets;   // groups + 1: first candidate of each
  const std::int64_t* position;  // of each candidate
  const std::int64_t* variant;   // of each candidate: its row of genotypes or correlations
  const std::int64_t* order;     // candidates of each group, the most significant first
  std::int64_t reach;            // largest distance between members of a clump
  double r2;                     // least squared correlation with the index; 0: distance alone
};

// Takes the most significant candidate as an index, gives it every free candidate in reach and
// correlation, and goes on with those that are left. index: the index of each candidate's clump,
// itself for an index; correlation: with that index.
void clump_by_genotypes(const ClumpProblem& problem, const GenotypePlanes& planes,
                        std::int64_t* index, double* correlation, std::size_t threads,
                        Monitor& monitor);
// The same with a matrix of correlations, n x n; null for distance alone.
void clump_by_matrix(const ClumpProblem& problem, const double* matrix, std::size_t n,
                     std::int64_t* index, double* correlation, std::size_t threads,
                     Monitor& monitor);

}  // namespace mrfast
