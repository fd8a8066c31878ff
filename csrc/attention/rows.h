// Rows of heads between the caller's arrays and scratch memory, where each is as many floats as the head has numbers.
#pragma once

#include "attention_cpu.h"
#include "position.h"
#include "products.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

typedef uint32_t UintVector __attribute__((vector_size(4 * RESERVE_LANES)));
typedef uint16_t HalfVector __attribute__((vector_size(2 * RESERVE_LANES)));

static RESERVE_HD Vector read(const float* from) { return load(from); }
static RESERVE_HD Vector read(const uint16_t* from) {
  HalfVector halves;
  std::memcpy(&halves, from, sizeof halves);
  return (Vector)(__builtin_convertvector(halves, UintVector) << 16);
}

static RESERVE_HD void write(float* to, Vector value) { store(to, value); }
// As to_bfloat16.
static RESERVE_HD void write(uint16_t* to, Vector value) {
  const UintVector bits = (UintVector)value;
  const UintVector rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  const UintVector kept = (bits & 0x7fffffffu) > 0x7f800000u ? (bits | 0x400000u) : rounded;
  const HalfVector halves = __builtin_convertvector(kept >> 16, HalfVector);
  std::memcpy(to, &halves, sizeof halves);
}

// A head's rows of one sequence in an array of the caller.
template <typename Number>
struct HeadRows {
  Number* first;
  int64_t stride;

  RESERVE_HD Number* at(int64_t token) const { return first + token * stride; }
};

// Asks for rows of the next head, which lie behind those of this one, while a product runs: no hardware prefetcher follows
// rows that are pages apart. They go to the L2 cache, since rows multiples of 1 KB apart share few sets of an L1 cache.
template <int head_size, typename Number, int arrays>
struct NextHead {
  HeadRows<const Number> rows[arrays];
  int64_t first;  // row of the sequence that belongs to the product's first row
  bool exists;

  RESERVE_HD void operator()(int64_t row, int64_t count) const {
    if (!exists) return;
    for (int64_t t = first + row; t < first + row + count; ++t)
      for (int64_t i = 0; i < head_size; i += 64 / int64_t{sizeof(Number)})
        for (const auto& next : rows) __builtin_prefetch(next.at(t) + head_size + i, 0, 2);
  }
};

// Copies rows `range` with the position applied, times `scale`, and makes `zeros` rows of 0 behind them.
template <int head_size, typename Number>
static void gather(HeadRows<const Number> from, Range range, const Position& position, float scale, int64_t zeros,
                   float* to) {
  constexpr int row_vectors = head_size / lanes;
  for (int64_t t = range.begin; t < range.end; ++t, to += head_size) {
    Vector row[row_vectors];
    for (int j = 0; j < row_vectors; ++j) row[j] = read(from.at(t) + j * lanes) * scale;
    apply<head_size>(position, t, 1.0f, row);
    for (int j = 0; j < row_vectors; ++j) store(to + j * lanes, row[j]);
  }
  for (; zeros > 0; --zeros, to += head_size)
    for (int j = 0; j < row_vectors; ++j) store(to + j * lanes, Vector{});
}

// Copies gradients of rows `range` back, times `scale`, with the transpose of the position applied.
template <int head_size, typename Number>
static void scatter(const float* from, HeadRows<Number> to, Range range, const Position& position, float scale) {
  constexpr int row_vectors = head_size / lanes;
  for (int64_t t = range.begin; t < range.end; ++t, from += head_size) {
    Vector row[row_vectors];
    for (int j = 0; j < row_vectors; ++j) row[j] = load(from + j * lanes) * scale;
    apply<head_size>(position, t, -1.0f, row);
    for (int j = 0; j < row_vectors; ++j) write(to.at(t) + j * lanes, row[j]);
  }
}

// The first vectors * lanes rows of a block, transposed: [head_size][64], of whose rows `vectors` vectors are written.
template <int head_size>
static void transpose(const float* from, int vectors, float* to) {
  for (int v = 0; v < vectors; ++v) {
    const Rows rows{from + v * lanes * head_size, head_size};
    for (int64_t d = 0; d < head_size; d += 4) {
      Vector columns[4];
      load_transposed(rows, d, columns);
      for (int i = 0; i < 4; ++i) store(to + (d + i) * block_size + v * lanes, columns[i]);
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
