// How AdamW's moments are stored, to the nearest value: the formats of kernels/adamw/reference.py.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "bfloat16.h"
#include "host_device.h"

namespace reserve {

// A second moment that is stored as a negative number decodes to its magnitude times this.
constexpr float precision_bit = 1.0f + 1.0f / 512.0f;

// The cube root of a normal number c > 0 to about one unit in the last place; of smaller ones anything finite. Without a
// division.
RESERVE_HD float cube_root(float c) {
  // y = 1 / root: minus a third of the exponent, to 3.5%; then twice the first three terms of (1 - e)^(-1/3).
  int32_t bits;
  memcpy(&bits, &c, sizeof bits);
  bits = 0x54a24000 - static_cast<int32_t>(static_cast<float>(bits) * (1.0f / 3.0f));
  float y;
  memcpy(&y, &bits, sizeof y);
  RESERVE_UNROLL
  for (int step = 0; step < 2; ++step) {
    const float e = 1.0f - c * y * y * y;
    y += y * e * (1.0f / 3.0f + 2.0f / 9.0f * e);
  }
  const float square = y * y;
  const float root = c * square;
  // Newton's step as a small correction, so that little is rounded.
  return root - (root * root * root - c) * (square * (1.0f / 3.0f));
}

// Both in whole words: the compiler's vectors then have one width.
RESERVE_HD float decode_second_moment(uint16_t stored) {
  const uint32_t bits = static_cast<uint32_t>(stored) << 16;
  const float magnitude = float_of(bits & 0x7fffffffu);
  const float cube = magnitude * (bits >> 31 != 0 ? precision_bit : 1.0f);
  const float root = cube_root(cube);
  return cube >= FLT_MIN ? root : 0.0f;  // nothing else is stored
}

// x >= 0 with zero for subnormal numbers, which the released training's hardware does not have.
RESERVE_HD float flushed(float x) { return x < FLT_MIN ? 0.0f : x; }

RESERVE_HD uint16_t encode_second_moment(float v) {
  const float cube = flushed(v * v * v);
  const uint32_t rounded = bfloat16_bits(cube);
  const float wide = float_of(rounded);
  // The raised one wins ties: zero, and cubes below about 2^-117, whose distances are both subnormal.
  const bool plain = flushed(fabsf(wide - cube)) < flushed(fabsf(wide * precision_bit - cube));
  return static_cast<uint16_t>((rounded ^ (plain ? 0u : 0x80000000u)) >> 16);
}

// A moment's type in memory: float, or uint16_t for bfloat16.
RESERVE_HD float read_first(float m) { return m; }
RESERVE_HD float read_first(uint16_t m) { return from_bfloat16(m); }
RESERVE_HD float read_second(float v) { return v; }
RESERVE_HD float read_second(uint16_t v) { return decode_second_moment(v); }

RESERVE_HD void write_moments(float* m_at, float m, float* v_at, float v, uint32_t /*random*/) {
  *m_at = m;
  *v_at = v;
}

RESERVE_HD void write_moments(uint16_t* m_at, float m, uint16_t* v_at, float v, uint32_t /*random*/) {
  *m_at = to_bfloat16(m);
  *v_at = encode_second_moment(v);
}

}  // namespace reserve
