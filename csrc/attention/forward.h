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

// Scratch memory of the forward pass; arrays for all keys of the sequence lie behind it.
template <int head_size>
struct ForwardBlock {
  alignas(64) float rows[block_size * head_size];     // the queries
  alignas(64) float columns[head_size * block_size];  // transposed
  alignas(64) float scores[chunk_keys * block_size];
  alignas(64) float out[block_size * head_size];
  alignas(64) int32_t segments[block_size];
  Statistics statistics;
};

// The positions of a unit's queries and keys.
struct Positions {
  Position queries;
  Position keys;
};

// Queries or keys of one head and sequence.
template <int head_size, typename Number, typename Array>
static HeadRows<Number> head_rows(Array* array, int64_t token, int64_t stride, int64_t head) {
  return {static_cast<Number*>(array) + token * stride + head * head_size, stride};
}

template <int head_size>
static void shrink_rows(float* rows, int64_t count, const float* factors) {
  for (int64_t i = 0; i < count; ++i)
    for (int j = 0; j < head_size / lanes; ++j) {
      float* at = rows + i * head_size + j * lanes;
      store(at, load(at) * factors[i]);
    }
}

// Writes the block's output and its statistics: 0 and minus infinity for a query without keys.
template <int head_size, typename Number>
static void finish_block(const reserve_attention& p, ForwardBlock<head_size>& b, Range rows, HeadRows<Number> out,
                         float* lse) {
  Statistics& s = b.statistics;
  const int64_t count = rows.end - rows.begin;
  alignas(64) float inverse[block_size];
  alignas(64) float logsumexp[block_size];
  for (int64_t i = 0; i < count; i += lanes) {
    const Vector sum = load(s.sum + i);
    store(inverse + i, sum == 0.0f ? Vector{} : 1.0f / sum);
    store(logsumexp + i, sum == 0.0f ? splat(-__builtin_inff()) : load(s.maximum + i) + logarithm(sum));
  }
  for (int64_t i = 0; i < count; ++i) {
    Number* to = out.at(rows.begin + i);
    for (int j = 0; j < head_size / lanes; ++j)
      write(to + j * lanes, load(b.out + i * head_size + j * lanes) * inverse[i]);
    lse[(rows.begin + i) * p.heads] = logsumexp[i];
  }
}

// Copies the segment ids of a block of queries, padded with the last one.
static void copy_segments(const int32_t* ids, Range rows, int vectors, int32_t* to) {
  const int64_t count = rows.end - rows.begin;
  for (int64_t i = 0; i < vectors * lanes; ++i) to[i] = ids[rows.begin + (i < count ? i : count - 1)];
}

// Segment ids of keys and of the queries `range`, which it copies to `to`; none without segments.
static Segments segments_of(const reserve_attention& p, const Unit& unit, Range range, int vectors, int32_t* to) {
  if (p.segment_ids == nullptr) return {};
  copy_segments(p.segment_ids + unit.tokens.begin, range, vectors, to);
  return {p.segment_ids_k + unit.tokens_k.begin, to};
}

static void clear(float* numbers, int64_t count) {
  for (int64_t i = 0; i < count; ++i) numbers[i] = 0.0f;
}

template <int head_size, typename Number>
static void forward(const reserve_attention& p, const Unit& unit, const Positions& positions, ForwardBlock<head_size>& b,
                    float* keys, float* values) {
  using In = const Number;
  constexpr int64_t stride = head_size;
  const int64_t length = unit.tokens_k.end - unit.tokens_k.begin, group = p.heads / p.kv_heads;
  for (int64_t head = unit.heads.begin * group; head < unit.heads.end * group; ++head) {
    const int64_t of_keys = head / group;
    const auto q = head_rows<head_size, In>(p.q, unit.tokens.begin, p.q_stride, head);
    const auto k = head_rows<head_size, In>(p.k, unit.tokens_k.begin, p.kv_stride, of_keys);
    const auto v = head_rows<head_size, In>(p.v, unit.tokens_k.begin, p.kv_stride, of_keys);
    const auto out = head_rows<head_size, Number>(p.out, unit.tokens.begin, p.heads * stride, head);
    const bool more = head + 1 < unit.heads.end * group, more_keys = more && (head + 1) % group == 0;
    if (head % group == 0) {
      gather<head_size>(k, {0, length}, positions.keys, 1.0f, 0, keys);
      gather<head_size>(v, {0, length}, Position{}, 1.0f, 0, values);
    }
    for (int64_t begin = unit.queries.begin; begin < unit.queries.end; begin += block_size) {
      const Range queries{begin, begin + block_size < unit.queries.end ? begin + block_size : unit.queries.end};
      const int64_t count = queries.end - queries.begin;
      const int vectors = static_cast<int>((count + lanes - 1) / lanes);
      gather<head_size>(q, queries, positions.queries, p.scale, vectors * lanes - count, b.rows);
      transpose<head_size>(b.rows, vectors, b.columns);
      const Segments segments = segments_of(p, unit, queries, vectors, b.segments);
      if (length == 0) {
        clear(b.statistics.sum, block_size);
        clear(b.out, count * stride);
      }
      for (int64_t key = 0; key < length; key += chunk_keys) {
        const Range chunk{key, key + chunk_keys < length ? key + chunk_keys : length};
        const int64_t size = chunk.end - chunk.begin;
        const NextHead<head_size, Number, 2> next_keys{{k, v}, key, more_keys && begin == unit.queries.begin};
        product<head_size, block_size, false, false>(keys + key * stride, b.columns, head_size, b.scores, size, vectors,
                                                     next_keys);
        if (segments.keys == nullptr)
          softmax<false>(b.scores, chunk, vectors, segments, key == 0, b.statistics);
        else
          softmax<true>(b.scores, chunk, vectors, segments, key == 0, b.statistics);
        if (key == 0) {
          const NextHead<head_size, Number, 2> next_queries{{q, {out.first, out.stride}}, begin, more};
          product<block_size, head_size, true, false>(b.scores, values, size, b.out, count, head_size / lanes,
                                                      next_queries);
        } else {
          shrink_rows<head_size>(b.out, count, b.statistics.shrink);
          product<block_size, head_size, true, true>(b.scores, values + key * stride, size, b.out, count);
        }
      }
      finish_block(p, b, queries, out, p.lse + unit.tokens.begin * p.heads + head);
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
