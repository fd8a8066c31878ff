// Rounding to bfloat16, the same on the CPU and the GPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "plan.h"

namespace reserve {

// To nearest, ties to even; NaN stays NaN.
RESERVE_HD uint16_t to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace reserve
