// The limit to a range below the largest value. Once per instruction set (vector.h).
#pragma once

#include "log_mel_cpu.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// The largest of `from` and n values, or the smallest; NaN if one of them is.
template <bool larger>
static float extreme(const float* values, int64_t n, float from) {
  constexpr int chains = 4;  // a comparison waits for the one before
  Vector best[chains];
  IntVector unordered = {};  // where a NaN was, which comparisons pass over
  for (auto& chain : best) chain = splat(from);
  int64_t i = 0;
  for (; i + chains * lanes <= n; i += chains * lanes)
    for (int k = 0; k < chains; ++k) {
      const Vector value = load(values + i + k * lanes);
      best[k] = (larger ? value > best[k] : value < best[k]) ? value : best[k];
      unordered |= value != value;
    }
  float found = from;
  bool nan = from != from;
  const auto add = [&](float value) {
    nan |= value != value;
    found = (larger ? value > found : value < found) ? value : found;
  };
  for (const Vector& chain : best)
    for (int lane = 0; lane < lanes; ++lane) add(chain[lane]);
  for (int lane = 0; lane < lanes; ++lane) nan |= unordered[lane] != 0;
  for (; i < n; ++i) add(values[i]);
  return nan ? __builtin_nanf("") : found;
}

// Raises n values to at least `limit`, or lowers them to at most that. NaN stays, and a limit of NaN makes all NaN.
template <bool larger>
static void limit_to(float* values, int64_t n, float limit) {
  const Vector all = splat(limit);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Vector value = load(values + i);
    const IntVector kept = (larger ? value >= all : value <= all) | (value != value);
    store(values + i, kept ? value : all);
  }
  for (; i < n; ++i)
    if (!((larger ? values[i] >= limit : values[i] <= limit) || values[i] != values[i])) values[i] = limit;
}

constexpr CpuRange range_functions{{extreme<false>, extreme<true>}, {limit_to<false>, limit_to<true>}};

}  // namespace RESERVE_ISA
}  // namespace reserve
