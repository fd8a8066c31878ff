// Products of small matrices in registers. The rows of A are `of_a` floats apart, those of B and C `of_c`, which are a head's
// numbers or a block of queries. `vecs` vectors of each row of B and C are computed; B and C are aligned.
#pragma once

#include "attention_cpu.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// The largest tile of C in registers: with 32 of them 24 vectors, with 16 of them 12, so that those of B and A fit too.
constexpr int tile_rows = 6;
#if RESERVE_LANES == 16 || defined(__aarch64__)
constexpr int tile_vectors = 4;
#else
constexpr int tile_vectors = 2;
#endif

// Number (i, k) of A is at a[i * row + k * inner]: A itself, or a matrix of which A is the transpose.
template <int of_a, bool transposed>
struct Steps {
  static constexpr int64_t row = transposed ? 1 : of_a;
  static constexpr int64_t inner = transposed ? of_a : 1;
};

// C = A B, or C += A B, for a tile of C: `inner` numbers of each row of A, `inner` rows of B. The product is summed by
// itself before it is added, so that roundings do not grow with the number of blocks.
template <int rows, int vecs, int of_a, int of_c, bool transposed, bool add>
static RESERVE_HD void tile(const float* a, const float* b, int64_t inner, float* c) {
  using Step = Steps<of_a, transposed>;
  Vector sums[rows][vecs];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) sums[i][j] = Vector{};
#pragma GCC unroll 1
  for (int64_t k = 0; k < inner; ++k) {
    Vector row[vecs];
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) row[j] = load(b + k * of_c + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const float factor = a[i * Step::row + k * Step::inner];
#pragma GCC unroll 8
      for (int j = 0; j < vecs; ++j) sums[i][j] += row[j] * factor;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vecs; ++j) {
      float* at = c + i * of_c + j * lanes;
      store(at, add ? load(at) + sums[i][j] : sums[i][j]);
    }
}

// What a product does beside its work: nothing.
struct Nothing {
  RESERVE_HD void operator()(int64_t, int64_t) const {}
};

// All `rows` of C, in tiles of about equal height, for `vecs` vectors of each. Before each tile it calls `aside` with the
// first row and the number of rows.
template <int vecs, int of_a, int of_c, bool transposed, bool add, typename Aside>
static RESERVE_HD void strip(const float* a, const float* b, int64_t inner, float* c, int64_t rows, const Aside& aside) {
  int64_t done = 0;
  for (int64_t tiles = (rows + tile_rows - 1) / tile_rows; tiles > 0; --tiles) {
    const int64_t height = (rows + tiles - 1) / tiles;
    aside(done, height);
    switch (height) {
      case 1: tile<1, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
      case 2: tile<2, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
      case 3: tile<3, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
      case 4: tile<4, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
      case 5: tile<5, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
      default: tile<tile_rows, vecs, of_a, of_c, transposed, add>(a, b, inner, c); break;
    }
    rows -= height;
    done += height;
    a += height * Steps<of_a, transposed>::row;
    c += height * of_c;
  }
}

// C = A B or C += A B: `rows` rows of C, of which the first `vectors` vectors are computed.
template <int of_a, int of_c, bool transposed, bool add, typename Aside = Nothing>
static void product(const float* a, const float* b, int64_t inner, float* c, int64_t rows, int vectors = of_c / lanes,
                    const Aside& aside = {}) {
  for (; vectors > 0; vectors -= tile_vectors, b += tile_vectors * lanes, c += tile_vectors * lanes) {
    switch (vectors) {
      case 1: strip<1, of_a, of_c, transposed, add>(a, b, inner, c, rows, aside); break;
#if RESERVE_LANES == 16 || defined(__aarch64__)
      case 2: strip<2, of_a, of_c, transposed, add>(a, b, inner, c, rows, aside); break;
      case 3: strip<3, of_a, of_c, transposed, add>(a, b, inner, c, rows, aside); break;
#endif
      default: strip<tile_vectors, of_a, of_c, transposed, add>(a, b, inner, c, rows, aside); break;
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
