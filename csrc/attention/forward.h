// The forward pass of a unit: for each head and block of queries, scores, softmax and the product with the values, over
// chunks of keys with a running maximum.
#pragma once

#include "attention_cpu.h"
#include "products.h"
#include "rows.h"
#include "softmax.h"

namespace reserve {
namespace RESERVE_ISA {

// Keys whose scores with a block of queries are in memory at a time: 64 KB.
constexpr int64_t chunk_keys = 256;

// Scratch memory of the forward pass; arrays for the whole sequence lie behind it.
struct ForwardBlock {
  alignas(64) float rows[block_size * head_size];     // the queries
  alignas(64) float columns[head_size * block_size];  // transposed
  alignas(64) float scores[chunk_keys * block_size];
  alignas(64) float out[block_size * head_size];
  alignas(64) int32_t segments[block_size];
  Statistics statistics;
};

static void shrink_rows(float* rows, int64_t count, const float* factors) {
  for (int64_t i = 0; i < count; ++i)
    for (int j = 0; j < row_vectors; ++j) {
      float* at = rows + i * head_size + j * lanes;
      store(at, load(at) * factors[i]);
    }
}

// Writes the block's output and its statistics.
template <typename Number>
static void finish_block(const reserve_attention& p, ForwardBlock& b, Range rows, HeadRows<Number> out, float* lse) {
  Statistics& s = b.statistics;
  const int64_t count = rows.end - rows.begin;
  alignas(64) float inverse[block_size];
  alignas(64) float logsumexp[block_size];
  for (int64_t i = 0; i < count; i += lanes) {
    const Vector sum = load(s.sum + i);
    store(inverse + i, 1.0f / sum);
    store(logsumexp + i, load(s.maximum + i) + logarithm(sum));
  }
  for (int64_t i = 0; i < count; ++i) {
    Number* to = out.at(rows.begin + i);
    for (int j = 0; j < row_vectors; ++j) write(to + j * lanes, load(b.out + i * head_size + j * lanes) * inverse[i]);
    lse[(rows.begin + i) * p.heads] = logsumexp[i];
  }
}

// Copies the segment ids of a block of queries, padded with the last one.
static void copy_segments(const int32_t* ids, Range rows, int vectors, int32_t* to) {
  const int64_t count = rows.end - rows.begin;
  for (int64_t i = 0; i < vectors * lanes; ++i) to[i] = ids[rows.begin + (i < count ? i : count - 1)];
}

template <typename Number>
static void forward(const reserve_attention& p, const Unit& unit, const Position& position, ForwardBlock& b, float* keys,
                    float* values) {
  const int64_t row = p.heads * head_size, length = unit.tokens.end - unit.tokens.begin;
  const int32_t* ids = p.segment_ids == nullptr ? nullptr : p.segment_ids + unit.tokens.begin;
  for (int64_t head = unit.heads.begin; head < unit.heads.end; ++head) {
    const Number* first = static_cast<const Number*>(p.qkv) + unit.tokens.begin * 3 * row + head * head_size;
    const HeadRows<const Number> q{first, 3 * row}, k{first + row, 3 * row}, v{first + 2 * row, 3 * row};
    const bool more = head + 1 < unit.heads.end;
    const HeadRows<Number> out{static_cast<Number*>(p.out) + unit.tokens.begin * row + head * head_size, row};
    gather(k, {0, length}, position, 1.0f, 0, keys);
    gather(v, {0, length}, Position{}, 1.0f, 0, values);
    for (int64_t begin = unit.queries.begin; begin < unit.queries.end; begin += block_size) {
      const Range queries{begin, begin + block_size < unit.queries.end ? begin + block_size : unit.queries.end};
      const int64_t count = queries.end - queries.begin;
      const int vectors = static_cast<int>((count + lanes - 1) / lanes);
      gather(q, queries, position, p.scale, vectors * lanes - count, b.rows);
      transpose(b.rows, vectors, b.columns);
      Segments segments;
      if (ids != nullptr) {
        copy_segments(ids, queries, vectors, b.segments);
        segments = {ids, b.segments};
      }
      for (int64_t key = 0; key < length; key += chunk_keys) {
        const Range chunk{key, key + chunk_keys < length ? key + chunk_keys : length};
        const int64_t size = chunk.end - chunk.begin;
        const NextHead<Number, 2> next_keys{{k, v}, key, more && begin == unit.queries.begin};
        product<false, false>(keys + key * head_size, b.columns, head_size, b.scores, size, vectors, next_keys);
        if (ids == nullptr)
          softmax<false>(b.scores, chunk, vectors, segments, key == 0, b.statistics);
        else
          softmax<true>(b.scores, chunk, vectors, segments, key == 0, b.statistics);
        if (key == 0) {
          const NextHead<Number, 2> next_queries{{q, {out.first, out.stride}}, begin, more};
          product<true, false>(b.scores, values, size, b.out, count, row_vectors, next_queries);
        } else {
          shrink_rows(b.out, count, b.statistics.shrink);
          product<true, true>(b.scores, values + key * head_size, size, b.out, count);
        }
      }
      finish_block(p, b, queries, out, p.lse + unit.tokens.begin * p.heads + head);
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
