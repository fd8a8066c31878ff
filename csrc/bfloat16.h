// Bits of bfloat16 numbers, the same on the CPU and the GPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace reserve {

RESERVE_HD uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

RESERVE_HD float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The bits of a float rounded to bfloat16, to nearest, ties to even: the lower 16 are 0. NaN stays NaN.
RESERVE_HD uint32_t bfloat16_bits(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) & 0xffff0000u;
}

RESERVE_HD uint16_t to_bfloat16(float value) { return static_cast<uint16_t>(bfloat16_bits(value) >> 16); }

RESERVE_HD float from_bfloat16(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

}  // namespace reserve
