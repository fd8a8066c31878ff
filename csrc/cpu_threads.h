// Threads for the length of one call.
#pragma once

#include <cstdint>
#include <thread>

namespace reserve {

constexpr int most_threads = 256;

// Calls `run` in `count` threads, this one included, and returns when all are done; `run` divides the work itself.
template <typename Run>
void on_threads(int64_t count, const Run& run) noexcept {
  if (count > most_threads) count = most_threads;
  std::thread helpers[most_threads];
  int started = 0;
  for (; started + 1 < count; ++started) {
    try {
      helpers[started] = std::thread([&run] { run(); });
    } catch (...) {
      break;  // No more threads available: the existing ones do the work.
    }
  }
  run();
  for (int i = 0; i < started; ++i) helpers[i].join();
}

}  // namespace reserve
