// The main function of a fuzz driver that tries one random problem after another: `DRIVER [SECONDS [SEED]]`.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "random_input.h"

namespace reserve_fuzz {

// Calls `run` with random numbers until the seconds are over or it returns anything but 0. Returns main's exit status.
template <typename Run>
int fuzz(int argc, char** argv, const Run& run) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10.0;
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const auto start = std::chrono::steady_clock::now();
  int64_t problems = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    if (run(random) != 0) return 1;
    ++problems;
  }
  std::printf("%lld problems\n", static_cast<long long>(problems));
  return 0;
}

}  // namespace reserve_fuzz
