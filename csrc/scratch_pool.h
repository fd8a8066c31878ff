// Scratch memory of the threads of an op.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "cpu_threads.h"

namespace reserve {

// Scratch memory that outlives a call, because fresh pages cost as much as several frames: threads, which live for one
// call, reuse what earlier ones returned. It has no locks, so that a process forked during a call keeps working. What
// would bring the memory kept beyond `most_kept` bytes goes back to the system.
class ScratchPool {
 public:
  // At least `bytes`, aligned to 64; null if out of memory.
  void* take(size_t bytes) noexcept {
    for (auto& slot : slots_) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      Header* held = slot.exchange(nullptr);
      if (held == nullptr) continue;
      kept_ -= held->bytes;
      if (held->bytes >= bytes) return held + 1;
      std::free(held);
    }
    void* memory = nullptr;
    if (bytes > SIZE_MAX - sizeof(Header) || posix_memalign(&memory, 64, sizeof(Header) + bytes) != 0) return nullptr;
    return new (memory) Header{bytes} + 1;
  }

  void give_back(void* memory) noexcept {
    Header* header = static_cast<Header*>(memory) - 1;
    // Another thread may take the block, and count it off, as soon as it is in a slot.
    const size_t bytes = header->bytes;
    const bool fits = (kept_ += bytes) <= most_kept;
    for (auto& slot : slots_) {
      Header* empty = nullptr;
      if (fits && slot.compare_exchange_strong(empty, header)) return;
    }
    kept_ -= bytes;
    std::free(header);
  }

  ~ScratchPool() {
    for (auto& slot : slots_) std::free(slot.exchange(nullptr));
  }

 private:
  static constexpr size_t most_kept = 64 << 20;
  struct alignas(64) Header {
    size_t bytes;
  };
  std::atomic<Header*> slots_[most_threads] = {};
  std::atomic<size_t> kept_{0};  // bytes in the slots
};

}  // namespace reserve
