#include "mrfast/text_table.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>

namespace mrfast {

namespace {

constexpr std::size_t kMostTexts = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kAhead = 32;  // places that are fetched from memory at a time

inline void fetch(const void* place) {
#if defined(__GNUC__)
  __builtin_prefetch(place);
#else
  (void)place;
#endif
}

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

std::size_t TextTable::place(std::string_view text, std::size_t hash) const {
  std::size_t at = hash & mask_;
  while (slots_[at].code >= 0 && !holds(slots_[at], text)) at = (at + 1) & mask_;
  return at;
}

template <class Work>
void TextTable::visit(const std::string_view* texts, std::size_t n, const Work& work) const {
  std::array<std::size_t, kAhead> hashes;
  for (std::size_t from = 0; from < n; from += kAhead) {
    const std::size_t count = std::min(kAhead, n - from);
    for (std::size_t k = 0; k < count; ++k) {
      hashes[k] = std::hash<std::string_view>{}(texts[from + k]);
      fetch(&slots_[hashes[k] & mask_]);
    }
    for (std::size_t k = 0; k < count; ++k) work(from + k, hashes[k]);
  }
}

std::int64_t TextTable::insert(std::string_view text, std::size_t hash) {
  if (text.size() > std::numeric_limits<std::uint32_t>::max())
    throw std::length_error("texts: expected less than 2^32 characters");
  Slot& slot = slots_[place(text, hash)];
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

void TextTable::insert(const std::string_view* texts, std::size_t n, std::int64_t* codes) {
  visit(texts, n, [&](std::size_t i, std::size_t hash) {
    codes[i] = texts[i].data() == nullptr ? -1 : insert(texts[i], hash);
  });
}

void TextTable::find(const std::string_view* texts, std::size_t n, std::int64_t* codes) const {
  visit(texts, n, [&](std::size_t i, std::size_t hash) {
    codes[i] = texts[i].data() == nullptr ? -1 : slots_[place(texts[i], hash)].code;
  });
}

}  // namespace mrfast
