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
template <int head_size>
struct BackwardBlock {
  // Two also hold a block of outputs.
  static constexpr int64_t widest = head_size > block_size ? head_size : block_size;

  alignas(64) float rows[block_size * head_size];  // the queries, times the scale
  alignas(64) float columns[head_size * block_size];
  alignas(64) float grad_rows[block_size * head_size];  // of the output
  alignas(64) float grad_columns[head_size * block_size];
  alignas(64) float weights[block_size * widest];  // [keys][queries]
  alignas(64) float grad_scores[block_size * widest];
  alignas(64) float grad_queries[block_size * head_size];
  alignas(64) float lse[block_size];
  alignas(64) float delta[block_size];  // of each query, the sum of gradient times output
  alignas(64) int32_t segments[block_size];
};

// Of the keys of a unit, [keys][head_size] each.
struct KeyArrays {
  float* keys;
  float* values;
  float* grad_keys;
  float* grad_values;
};

// Turns scores into weights, and the gradients of the weights into those of the scores. With `whole`, these are all keys
// of the sequence, and delta comes from them: a weight of 1 then has a gradient of exactly 0.
template <bool masked, int head_size>
static void score_gradients(BackwardBlock<head_size>& b, Range keys, int vectors, const Segments& segments, bool whole) {
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
template <int head_size, typename Number>
static void fill_delta(BackwardBlock<head_size>& b, HeadRows<const Number> out, Range range, int vectors) {
  gather<head_size>(out, range, Position{}, 1.0f, vectors * lanes - (range.end - range.begin), b.weights);
  transpose<head_size>(b.weights, vectors, b.grad_scores);
  for (int v = 0; v < vectors; ++v) {
    Vector sum{};
    for (int64_t d = 0; d < head_size; ++d) {
      const int64_t at = d * block_size + v * lanes;
      sum += load(b.grad_columns + at) * load(b.grad_scores + at);
    }
    store(b.delta + v * lanes, sum);
  }
}

template <int head_size, bool transposed, typename Aside = Nothing>
static void add_product(bool add, const float* a, const float* b, int64_t inner, float* c, int64_t rows,
                        const Aside& aside = {}) {
  if (add)
    product<block_size, head_size, transposed, true>(a, b, inner, c, rows, head_size / lanes, aside);
  else
    product<block_size, head_size, transposed, false>(a, b, inner, c, rows, head_size / lanes, aside);
}

template <int head_size, typename Number>
static void backward(const reserve_attention& p, const Unit& unit, const Positions& positions, BackwardBlock<head_size>& b,
                     const KeyArrays& a) {
  using In = const Number;
  constexpr int64_t stride = head_size;
  const int64_t length = unit.tokens_k.end - unit.tokens_k.begin, group = p.heads / p.kv_heads;
  for (int64_t head = unit.heads.begin * group; head < unit.heads.end * group; ++head) {
    const int64_t of_keys = head / group;
    const auto q = head_rows<head_size, In>(p.q, unit.tokens.begin, p.q_stride, head);
    const auto k = head_rows<head_size, In>(p.k, unit.tokens_k.begin, p.kv_stride, of_keys);
    const auto v = head_rows<head_size, In>(p.v, unit.tokens_k.begin, p.kv_stride, of_keys);
    const auto out = head_rows<head_size, In>(p.out, unit.tokens.begin, p.heads * stride, head);
    const auto grad = head_rows<head_size, In>(p.grad, unit.tokens.begin, p.heads * stride, head);
    const auto grad_q = head_rows<head_size, Number>(p.grad_q, unit.tokens.begin, p.q_stride, head);
    const auto grad_k = head_rows<head_size, Number>(p.grad_k, unit.tokens_k.begin, p.kv_stride, of_keys);
    const auto grad_v = head_rows<head_size, Number>(p.grad_v, unit.tokens_k.begin, p.kv_stride, of_keys);
    const bool first_of_keys = head % group == 0, last_of_keys = (head + 1) % group == 0;
    const bool more = head + 1 < unit.heads.end * group, more_keys = more && last_of_keys;
    if (first_of_keys) {
      gather<head_size>(k, unit.keys, positions.keys, 1.0f, 0, a.keys);
      gather<head_size>(v, unit.keys, Position{}, 1.0f, 0, a.values);
    }
    for (int64_t begin = unit.queries.begin; begin < unit.queries.end; begin += block_size) {
      const Range queries{begin, begin + block_size < unit.queries.end ? begin + block_size : unit.queries.end};
      const int64_t count = queries.end - queries.begin;
      const int vectors = static_cast<int>((count + lanes - 1) / lanes);
      const int64_t zeros = vectors * lanes - count;
      gather<head_size>(q, queries, positions.queries, p.scale, zeros, b.rows);
      transpose<head_size>(b.rows, vectors, b.columns);
      gather<head_size>(grad, queries, Position{}, 1.0f, zeros, b.grad_rows);
      transpose<head_size>(b.grad_rows, vectors, b.grad_columns);
      for (int64_t i = 0; i < vectors * lanes; ++i) {
        const float lse = i < count ? p.lse[(unit.tokens.begin + begin + i) * p.heads + head] : 0.0f;
        // A query without keys: all its scores are masked, and their weights must be 0.
        b.lse[i] = lse == -__builtin_inff() ? 0.0f : lse;
      }
      const bool whole = length <= block_size;
      if (!whole) fill_delta(b, out, queries, vectors);
      const Segments segments = segments_of(p, unit, queries, vectors, b.segments);
      for (int64_t key = unit.keys.begin; key < unit.keys.end; key += block_size) {
        const Range keys{key, key + block_size < unit.keys.end ? key + block_size : unit.keys.end};
        const int64_t size = keys.end - keys.begin, at = (key - unit.keys.begin) * stride;
        const NextHead<head_size, Number, 2> next_keys{{k, v}, key, more_keys && begin == unit.queries.begin};
        product<head_size, block_size, false, false>(a.keys + at, b.columns, head_size, b.weights, size, vectors,
                                                     next_keys);
        product<head_size, block_size, false, false>(a.values + at, b.grad_columns, head_size, b.grad_scores, size,
                                                     vectors);
        if (segments.keys == nullptr)
          score_gradients<false>(b, keys, vectors, segments, whole);
        else
          score_gradients<true>(b, keys, vectors, segments, whole);
        if (unit.key_grad) {
          const bool add = begin != unit.queries.begin || !first_of_keys;
          const bool last = more_keys && queries.end == unit.queries.end;
          const NextHead<head_size, Number, 2> next_grad_keys{
              {{grad_k.first, grad_k.stride}, {grad_v.first, grad_v.stride}}, key, last};
          add_product<head_size, false>(add, b.weights, b.grad_rows, count, a.grad_values + at, size, next_grad_keys);
          // On the diagonal, the block of keys has the rows of the block of queries.
          const bool diagonal = more && key == begin && size == count;
          const NextHead<head_size, Number, 1> next_grad_queries{{{grad_q.first, grad_q.stride}}, key, diagonal};
          add_product<head_size, false>(add, b.grad_scores, b.rows, count, a.grad_keys + at, size, next_grad_queries);
        }
        const bool first = key == unit.keys.begin;
        const NextHead<head_size, Number, 2> next_queries{{q, grad}, begin, more && first};
        if (unit.query_grad)
          add_product<head_size, true>(!first, b.grad_scores, a.keys + at, size, b.grad_queries, count, next_queries);
      }
      if (unit.query_grad) {
        if (length == 0) clear(b.grad_queries, count * stride);
        scatter<head_size, Number>(b.grad_queries, grad_q, queries, positions.queries, p.scale);
      }
    }
    if (unit.key_grad && last_of_keys) {
      const int64_t size = (unit.keys.end - unit.keys.begin) * stride;
      if (unit.queries.begin == unit.queries.end) {
        clear(a.grad_keys, size);
        clear(a.grad_values, size);
      }
      scatter<head_size, Number>(a.grad_keys, grad_k, unit.keys, positions.keys, 1.0f);
      scatter<head_size, Number>(a.grad_values, grad_v, unit.keys, Position{}, 1.0f);
    }
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
