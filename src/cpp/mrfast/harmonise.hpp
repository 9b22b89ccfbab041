// Alleles of two studies brought to the same effect allele, row by row. The rules are described in
// data/harmonisation.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mrfast {

// Alleles by code; the arrays have one element more, for a missing one, whose code is -1.
struct AlleleVocabulary {
  std::int32_t missing;            // place of the element of a missing allele
  const std::int32_t* complement;  // on the other strand
  const std::int32_t* length;      // of the sequence
  const bool* base;                // A, C, G or T
  const bool* letter;              // D or I
  std::int32_t insertion;          // code of I
};

// Columns of one table; null where it has no frequencies.
struct AlleleColumns {
  const std::int32_t *effect, *other;
  const double *beta, *std_error, *eaf;
};

enum class AlleleReason : std::int8_t {  // in the order of REASONS: of several, the last stands
  kKept,
  kKeptSwapped,
  kKeptFlipped,
  kKeptFlippedSwapped,
  kKeptPalindromicAsWritten,
  kKeptPalindromicByFrequency,
  kKeptUnmatched,
  kOneAlleleAmbiguous,
  kOneAlleleMissingFrequency,
  kOneAlleleFlipped,
  kPalindromic,
  kPalindromicAmbiguous,
  kPalindromicMissingFrequency,
  kPalindromicOneAllele,
  kIdentical,
  kIncompatible,
  kUnresolvedIndel,
  kMissingEffectAllele,
  kMissingValue,
};

struct AlignedRow {
  std::int32_t exposure[2], outcome[2];  // effect and other allele
  std::int8_t alleles;                   // that the sides give: 2-2, 2-1, 1-2, 1-1
  AlleleReason reason;
  bool negate_exposure, negate_outcome;
  bool swapped, flipped, palindromic, ambiguous, removed, keep;
};

struct AlleleRules {
  int action;    // 1, 2 or 3
  double clear;  // least distance from 0.5 at which a frequency tells the strand
};

// Aligns rows of the exposure with rows of the outcome.
class AlleleAligner {
 public:
  AlleleAligner(const AlleleVocabulary& alleles, const AlleleColumns& exposure,
                const AlleleColumns& outcome, const AlleleRules& rules)
      : alleles_(alleles), exposure_(exposure), outcome_(outcome), rules_(rules) {}
  AlignedRow row(std::int64_t left, std::int64_t right) const;

 private:
  struct Pair {
    std::int32_t effect, other;
  };
  std::int32_t at(std::int32_t code) const { return code < 0 ? alleles_.missing : code; }
  bool lettered(const Pair& pair) const {
    return alleles_.letter[at(pair.effect)] || alleles_.letter[at(pair.other)];
  }
  // D and I written as the shorter and the longer of two sequences, where that is possible.
  Pair spelt(const Pair& letters, const Pair& sequences) const;

  const AlleleVocabulary& alleles_;
  const AlleleColumns &exposure_, &outcome_;
  AlleleRules rules_;
};

}  // namespace mrfast
