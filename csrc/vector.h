// A SIMD vector of RESERVE_LANES floats. Each translation unit that includes this is compiled for one instruction set and
// puts it into its own namespace RESERVE_ISA, so that no function is shared between them.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace reserve {
namespace RESERVE_ISA {

constexpr int lanes = RESERVE_LANES;
constexpr int quads = lanes / 4;
typedef float Vector __attribute__((vector_size(4 * RESERVE_LANES)));
typedef int32_t IntVector __attribute__((vector_size(4 * RESERVE_LANES)));
typedef float Quad __attribute__((vector_size(16)));

static RESERVE_HD Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
static RESERVE_HD void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }
static RESERVE_HD Vector splat(float value) { return Vector{} + value; }

static RESERVE_HD Quad load_quad(const float* from) {
  Quad q;
  std::memcpy(&q, from, sizeof q);
  return q;
}

// Where `lanes` rows of samples lie: `stride` floats apart.
struct Rows {
  const float* base;
  int64_t stride;
};

// The i-th 128 bits hold four floats of row 4 i + row.
static RESERVE_HD Vector load_rows(Rows rows, int row, int64_t column) {
  const float* from = rows.base + row * rows.stride + column;
#if RESERVE_LANES == 16
  // Masked broadcasts instead of insertions: a load with a blend, which leaves the shuffle unit alone.
  const float* from4 = from + 4 * rows.stride;
  const float* from8 = from + 8 * rows.stride;
  const float* from12 = from + 12 * rows.stride;
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(from));
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(from4));
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(from8));
  return (Vector)_mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(from12));
#elif RESERVE_LANES == 8
  const __m256 v = _mm256_castps128_ps256(_mm_loadu_ps(from));
  return (Vector)_mm256_insertf128_ps(v, _mm_loadu_ps(from + 4 * rows.stride), 1);
#else
  return load_quad(from);
#endif
}

#if RESERVE_LANES == 16
#define RESERVE_EACH_QUAD(a, b, c, d) \
  a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12
#elif RESERVE_LANES == 8
#define RESERVE_EACH_QUAD(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#else
#define RESERVE_EACH_QUAD(a, b, c, d) a, b, c, d
#endif
#if defined(__clang__)
#define RESERVE_SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define RESERVE_SHUFFLE(x, y, ...) __builtin_shuffle(x, y, IntVector{__VA_ARGS__})
#endif

// Transposes the 4 x 4 floats that each 128 bits of the four vectors make.
static RESERVE_HD void transpose_quads(Vector& a, Vector& b, Vector& c, Vector& d) {
  constexpr int n = lanes;
  const Vector ac_low = RESERVE_SHUFFLE(a, c, RESERVE_EACH_QUAD(0, n, 1, n + 1));
  const Vector ac_high = RESERVE_SHUFFLE(a, c, RESERVE_EACH_QUAD(2, n + 2, 3, n + 3));
  const Vector bd_low = RESERVE_SHUFFLE(b, d, RESERVE_EACH_QUAD(0, n, 1, n + 1));
  const Vector bd_high = RESERVE_SHUFFLE(b, d, RESERVE_EACH_QUAD(2, n + 2, 3, n + 3));
  a = RESERVE_SHUFFLE(ac_low, bd_low, RESERVE_EACH_QUAD(0, n, 1, n + 1));
  b = RESERVE_SHUFFLE(ac_low, bd_low, RESERVE_EACH_QUAD(2, n + 2, 3, n + 3));
  c = RESERVE_SHUFFLE(ac_high, bd_high, RESERVE_EACH_QUAD(0, n, 1, n + 1));
  d = RESERVE_SHUFFLE(ac_high, bd_high, RESERVE_EACH_QUAD(2, n + 2, 3, n + 3));
}

// Samples column to column + 3 of every row, one vector a sample.
static RESERVE_HD void load_transposed(Rows rows, int64_t column, Vector out[4]) {
  for (int i = 0; i < 4; ++i) out[i] = load_rows(rows, i, column);
  transpose_quads(out[0], out[1], out[2], out[3]);
}

// The inverse: four vectors to columns column to column + 3 of `lanes` rows that lie `stride` apart.
static RESERVE_HD void store_transposed(float* rows, int64_t stride, int64_t column, Vector in[4]) {
  transpose_quads(in[0], in[1], in[2], in[3]);
  for (int i = 0; i < 4; ++i)
    for (int q = 0; q < quads; ++q)
      std::memcpy(rows + (4 * q + i) * stride + column, reinterpret_cast<const char*>(&in[i]) + 16 * q, 16);
}

// Natural logarithm of normal positive numbers to about one unit in the last place; NaN for NaN and infinity.
// x = 2^e m with m in [sqrt 1/2, sqrt 2); the polynomial is Cephes' logf.
static RESERVE_HD Vector logarithm(Vector x) {
  const IntVector bits = (IntVector)x;
  const IntVector exponent = (bits - 0x3f3504f3) >> 23;
  const Vector f = (Vector)(bits - (exponent << 23)) - 1.0f;
  const Vector e = __builtin_convertvector(exponent, Vector);
  Vector p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const Vector square = f * f;
  const Vector tail = p * square * f + e * -2.12194440e-4f - square * 0.5f;
  return (f + tail) + e * 0.693359375f + (x - x);
}

}  // namespace RESERVE_ISA
}  // namespace reserve
