#include "cpu_threads.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace reserve {
namespace {

constexpr int64_t most_threads = 256;

// The entry point of GCC's OpenMP runtime, which LLVM's and Intel's have too: calls a function in so many threads.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

const pid_t loaded_in = getpid();
std::atomic<Parallel> found{nullptr};

Parallel openmp() noexcept {
  if (getpid() != loaded_in) return nullptr;
  Parallel parallel = found.load(std::memory_order_relaxed);
  if (parallel == nullptr) {
    parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    found.store(parallel, std::memory_order_relaxed);
  }
  return parallel;
}

}  // namespace

void on_threads(int64_t threads, int64_t useful, void (*run)(void*), void* data) noexcept {
  int64_t count = std::min({threads, useful, most_threads});
  if (count < 2) {
    run(data);
    return;
  }
  if (const Parallel parallel = openmp()) {
    // All of them or none: a runtime asked for fewer threads than last time ends the others.
    parallel(run, data, static_cast<unsigned>(std::min(threads, most_threads)), 0);
    return;
  }
  std::thread helpers[most_threads];
  int started = 0;
  for (; started + 1 < count; ++started) {
    try {
      helpers[started] = std::thread(run, data);
    } catch (...) {
      break;  // The system gives no more threads: those there are do the work.
    }
  }
  run(data);
  for (int i = 0; i < started; ++i) helpers[i].join();
}

}  // namespace reserve
