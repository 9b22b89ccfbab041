// Work over fixed items on std::thread, with a stop flag and exceptions carried back.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace mrfast {

// Lets the calling thread look after its user (signals, progress) about twenty times a second,
// and tells every thread when to stop.
class Monitor {
 public:
  // poll(steps done) returns true to stop; it is only ever called on the constructing thread.
  explicit Monitor(std::function<bool(std::uint64_t)> poll)
      : poll_(std::move(poll)), owner_(std::this_thread::get_id()) {}

  // To be called often by every worker; true means stop.
  bool step(std::uint64_t steps = 1) {
    done_.fetch_add(steps, std::memory_order_relaxed);
    if (std::this_thread::get_id() == owner_) visit();
    return stopped();
  }
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }
  void stop() { stop_.store(true, std::memory_order_relaxed); }

  void visit() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    if (poll_ && poll_(done_.load(std::memory_order_relaxed))) stop();
  }

 private:
  std::function<bool(std::uint64_t)> poll_;
  std::thread::id owner_;
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stop_{false};
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Runs work(i) for i in [0, n). Items must not depend on each other; the caller works too.
template <class Work>
void parallel_for(std::size_t n, std::size_t threads, Monitor& monitor, const Work& work) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr failure;
  std::size_t running = 0;
  auto loop = [&] {
    try {
      for (std::size_t i = next++; i < n && !monitor.stopped(); i = next++) work(i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
      monitor.stop();
    }
  };
  std::vector<std::thread> pool;
  const std::size_t extra = threads < n ? threads : n;
  for (std::size_t t = 1; t < extra; ++t) {
    ++running;
    pool.emplace_back([&] {
      loop();
      const std::lock_guard<std::mutex> lock(mutex);
      --running;
      finished.notify_one();
    });
  }
  loop();
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (running > 0) {
      finished.wait_for(lock, std::chrono::milliseconds(50));
      lock.unlock();
      monitor.visit();
      lock.lock();
    }
  }
  for (auto& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace mrfast
