// Codes of texts: the same text has the same code, numbered in the order of first occurrence.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace mrfast {

class TextTable {
 public:
  // Room for so many different texts, which must outlive the table.
  explicit TextTable(std::size_t expected);

  std::int64_t insert(std::string_view text);      // its code, old or new
  std::int64_t find(std::string_view text) const;  // its code, or -1
  std::size_t size() const { return texts_.size(); }

 private:
  // Place of the text, or the free place where it belongs.
  std::size_t place(std::string_view text, std::uint64_t hash) const;

  std::size_t mask_;
  std::vector<std::int64_t> codes_;    // by place, -1 = free
  std::vector<std::uint64_t> hashes_;  // by place
  std::vector<std::string_view> texts_;
};

}  // namespace mrfast
