// What the instruction-set specific translation units offer to attention_cpu.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "reserve_native.h"

namespace reserve {

// Queries and keys are taken in blocks of this many.
constexpr int64_t block_size = 64;

struct Range {
  int64_t begin;
  int64_t end;
};

// A part of one sequence that one thread computes. `queries` and `keys` count within the sequence and begin at multiples
// of block_size.
struct Unit {
  Range tokens;    // the queries of the whole sequence
  Range tokens_k;  // its keys
  Range heads;     // of keys and values, each with all heads of the queries that share it
  Range queries;
  Range keys;       // all keys of the sequence but where the backward pass is split
  bool query_grad;  // backward: write the gradient of `queries`
  bool key_grad;    // backward: write the gradients of `keys` and their values
};

struct AttentionKernel {
  // Scratch memory, aligned to 64, for sequences of up to `longest` queries and `longest_k` keys.
  size_t (*scratch_bytes)(const reserve_attention& problem, int64_t longest, int64_t longest_k);
  void (*run)(const reserve_attention& problem, const Unit& unit, void* scratch);
};

AttentionKernel attention_baseline() noexcept;
#if defined(RESERVE_X86)
AttentionKernel attention_avx2() noexcept;
AttentionKernel attention_avx512() noexcept;
#endif

}  // namespace reserve
