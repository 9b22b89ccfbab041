#include "mrfast/text_table.hpp"

#include <bit>
#include <functional>
#include <stdexcept>

namespace mrfast {

TextTable::TextTable(std::size_t expected)
    : mask_(std::bit_ceil(2 * expected + 2) - 1), codes_(mask_ + 1, -1), hashes_(mask_ + 1) {
  texts_.reserve(expected);
}

std::size_t TextTable::place(std::string_view text, std::uint64_t hash) const {
  std::size_t at = hash & mask_;
  while (codes_[at] >= 0 &&
         (hashes_[at] != hash || texts_[static_cast<std::size_t>(codes_[at])] != text))
    at = (at + 1) & mask_;
  return at;
}

std::int64_t TextTable::insert(std::string_view text) {
  const std::uint64_t hash = std::hash<std::string_view>{}(text);
  const std::size_t at = place(text, hash);
  if (codes_[at] < 0) {
    if (2 * texts_.size() > mask_) throw std::length_error("more texts than were expected");
    codes_[at] = static_cast<std::int64_t>(texts_.size());
    hashes_[at] = hash;
    texts_.push_back(text);
  }
  return codes_[at];
}

std::int64_t TextTable::find(std::string_view text) const {
  return codes_[place(text, std::hash<std::string_view>{}(text))];
}

}  // namespace mrfast
