// Scratch memory of the threads of an op.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "cpu_threads.h"

namespace reserve {

// Scratch memory that outlives a call, because fresh pages cost as much as several frames: threads, which live for one
// call, reuse what earlier ones returned. It has no locks, so that a process forked during a call keeps working. Memory
// beyond `largest_kept` bytes goes back to the system.
class ScratchPool {
 public:
  // At least `bytes`, aligned to 64; null if out of memory.
  void* take(size_t bytes) noexcept {
    for (auto& slot : slots_) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      Header* held = slot.exchange(nullptr);
      if (held != nullptr && held->bytes >= bytes) return held + 1;
      std::free(held);
    }
    void* memory = nullptr;
    if (bytes > SIZE_MAX - sizeof(Header) || posix_memalign(&memory, 64, sizeof(Header) + bytes) != 0) return nullptr;
    return new (memory) Header{bytes} + 1;
  }

  void give_back(void* memory) noexcept {
    Header* header = static_cast<Header*>(memory) - 1;
    const bool is_kept = header->bytes <= largest_kept;
    for (auto& slot : slots_) {
      Header* empty = nullptr;
      if (is_kept && slot.compare_exchange_strong(empty, header)) return;
    }
    std::free(header);
  }

  ~ScratchPool() {
    for (auto& slot : slots_) std::free(slot.exchange(nullptr));
  }

 private:
  static constexpr size_t largest_kept = 16 << 20;
  struct alignas(64) Header {
    size_t bytes;
  };
  std::atomic<Header*> slots_[most_threads] = {};
};

}  // namespace reserve
