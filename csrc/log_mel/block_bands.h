// What blocks of fixed and of mixed passes share: bands from powers in shared memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "reserve_native.h"

namespace reserve {

// Two of reserve_placed_weight, which one access moves.
struct alignas(16) PlacedWeights {
  int32_t place;
  float weight;
  int32_t next_place;
  float next_weight;
};

// The weighted sum of a band's powers, plus `poison`.
RESERVE_HD float band_sum(const reserve_log_mel& problem, int band, const float* power, float poison) {
  const int begin = problem.placed_row[band];
  const auto* weights = reinterpret_cast<const PlacedWeights*>(problem.placed_weight + begin);
  float sum = poison, other = 0.0f;
  RESERVE_NO_UNROLL
  for (int left = problem.placed_row[band + 1] - begin; left > 0; left -= 4, weights += 2) {
    const PlacedWeights a = weights[0], b = weights[1];
    sum += power[a.place] * a.weight;
    other += power[a.next_place] * a.next_weight;
    sum += power[b.place] * b.weight;
    other += power[b.next_place] * b.next_weight;
  }
  return sum + other;
}

}  // namespace reserve
