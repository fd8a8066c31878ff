// Threads for the length of one call.
#pragma once

#include <cstdint>

namespace reserve {

// Calls `run(data)` in up to `threads` threads, this one among them, and returns when all have; `run` shares out the work
// itself and does not throw. `useful` threads have enough to do.
//
// Where the process has an OpenMP runtime, as one with PyTorch has, its threads are taken: they are there already, and
// those of a tensor operation just before wait for more work in a loop, in which they would keep new ones from the cores.
// A forked process, in which an OpenMP runtime may hang, starts threads of its own.
void on_threads(int64_t threads, int64_t useful, void (*run)(void*), void* data) noexcept;

template <typename Run>
void on_threads(int64_t threads, int64_t useful, const Run& run) noexcept {
  on_threads(threads, useful, [](void* data) { (*static_cast<const Run*>(data))(); }, const_cast<Run*>(&run));
}

}  // namespace reserve
