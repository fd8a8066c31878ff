// Threads for the length of one call.
#pragma once

#include <cstdint>
#include <thread>

namespace reserve {

constexpr int most_threads = 256;

// Calls `run` in `count` threads, this one among them, and returns when all have; `run` shares out the work itself.
template <typename Run>
void on_threads(int64_t count, const Run& run) noexcept {
  if (count > most_threads) count = most_threads;
  std::thread helpers[most_threads];
  int started = 0;
  for (; started + 1 < count; ++started) {
    try {
      helpers[started] = std::thread([&run] { run(); });
    } catch (...) {
      break;  // The system gives no more threads: those there are do the work.
    }
  }
  run();
  for (int i = 0; i < started; ++i) helpers[i].join();
}

}  // namespace reserve
