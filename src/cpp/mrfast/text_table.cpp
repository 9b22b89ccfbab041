#include "mrfast/text_table.hpp"

#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>

namespace mrfast {

namespace {

constexpr std::size_t kMostTexts = std::numeric_limits<std::int32_t>::max();

}  // namespace

TextTable::TextTable(std::size_t expected)
    : mask_(std::bit_ceil(2 * expected + 2) - 1), slots_(mask_ + 1) {
  if (expected > kMostTexts) throw std::length_error("texts: expected less than 2^31");
}

bool TextTable::holds(const Slot& slot, std::string_view text) {
  if (slot.size != text.size()) return false;
  if (text.size() <= kShort) return std::memcmp(slot.text, text.data(), text.size()) == 0;
  const char* data;
  std::memcpy(&data, slot.text, sizeof data);
  return std::memcmp(data, text.data(), text.size()) == 0;
}

std::size_t TextTable::place(std::string_view text) const {
  std::size_t at = std::hash<std::string_view>{}(text)&mask_;
  while (slots_[at].code >= 0 && !holds(slots_[at], text)) at = (at + 1) & mask_;
  return at;
}

std::int64_t TextTable::insert(std::string_view text) {
  if (text.size() > std::numeric_limits<std::uint32_t>::max())
    throw std::length_error("texts: expected less than 2^32 characters");
  Slot& slot = slots_[place(text)];
  if (slot.code < 0) {
    if (2 * static_cast<std::size_t>(count_) > mask_)
      throw std::length_error("texts: more than were expected");
    slot.code = count_++;
    slot.size = static_cast<std::uint32_t>(text.size());
    const char* const data = text.data();
    if (text.size() <= kShort)
      std::memcpy(slot.text, data, text.size());
    else
      std::memcpy(slot.text, &data, sizeof data);
  }
  return slot.code;
}

std::int64_t TextTable::find(std::string_view text) const { return slots_[place(text)].code; }

}  // namespace mrfast
