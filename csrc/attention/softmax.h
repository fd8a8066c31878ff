// The softmax of scores that lie transposed, [keys][64 queries]: every query is a lane, so that maxima and sums need no
// exchange between lanes and nothing is masked but other segments.
#pragma once

#include "attention_cpu.h"
#include "rows.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// e^x for x <= 88 to about one unit in the last place; 0 below -87.33, where it would be subnormal; NaN for NaN.
static RESERVE_HD Vector exponential(Vector x) {
  // e^x = 2^n e^r, |r| <= ln 2 / 2. Adding 1.5 2^23 rounds to an integer, which stands in the lowest bits.
  constexpr float rounder = 0x1.8p23f;
  const Vector shifted = x * 1.44269504f + rounder;
  const Vector n = shifted - rounder;
  // ln 2 in two parts, so that the first product is exact.
  const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  // The minimax polynomial of degree 6, to 3e-9.
  Vector p = r * 0.0013814596f + 0.0083687175f;
  p = p * r + 0.041668389f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // A product keeps p's NaN, as adding to its bits would not.
  const Vector power = (Vector)(((UintVector)shifted << 23) + 0x3f800000u);
  return x < -87.33f ? Vector{} : p * power;
}

// Segment ids of the keys of a sequence and, padded to whole vectors, of a block of its queries; or none.
struct Segments {
  const int32_t* keys = nullptr;
  const int32_t* queries = nullptr;

  // `score` where the key and the queries of vector v are of one segment, minus infinity elsewhere.
  RESERVE_HD Vector mask(Vector score, int64_t key, int v) const {
    if (keys == nullptr) return score;
    IntVector ids;
    std::memcpy(&ids, queries + v * lanes, sizeof ids);
    return ids == keys[key] ? score : splat(-__builtin_inff());
  }
};

// The running maximum and sum of a block of queries, and by how much what was summed before must shrink.
struct Statistics {
  alignas(64) float maximum[block_size];
  alignas(64) float sum[block_size];
  alignas(64) float shrink[block_size];
};

static RESERVE_HD Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// Turns the scores of the keys `range` into weights relative to the running maximum.
template <bool masked>
static void softmax(float* scores, Range range, int vectors, const Segments& segments, bool first, Statistics& s) {
  const int64_t count = range.end - range.begin;
  for (int v = 0; v < vectors; ++v) {
    float* column = scores + v * lanes;
    if (masked)
      for (int64_t k = 0; k < count; ++k)
        store(column + k * block_size, segments.mask(load(column + k * block_size), range.begin + k, v));
    // Two maxima and sums, for latency.
    Vector most = splat(-__builtin_inff()), most2 = most;
    int64_t k = 0;
    for (; k + 2 <= count; k += 2) {
      most = larger(load(column + k * block_size), most);
      most2 = larger(load(column + (k + 1) * block_size), most2);
    }
    if (k < count) most = larger(load(column + k * block_size), most);
    Vector maximum = larger(most, most2);
    const Vector before = load(s.maximum + v * lanes);
    if (!first) maximum = larger(before, maximum);
    // With segments all keys so far may be masked. Then the maximum must not be subtracted: the weights are 0.
    const Vector base = masked ? (maximum == -__builtin_inff() ? Vector{} : maximum) : maximum;
    const auto weigh = [&](int64_t key) {
      const Vector weight = exponential(load(column + key * block_size) - base);
      store(column + key * block_size, weight);
      return weight;
    };
    Vector sum{}, sum2{};
    for (k = 0; k + 2 <= count; k += 2) {
      sum += weigh(k);
      sum2 += weigh(k + 1);
    }
    if (k < count) sum += weigh(k);
    sum += sum2;
    if (!first) {
      const Vector shrink = exponential(before - base);
      store(s.shrink + v * lanes, shrink);
      sum += load(s.sum + v * lanes) * shrink;
    }
    store(s.maximum + v * lanes, maximum);
    store(s.sum + v * lanes, sum);
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
