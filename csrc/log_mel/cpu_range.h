// The extremes of values, and limits to them. Once per instruction set (vector.h).
#pragma once

#include "log_mel_cpu.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// The largest value of a block, or the smallest, beginning with `from`; NaN if one is.
template <bool larger>
static float extreme(const Block& block, float from) {
  constexpr int chains = 4;  // a comparison waits for the one before
  Vector best[chains];
  IntVector unordered = {};  // where a NaN was, which comparisons pass over
  float found = from;
  bool nan = from != from;
  for (auto& chain : best) chain = splat(from);
  const auto take = [&](Vector& chain, const float* values) {
    const Vector value = load(values);
    chain = (larger ? value > chain : value < chain) ? value : chain;
    unordered |= value != value;
  };
  const auto add = [&](float value) {
    nan |= value != value;
    found = (larger ? value > found : value < found) ? value : found;
  };
  for (int64_t run = 0; run < block.runs; ++run) {
    const float* values = block.first + run * block.stride;
    int64_t i = 0;
    for (; i + chains * lanes <= block.width; i += chains * lanes)
      for (int k = 0; k < chains; ++k) take(best[k], values + i + k * lanes);
    for (; i + lanes <= block.width; i += lanes) take(best[run % chains], values + i);
    for (; i < block.width; ++i) add(values[i]);
  }
  for (const Vector& chain : best)
    for (int lane = 0; lane < lanes; ++lane) add(chain[lane]);
  for (int lane = 0; lane < lanes; ++lane) nan |= unordered[lane] != 0;
  return nan ? __builtin_nanf("") : found;
}

// Raises the values of a block to at least `limit`, or lowers them to at most that. NaN stays, and a limit of NaN makes
// all NaN.
template <bool larger>
static void limit_to(const Block& block, float limit) {
  const Vector all = splat(limit);
  for (int64_t run = 0; run < block.runs; ++run) {
    float* values = block.first + run * block.stride;
    int64_t i = 0;
    for (; i + lanes <= block.width; i += lanes) {
      const Vector value = load(values + i);
      const IntVector kept = (larger ? value >= all : value <= all) | (value != value);
      store(values + i, kept ? value : all);
    }
    for (; i < block.width; ++i)
      if (!((larger ? values[i] >= limit : values[i] <= limit) || values[i] != values[i])) values[i] = limit;
  }
}

constexpr CpuRange range_functions{{extreme<false>, extreme<true>}, {limit_to<false>, limit_to<true>}};

}  // namespace RESERVE_ISA
}  // namespace reserve
