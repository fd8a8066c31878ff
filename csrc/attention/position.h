// The rotary position: its factors for each token of a sequence, and how rows of queries and keys take it.
#pragma once

#include <cmath>

#include "attention_cpu.h"
#include "bfloat16.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

constexpr int rotated_vectors = rotated_size / lanes;

// Rows of factors, one a token. A rotated number x with its neighbour y becomes x own + y other. The diagonal form has
// no `other`.
struct Position {
  const float* own = nullptr;    // [tokens][32]
  const float* other = nullptr;  // [tokens][32]
};

// Sine and cosine of an angle of at most 8192 to within two roundings; without branches, for loops that the compiler
// makes vectors of.
static RESERVE_HD void sine_and_cosine(float angle, float& sine, float& cosine) {
  // angle = n pi / 2 + r. Adding 1.5 2^23 rounds to an integer, which stands in the lowest bits.
  constexpr float rounder = 0x1.8p23f;
  const float shifted = angle * 0.636619772f + rounder;
  const float n = shifted - rounder;
  // pi / 2 in three parts, so that the first two products are exact.
  const float r = ((angle - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.54978995489188e-8f;
  // Cephes' polynomials for |r| <= pi / 4.
  const float z = r * r;
  const float s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const float c = ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - z * 0.5f + 1.0f;
  const uint32_t quadrant = bits_of(shifted);
  const bool is_odd = (quadrant & 1u) != 0;
  sine = float_of(bits_of(is_odd ? c : s) ^ ((quadrant & 2u) << 30));
  cosine = float_of(bits_of(is_odd ? s : c) ^ (((quadrant + 1u) & 2u) << 30));
}

// Fills `own`, and `other` for the standard form, with the factors of `tokens` tokens from their angles [tokens][16].
static void fill_position(const float* __restrict angles, int64_t tokens, bool standard, float* __restrict own,
                          float* __restrict other) {
  for (int64_t t = 0; t < tokens; ++t, angles += token_angles, own += rotated_size) {
    float sine[token_angles], cosine[token_angles];
    int large = 0;
    for (int i = 0; i < token_angles; ++i) large |= !(fabsf(angles[i]) <= 8192.0f);
    for (int i = 0; i < token_angles; ++i) sine_and_cosine(angles[i], sine[i], cosine[i]);
    if (large) {
      for (int i = 0; i < token_angles; ++i) {
        sine[i] = __builtin_sinf(angles[i]);
        cosine[i] = __builtin_cosf(angles[i]);
      }
    }
    if (standard) {
      for (int i = 0; i < token_angles; ++i) {
        own[2 * i] = own[2 * i + 1] = cosine[i];
        other[2 * i] = -sine[i];
        other[2 * i + 1] = sine[i];
      }
      other += rotated_size;
    } else {
      for (int i = 0; i < token_angles; ++i) {
        own[2 * i] = sine[i] - cosine[i];
        own[2 * i + 1] = sine[i] + cosine[i];
      }
    }
  }
}

// Applies the position of `token` to the vectors of a row. `direction` is 1, or -1 for the transposed map.
static RESERVE_HD void apply(const Position& position, int64_t token, float direction, Vector* row) {
  if (position.own == nullptr) return;
  for (int j = 0; j < rotated_vectors; ++j) {
    const int64_t at = token * rotated_size + j * lanes;
    Vector x = row[j] * load(position.own + at);
    if (position.other != nullptr) {
      const Vector neighbours = RESERVE_SHUFFLE(row[j], row[j], RESERVE_EACH_QUAD(1, 0, 3, 2));
      x += neighbours * (load(position.other + at) * direction);
    }
    row[j] = x;
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
