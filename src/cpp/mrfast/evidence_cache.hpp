// Evidences of models, by bit set; safe to use from several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <vector>

#include "mrfast/modes.hpp"

namespace mrfast {

struct ModelLimitReached : std::runtime_error {
  ModelLimitReached() : std::runtime_error("the evidence cache is full") {}
};

class EvidenceCache {
 public:
  struct Entry {
    Bits bits;
    Evidence evidence;
    std::size_t index = 0;
  };

  explicit EvidenceCache(std::size_t max_models) : max_models_(max_models), table_(1024, kEmpty) {}

  // Entries are never moved or changed once they are in.
  const Entry* find(const Bits& bits) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    lookups_.fetch_add(1, std::memory_order_relaxed);
    const std::size_t slot = locate(bits);
    return table_[slot] == kEmpty ? nullptr : &entries_[table_[slot]];
  }

  // Adds an evidence, or returns the entry that another thread added first. Where the cache is
  // full: throws ModelLimitReached.
  const Entry& insert(const Bits& bits, Evidence evidence) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    std::size_t slot = locate(bits);
    if (table_[slot] != kEmpty) return entries_[table_[slot]];
    if (entries_.size() >= max_models_) throw ModelLimitReached();
    if (2 * (entries_.size() + 1) > table_.size()) {
      grow();
      slot = locate(bits);
    }
    table_[slot] = static_cast<std::uint32_t>(entries_.size());
    entries_.push_back({bits, std::move(evidence), entries_.size()});
    return entries_.back();
  }

  std::size_t size() const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    return entries_.size();
  }
  std::size_t max_models() const { return max_models_; }
  std::uint64_t lookups() const { return lookups_.load(); }

  // Calls use(entry) for every entry in the order of insertion; nothing is added meanwhile.
  template <class Begin, class Use>
  void visit(const Begin& begin, const Use& use) const {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    begin(entries_.size(), entries_.empty() ? 0 : entries_.front().bits.size());
    for (const auto& entry : entries_) use(entry);
  }

 private:
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;

  static std::uint64_t hash(const Bits& bits) {
    std::uint64_t h = 0x9E3779B97F4A7C15ull;
    for (const std::uint64_t word : bits) {
      h ^= word;
      h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
      h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
      h ^= h >> 31;
    }
    return h;
  }
  std::size_t locate(const Bits& bits) const {
    const std::size_t mask = table_.size() - 1;
    std::size_t slot = static_cast<std::size_t>(hash(bits)) & mask;
    while (table_[slot] != kEmpty && entries_[table_[slot]].bits != bits) slot = (slot + 1) & mask;
    return slot;
  }
  void grow() {
    table_.assign(2 * table_.size(), kEmpty);
    for (std::size_t i = 0; i < entries_.size(); ++i)
      table_[locate(entries_[i].bits)] = static_cast<std::uint32_t>(i);
  }

  std::size_t max_models_;
  std::deque<Entry> entries_;
  std::vector<std::uint32_t> table_;
  mutable std::shared_mutex mutex_;
  mutable std::atomic<std::uint64_t> lookups_{0};
};

}  // namespace mrfast
