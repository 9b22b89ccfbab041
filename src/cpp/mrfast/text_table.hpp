// Codes of texts: the same text has the same code, numbered in the order of first occurrence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mrfast {

class TextTable {
 public:
  // Room for so many different texts, which must outlive the table.
  explicit TextTable(std::size_t expected);

  // Codes of texts, old or new; -1 where there is none (null data).
  void insert(const std::string_view* texts, std::size_t n, std::int64_t* codes);
  // The same, and -1 for a text that the table does not have.
  void find(const std::string_view* texts, std::size_t n, std::int64_t* codes) const;

 private:
  // Short texts stand in the table itself: looking one up costs one visit to memory.
  static constexpr std::size_t kShort = 16;
  struct Slot {
    std::int32_t code = -1;  // -1 = free
    std::uint32_t size = 0;
    char text[kShort] = {};  // of a long text: where it is
  };
  static bool holds(const Slot& slot, std::string_view text);
  std::int64_t insert(std::string_view text, std::size_t hash);
  // Place of the text, or the free place where it belongs.
  std::size_t place(std::string_view text, std::size_t hash) const;
  // Calls work(i, hash of texts[i]) for every text, when its place has come from memory.
  template <class Work>
  void visit(const std::string_view* texts, std::size_t n, const Work& work) const;

  std::size_t mask_;
  std::vector<Slot> slots_;
  std::int32_t count_ = 0;
};

}  // namespace mrfast
