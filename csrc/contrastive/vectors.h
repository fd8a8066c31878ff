// SIMD vectors of RESERVE_LANES floats, and their exponential. Each translation unit that includes this is compiled for one
// instruction set and puts it into its own namespace RESERVE_ISA, so that no function is shared between them.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "host_device.h"

namespace reserve {
namespace RESERVE_ISA {

constexpr int64_t lanes = RESERVE_LANES;
typedef float Vector __attribute__((vector_size(4 * RESERVE_LANES)));
typedef int32_t IntVector __attribute__((vector_size(4 * RESERVE_LANES)));
typedef uint32_t UnsignedVector __attribute__((vector_size(4 * RESERVE_LANES)));

static RESERVE_HD Vector splat(float value) { return Vector{} + value; }
static RESERVE_HD Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
static RESERVE_HD void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// The first `count` lanes; the others are `rest`.
static RESERVE_HD Vector load_first(const float* from, int64_t count, float rest) {
  Vector v = splat(rest);
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(float));
  return v;
}
static RESERVE_HD void store_first(float* to, int64_t count, Vector v) {
  std::memcpy(to, &v, static_cast<size_t>(count) * sizeof(float));
}

static RESERVE_HD Vector larger(Vector a, Vector b) { return a > b ? a : b; }
static RESERVE_HD Vector magnitude(Vector v) { return (Vector)((IntVector)v & 0x7fffffff); }

static RESERVE_HD float largest_lane(Vector v) {
  float largest = v[0];
  for (int i = 1; i < lanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}
static RESERVE_HD float sum_of_lanes(Vector v) {
  float parts[lanes];
  std::memcpy(parts, &v, sizeof v);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

// e^x to about one unit in the last place: 0 below -87.33, where it would be subnormal, infinity above 88.37, NaN for NaN.
static RESERVE_HD Vector exponential(Vector x) {
  // e^x = 2^n e^r, |r| <= ln 2 / 2. Adding 1.5 2^23 rounds to an integer, which stands in the lowest bits.
  const Vector rounder = splat(0x1.8p23f);
  const Vector shifted = x * splat(1.44269504f) + rounder;
  const Vector n = shifted - rounder;
  // ln 2 in two parts, so that the first product is exact.
  const Vector r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  // The minimax polynomial of degree 6, to 3e-9.
  Vector p = r * splat(0.0013814596f) + splat(0.0083687175f);
  p = p * r + splat(0.041668389f);
  p = p * r + splat(0.16666521f);
  p = p * r + splat(0.49999994f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  Vector e = (Vector)((UnsignedVector)p + ((UnsignedVector)shifted << 23));
  e = x < splat(-87.33f) ? Vector{} : e;
  e = x > splat(88.37f) ? splat(INFINITY) : e;
  return x == x ? e : x;
}

static RESERVE_HD float exponential(float x) { return exponential(splat(x))[0]; }

}  // namespace RESERVE_ISA
}  // namespace reserve
