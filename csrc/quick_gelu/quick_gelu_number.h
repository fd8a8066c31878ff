// One number of bias + quick GELU: what kernels/quick_gelu/reference.py writes in PyTorch.
#pragma once

#include <cmath>
#include <cstdint>

#include "bfloat16.h"
#include "host_device.h"

namespace reserve {

constexpr float quick_gelu_steepness = 1.702f;

// e^x for x <= 0 to about one unit in the last place; 0 below -87.33, where it would be subnormal, and for NaN.
RESERVE_HD float exp_of_negative(float x) {
  // e^x = 2^n e^r, |r| <= ln 2 / 2. Adding 1.5 2^23 rounds to an integer, which stands in the lowest bits.
  constexpr float rounder = 0x1.8p23f;
  const float shifted = x * 1.44269504f + rounder;
  const float n = shifted - rounder;
  // ln 2 in two parts, so that the first product is exact.
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  // The minimax polynomial of degree 6, to 3e-9.
  float p = r * 0.0013814596f + 0.0083687175f;
  p = p * r + 0.041668389f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  uint32_t power, bits;
  memcpy(&power, &shifted, sizeof power);
  memcpy(&bits, &p, sizeof bits);
  return x > -87.33f ? float_of(bits + (power << 23)) : 0.0f;
}

// z sigmoid(1.702 z), from e = exp(-|1.702 z|): the sigmoid is 1 / (1 + e), or e / (1 + e) for negative z.
RESERVE_HD float quick_gelu(float z) {
  const float e = exp_of_negative(-fabsf(quick_gelu_steepness * z));
  const float q = 1.0f / (1.0f + e);
  return z * (z < 0.0f ? e * q : q);
}

// Its derivative s + 1.702 z s (1 - s). s (1 - s) first: 1.702 z may overflow where that is 0.
RESERVE_HD float quick_gelu_slope(float z) {
  const float e = exp_of_negative(-fabsf(quick_gelu_steepness * z));
  const float q = 1.0f / (1.0f + e);
  const float eq = e * q;
  return (z < 0.0f ? eq : q) + eq * q * z * quick_gelu_steepness;
}

// A number in memory: float, or uint16_t for bfloat16.
RESERVE_HD float read_number(float value) { return value; }
RESERVE_HD float read_number(uint16_t value) { return from_bfloat16(value); }
RESERVE_HD void write_number(float* to, float value) { *to = value; }
RESERVE_HD void write_number(uint16_t* to, float value) { *to = to_bfloat16(value); }

}  // namespace reserve
