// The backward pass of a unit: for each head, block of queries and block of keys, the weights again and the gradients.
// Every sum runs over blocks in their order, so that it has the same bits however the work is split.
#pragma once

#include "attention_cpu.h"
#include "forward.h"
#include "products.h"
#include "rows.h"
#include "softmax.h"

namespace reserve {
namespace RESERVE_ISA {

// Scratch memory of the backward pass; arrays for the unit's keys lie behind it.
struct BackwardBlock {
  alignas(64) float rows[block_size * head_size];  // the queries, times the scale
  alignas(64) float columns[head_size * block_size];
  alignas(64) float grad_rows[block_size * head_size];  // of the output
  alignas(64) float grad_columns[head_size * block_size];
  alignas(64) float weights[block_size * block_size];  // [keys][queries]
  alignas(64) float grad_scores[block_size * block_size];
  alignas(64) float grad_queries[block_size * head_size];
  alignas(64) float lse[block_size];
  alignas(64) float delta[block_size];  // of each query, the sum of gradient times output
  alignas(64) int32_t segments[block_size];
};

// Of the keys of a unit, [keys][64] each.
struct KeyArrays {
  float* keys;
  float* values;
  float* grad_keys;
  float* grad_values;
};

// Turns scores into weights, and the gradients of the weights into those of the scores. With `whole`, these are all keys
// of the sequence, and delta comes from them: a weight of 1 then has a gradient of exactly 0.
template <bool masked>
static void score_gradients(BackwardBlock& b, Range keys, int vectors, const Segments& segments, bool whole) {
  const int64_t count = keys.end - keys.begin;
  for (int v = 0; v < vectors; ++v) {
    float* weights = b.weights + v * lanes;
    float* grads = b.grad_scores + v * lanes;
    const Vector lse = load(b.lse + v * lanes);
    Vector sum{}, sum2{};
    const auto weigh = [&](int64_t k, Vector& add_to) {
      Vector score = load(weights + k * block_size);
      if (masked) score = segments.mask(score, keys.begin + k, v);
      const Vector weight = exponential(score - lse);
      store(weights + k * block_size, weight);
      if (whole) add_to += weight * load(grads + k * block_size);
    };
    int64_t k = 0;
    for (; k + 2 <= count; k += 2) {
      weigh(k, sum);
      weigh(k + 1, sum2);
    }
    if (k < count) weigh(k, sum);
    const Vector delta = whole ? sum + sum2 : load(b.delta + v * lanes);
    for (k = 0; k < count; ++k)
      store(grads + k * block_size, load(weights + k * block_size) * (load(grads + k * block_size) - delta));
  }
}

// delta of the queries `range`, from their output. The sum has the order of the products with the values, so that a weight
// of 1 still has a gradient of 0. Overwrites what the block computes later.
template <typename Number>
static void fill_delta(BackwardBlock& b, HeadRows<const Number> out, Range range, int vectors) {
  gather(out, range, Position{}, 1.0f, vectors * lanes - (range.end - range.begin), b.weights);
  transpose(b.weights, vectors, b.grad_scores);
  for (int v = 0; v < vectors; ++v) {
    Vector sum{};
    for (int64_t d = 0; d < head_size; ++d) {
      const int64_t at = d * block_size + v * lanes;
      sum += load(b.grad_columns + at) * load(b.grad_scores + at);
    }
    store(b.delta + v * lanes, sum);
  }
}

template <bool transposed, typename Aside = Nothing>
static void add_product(bool add, const float* a, const float* b, int64_t inner, float* c, int64_t rows,
                        const Aside& aside = {}) {
  if (add)
    product<transposed, true>(a, b, inner, c, rows, row_vectors, aside);
  else
    product<transposed, false>(a, b, inner, c, rows, row_vectors, aside);
}

template <typename Number>
static void backward(const reserve_attention& p, const Unit& unit, const Position& position, BackwardBlock& b,
                     const KeyArrays& a) {
  const int64_t row = p.heads * head_size, length = unit.tokens.end - unit.tokens.begin;
  const int32_t* ids = p.segment_ids == nullptr ? nullptr : p.segment_ids + unit.tokens.begin;
  for (int64_t head = unit.heads.begin; head < unit.heads.end; ++head) {
    const int64_t from = unit.tokens.begin * 3 * row + head * head_size;
    const int64_t from_out = unit.tokens.begin * row + head * head_size;
    const Number* qkv = static_cast<const Number*>(p.qkv) + from;
    Number* grad_qkv = static_cast<Number*>(p.grad_qkv) + from;
    const HeadRows<const Number> out{static_cast<const Number*>(p.out) + from_out, row};
    const HeadRows<const Number> grad{static_cast<const Number*>(p.grad) + from_out, row};
    const HeadRows<const Number> q{qkv, 3 * row}, k{qkv + row, 3 * row}, v{qkv + 2 * row, 3 * row};
    const bool more = head + 1 < unit.heads.end;
    gather(k, unit.keys, position, 1.0f, 0, a.keys);
    gather(v, unit.keys, Position{}, 1.0f, 0, a.values);
    for (int64_t begin = unit.queries.begin; begin < unit.queries.end; begin += block_size) {
      const Range queries{begin, begin + block_size < unit.queries.end ? begin + block_size : unit.queries.end};
      const int64_t count = queries.end - queries.begin;
      const int vectors = static_cast<int>((count + lanes - 1) / lanes);
      const int64_t zeros = vectors * lanes - count;
      gather(q, queries, position, p.scale, zeros, b.rows);
      transpose(b.rows, vectors, b.columns);
      gather(grad, queries, Position{}, 1.0f, zeros, b.grad_rows);
      transpose(b.grad_rows, vectors, b.grad_columns);
      for (int64_t i = 0; i < vectors * lanes; ++i)
        b.lse[i] = i < count ? p.lse[(unit.tokens.begin + begin + i) * p.heads + head] : 0.0f;
      const bool whole = length <= block_size;
      if (!whole) fill_delta(b, out, queries, vectors);
      Segments segments;
      if (ids != nullptr) {
        copy_segments(ids, queries, vectors, b.segments);
        segments = {ids, b.segments};
      }
      for (int64_t key = unit.keys.begin; key < unit.keys.end; key += block_size) {
        const Range keys{key, key + block_size < unit.keys.end ? key + block_size : unit.keys.end};
        const int64_t size = keys.end - keys.begin, at = (key - unit.keys.begin) * head_size;
        const NextHead<Number, 2> next_keys{{k, v}, key, more && begin == unit.queries.begin};
        product<false, false>(a.keys + at, b.columns, head_size, b.weights, size, vectors, next_keys);
        product<false, false>(a.values + at, b.grad_columns, head_size, b.grad_scores, size, vectors);
        if (ids == nullptr)
          score_gradients<false>(b, keys, vectors, segments, whole);
        else
          score_gradients<true>(b, keys, vectors, segments, whole);
        if (unit.key_grad) {
          const bool add = begin != unit.queries.begin;
          const bool last = more && queries.end == unit.queries.end;
          const NextHead<Number, 2> next_grad_keys{{{grad_qkv + row, 3 * row}, {grad_qkv + 2 * row, 3 * row}}, key, last};
          add_product<false>(add, b.weights, b.grad_rows, count, a.grad_values + at, size, next_grad_keys);
          // On the diagonal, the block of keys has the rows of the block of queries.
          const NextHead<Number, 1> next_grad_queries{{{grad_qkv, 3 * row}}, key, more && key == begin};
          add_product<false>(add, b.grad_scores, b.rows, count, a.grad_keys + at, size, next_grad_queries);
        }
        const bool first = key == unit.keys.begin;
        const NextHead<Number, 2> next_queries{{q, grad}, begin, more && first};
        if (unit.query_grad)
          add_product<true>(!first, b.grad_scores, a.keys + at, size, b.grad_queries, count, next_queries);
      }
      if (unit.query_grad) scatter<Number>(b.grad_queries, {grad_qkv, 3 * row}, queries, position, p.scale);
    }
    if (unit.key_grad) {
      scatter<Number>(a.grad_keys, {grad_qkv + row, 3 * row}, unit.keys, position, 1.0f);
      scatter<Number>(a.grad_values, {grad_qkv + 2 * row, 3 * row}, unit.keys, Position{}, 1.0f);
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
