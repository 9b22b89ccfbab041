#include "mrfast/harmonise.hpp"

#include <cmath>
#include <limits>

namespace mrfast {

namespace {

enum : std::int8_t { kBoth, kExposureOnly, kOutcomeOnly, kNeither };  // give two alleles

}  // namespace

AlleleAligner::Pair AlleleAligner::spelt(const Pair& letters, const Pair& sequences) const {
  const bool* const letter = alleles_.letter;
  if (!letter[at(letters.effect)] || letters.effect == letters.other) return letters;
  if (letters.other >= 0 && !letter[letters.other]) return letters;
  if (sequences.effect < 0 || sequences.other < 0 || lettered(sequences)) return letters;
  const std::int32_t first = alleles_.length[sequences.effect],
                     second = alleles_.length[sequences.other];
  if (first == second) return letters;
  const std::int32_t shorter = first < second ? sequences.effect : sequences.other,
                     longer = first < second ? sequences.other : sequences.effect;
  const auto spell = [&](std::int32_t code) {
    return code < 0 ? code : code == alleles_.insertion ? longer : shorter;
  };
  return {spell(letters.effect), spell(letters.other)};
}

AlignedRow AlleleAligner::row(std::int64_t left, std::int64_t right) const {
  const Pair given_a{exposure_.effect[left], exposure_.other[left]},
      given_b{outcome_.effect[right], outcome_.other[right]};
  const bool known = given_a.effect >= 0 && given_b.effect >= 0;
  const auto alleles = static_cast<std::int8_t>(2 * (given_a.other < 0) + (given_b.other < 0));
  const bool both = alleles == kBoth, neither = alleles == kNeither, one = !both && !neither;
  const bool onto_outcome = alleles == kOutcomeOnly;
  const int action = rules_.action;

  const Pair a = spelt(given_a, given_b), b = spelt(given_b, given_a);
  const bool unresolved = known && lettered(a) != lettered(b);

  // The moving side is fitted to the fixed one: the side with fewer alleles, else the outcome.
  const Pair fixed = onto_outcome ? b : a;
  Pair moving = onto_outcome ? a : b;
  const bool palindromic = known && !neither && alleles_.base[at(fixed.effect)] &&
                           alleles_.complement[at(fixed.effect)] == fixed.other;
  bool same = false, swapped = false;
  const auto fit = [&] {
    const bool alone = moving.other < 0;
    same = known && moving.effect == fixed.effect && (alone || moving.other == fixed.other);
    swapped =
        known && !same && moving.effect == fixed.other && (alone || moving.other == fixed.effect);
  };
  fit();
  const bool flipped = known && !same && !swapped && (one || (both && !palindromic));
  if (flipped) {
    moving = {alleles_.complement[at(moving.effect)], alleles_.complement[at(moving.other)]};
    fit();
  }
  const bool matched = same || swapped;
  if (matched) moving = fixed;

  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  const double eaf_a = exposure_.eaf ? exposure_.eaf[left] : kUnknown,
               eaf_b = outcome_.eaf ? outcome_.eaf[right] : kUnknown;
  const double side = swapped ? -1 : 1;  // of the outcome's frequency, seen from the exposure's
  const bool near =
      !(std::abs(eaf_a - 0.5) >= rules_.clear && std::abs(eaf_b - 0.5) >= rules_.clear);
  const bool missing_eaf = std::isnan(eaf_a) || std::isnan(eaf_b);
  const bool opposite = side * (eaf_a - 0.5) * (eaf_b - 0.5) < 0;
  const bool by_frequency = both && matched && palindromic && opposite && action == 2;

  const bool identical = matched && fixed.effect == fixed.other;
  const bool ambiguous = known && ((both && palindromic && near) ||
                                   (one && (palindromic || flipped || near || opposite)) ||
                                   (neither && matched && (near || opposite)));
  const bool removed =
      !known || unresolved || identical || (one && palindromic) || (!one && !matched);
  const bool has_values =
      !(std::isnan(exposure_.beta[left]) || std::isnan(exposure_.std_error[left]) ||
        std::isnan(outcome_.beta[right]) || std::isnan(outcome_.std_error[right]));
  const bool keep =
      !removed && has_values && !(action > 1 && ambiguous) && !(action > 2 && palindromic);

  using Reason = AlleleReason;
  Reason reason = Reason::kKept;
  if (swapped) reason = Reason::kKeptSwapped;
  if (flipped) reason = swapped ? Reason::kKeptFlippedSwapped : Reason::kKeptFlipped;
  if (both && palindromic) {
    if (action == 1) reason = Reason::kKeptPalindromicAsWritten;
    if (action == 2) reason = Reason::kKeptPalindromicByFrequency;
  }
  if (one && !matched && action == 1) reason = Reason::kKeptUnmatched;
  if (!both && action > 1) {
    if (ambiguous)
      reason = missing_eaf ? Reason::kOneAlleleMissingFrequency : Reason::kOneAlleleAmbiguous;
    if (one && flipped) reason = Reason::kOneAlleleFlipped;
  }
  if (both && palindromic) {
    if (action == 3) reason = Reason::kPalindromic;
    if (action == 2 && near) reason = Reason::kPalindromicAmbiguous;
    if (action == 2 && missing_eaf) reason = Reason::kPalindromicMissingFrequency;
  }
  if (one && palindromic) reason = Reason::kPalindromicOneAllele;
  if (identical) reason = Reason::kIdentical;
  if (!matched && (!one || palindromic || action > 1)) reason = Reason::kIncompatible;
  if (unresolved) reason = Reason::kUnresolvedIndel;
  if (!known) reason = Reason::kMissingEffectAllele;
  if (!has_values) reason = Reason::kMissingValue;

  const Pair first = onto_outcome ? moving : a, second = onto_outcome ? b : moving;
  return {{first.effect, first.other},
          {second.effect, second.other},
          alleles,
          reason,
          swapped && onto_outcome,
          (swapped && !onto_outcome) != by_frequency,
          swapped,
          flipped || by_frequency,
          palindromic,
          ambiguous,
          removed,
          keep};
}

}  // namespace mrfast
