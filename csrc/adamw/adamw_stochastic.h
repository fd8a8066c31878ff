// Stochastic rounding of AdamW's bfloat16 moments: what kernels/adamw/stochastic.py writes in PyTorch, bit for bit.
// Everything but a cube is integer arithmetic, so that a moment is rounded alike on every machine.
#pragma once

#include "adamw_moments.h"
#include "reserve_native.h"

namespace reserve {

// A stochastically rounded moment in memory.
struct StochasticBfloat16 {
  uint16_t bits;
};

template <typename Moment>
constexpr bool is_stochastic = false;
template <>
constexpr bool is_stochastic<StochasticBfloat16> = true;

// The two halves of a tensor's key, for numbers whose index has the same upper 32 bits.
struct RandomKey {
  uint32_t low, high;
};

RESERVE_HD RandomKey random_key(const reserve_adamw_random& random, uint64_t index) {
  const uint32_t upper = static_cast<uint32_t>(index >> 32);
  return {static_cast<uint32_t>(random.key), static_cast<uint32_t>(random.key >> 32) + upper * 0x9e3779b9u};
}

// 32 random bits for the number of that index (its lower 32 bits): the hash "triple32" of C. Wellons' hash function
// prospector, keyed before its first and its second round. "lowbias32", with one round less, leaves bits correlated.
RESERVE_HD uint32_t random_bits(RandomKey key, uint32_t index) {
  uint32_t x = index ^ key.low;
  x = (x ^ x >> 17) * 0xed5ad4bbu;
  x = ((x ^ x >> 11) + key.high) * 0xac4c1b51u;
  x = (x ^ x >> 15) * 0x31848babu;
  return x ^ x >> 14;
}

// m rounded to one of its two bfloat16 neighbours, up in magnitude with the probability (m - lower) / (upper - lower):
// where `random`, of 16 bits, carries into the upper half. Bfloat16 numbers stay.
RESERVE_HD uint16_t round_first_moment(float m, uint32_t random) {
  const uint32_t bits = bits_of(m);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>((is_nan ? bits | 0x400000u : bits + random) >> 16);
}

// The code of a stored second moment, 2 * magnitude + sign of its pattern, rises with its value. Where cubes would be
// subnormal, from 2 to 255, codes stand for v itself to 3 bits, 8 steps an octave: the float whose upper 12 bits are
// tiny_base + code. Code 256 is 2^-42, whose cube is the smallest normal one.
constexpr float tiny_below = 0x1p-42f;
constexpr int32_t tiny_base = 424;
constexpr float least_tiny = 0x1.4p-74f;  // code 2

RESERVE_HD int32_t round_tiny_second_moment(float v, int32_t random) {
  const uint32_t between = (bits_of(v) + static_cast<uint32_t>(random << 4) + 8u) >> 20;
  // Below the least one v is rounded to it or to 0.
  const int32_t least = static_cast<float>(random) < v * (65536.0f / least_tiny) ? 2 : 0;
  return v < least_tiny ? least : static_cast<int32_t>(between) - tiny_base;
}

// v >= 0 rounded to one of the two neighbours that can be stored, up with a probability that leaves the mean at v (to
// 6e-8 of v): x (1 + (upper - cube) / (3 cube)) where x is the cube's position between the neighbours, from 0 to 1. The
// second term is there because the root is concave. `random` has 16 bits. Stored values stay.
//
// Integers are signed where they fit: vectors compare them at once.
RESERVE_HD uint16_t round_second_moment(float v, int32_t random) {
  const float clamped = v < tiny_below ? tiny_below : v;
  const int32_t cube = static_cast<int32_t>(bits_of(clamped * clamped * clamped));
  // Distances in units of the cube's last place, of which a bfloat16 number has 2^16 to the next.
  const int32_t significand = (cube & 0x7fffff) | 0x800000;
  const int32_t to_raised = (significand & 0xff0000) >> 9;
  const int32_t beyond = cube & 0xffff;
  const bool above = beyond >= to_raised;
  const int32_t gap = above ? 0x10000 - to_raised : to_raised;
  const int32_t offset = above ? beyond - to_raised : beyond;
  // Up where x exceeds r (1 - gap / (3 cube) (1 - r)), times the gap; r = random / 2^16. The last factor is a line close
  // to 2^38 / (3 significand).
  const int32_t threshold = static_cast<int32_t>(static_cast<uint32_t>(random) * static_cast<uint32_t>(gap) >> 16);
  const int32_t bend = (threshold * (gap - threshold) >> 14) * (14600 - (significand >> 11)) >> 24;
  const int32_t normal = 2 * (cube >> 16) + (above ? 1 : 0) + (offset > threshold - bend ? 1 : 0);
  const int32_t code = v < tiny_below ? round_tiny_second_moment(v, random) : normal;
  return static_cast<uint16_t>(code >> 1 | (code & 1) << 15);
}

RESERVE_HD float read_first(StochasticBfloat16 m) { return from_bfloat16(m.bits); }

RESERVE_HD float read_second(StochasticBfloat16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const int32_t code = static_cast<int32_t>(magnitude >> 15 | bits >> 31);
  const bool tiny = code < 256;
  // Not of a subnormal number, with which processors are slow.
  const float root = cube_root((tiny ? 1.0f : float_of(magnitude)) * (bits >> 31 != 0 ? precision_bit : 1.0f));
  return tiny ? (code < 2 ? 0.0f : float_of(static_cast<uint32_t>(tiny_base + code) << 20)) : root;
}

RESERVE_HD void write_moments(StochasticBfloat16* m_at, float m, StochasticBfloat16* v_at, float v, uint32_t random) {
  m_at->bits = round_first_moment(m, random >> 16);
  v_at->bits = round_second_moment(v, static_cast<int32_t>(random & 0xffffu));
}

}  // namespace reserve
