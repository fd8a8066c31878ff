// The rotary position: its factors for each token of a sequence, and how rows of queries and keys take it.
#pragma once

#include <cmath>

#include "attention_cpu.h"
#include "bfloat16.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// Rows of factors, one a token: the rotated numbers, and others up to a multiple of 32, which stay as they are. A number x
// with its neighbour y becomes x own + y other. The diagonal form has no `other`.
struct Position {
  const float* own = nullptr;    // [tokens][size]
  const float* other = nullptr;  // [tokens][size]
  int64_t size = 0;
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

// Angles that are computed together, and the factors that they give.
constexpr int64_t angle_block = 16;
constexpr int64_t factor_block = 2 * angle_block;

// Factors of a row of `angles` angles.
constexpr int64_t factors_of(int64_t angles) { return (angles + angle_block - 1) / angle_block * factor_block; }

// The factors of one block of angles.
static RESERVE_HD void fill_block(const float* __restrict angles, bool standard, float* __restrict own,
                                  float* __restrict other) {
  float sine[angle_block], cosine[angle_block];
  int large = 0;
  for (int i = 0; i < angle_block; ++i) large |= !(fabsf(angles[i]) <= 8192.0f);
  for (int i = 0; i < angle_block; ++i) sine_and_cosine(angles[i], sine[i], cosine[i]);
  if (large) {
    for (int i = 0; i < angle_block; ++i) {
      sine[i] = __builtin_sinf(angles[i]);
      cosine[i] = __builtin_cosf(angles[i]);
    }
  }
  if (standard) {
    for (int i = 0; i < angle_block; ++i) {
      own[2 * i] = own[2 * i + 1] = cosine[i];
      other[2 * i] = -sine[i];
      other[2 * i + 1] = sine[i];
    }
  } else {
    for (int i = 0; i < angle_block; ++i) {
      own[2 * i] = sine[i] - cosine[i];
      own[2 * i + 1] = sine[i] + cosine[i];
    }
  }
}

// Fills `own`, and `other` for the standard form, with the factors of `tokens` tokens from their angles [tokens][count].
static void fill_position(const float* __restrict angles, int64_t tokens, int64_t count, bool standard,
                          float* __restrict own, float* __restrict other) {
  const int64_t rest = count % angle_block;
  for (int64_t t = 0; t < tokens; ++t, angles += count) {
    for (int64_t i = 0; i < count; i += angle_block, own += factor_block, other += standard ? factor_block : 0) {
      if (count - i >= angle_block) {
        fill_block(angles + i, standard, own, other);
        continue;
      }
      float last[angle_block] = {};
      for (int64_t j = 0; j < rest; ++j) last[j] = angles[i + j];
      fill_block(last, standard, own, other);
      for (int64_t j = 2 * rest; j < factor_block; ++j) own[j] = 1.0f;
    }
  }
}

// Applies factors of one token to the first `vectors` vectors of its row.
template <int vectors>
static RESERVE_HD void apply_factors(const Position& position, int64_t at, float direction, Vector* row) {
  for (int j = 0; j < vectors; ++j, at += lanes) {
    if (position.other == nullptr) {
      row[j] = row[j] * load(position.own + at);
      continue;
    }
    const Vector neighbours = RESERVE_SHUFFLE(row[j], row[j], RESERVE_EACH_QUAD(1, 0, 3, 2));
    const Vector turned = neighbours * (load(position.other + at) * direction);
    row[j] = turned + row[j] * load(position.own + at);
  }
}

// Applies the position of `token` to the vectors of a row. `direction` is 1, or -1 for the transposed map.
template <int head_size>
static RESERVE_HD void apply(const Position& position, int64_t token, float direction, Vector* row) {
  if (position.own == nullptr) return;
  const int64_t at = token * position.size;
  // The number of vectors is a constant of each case, so that the row stays in registers.
  switch (position.size / factor_block) {
    case 1: apply_factors<1 * factor_block / lanes>(position, at, direction, row); break;
    case 2: apply_factors<(head_size < 64 ? 32 : 64) / lanes>(position, at, direction, row); break;
    case 3: apply_factors<(head_size < 96 ? 32 : 96) / lanes>(position, at, direction, row); break;
    default: apply_factors<(head_size < 128 ? 32 : 128) / lanes>(position, at, direction, row); break;
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
