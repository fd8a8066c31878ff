// Both passes of attention for one instruction set: the including file defines RESERVE_ISA, RESERVE_LANES and
// RESERVE_KERNEL. All functions of this file and its includes are inlined or local, so that instruction sets share none.
#include "attention_cpu.h"
#include "backward.h"
#include "forward.h"
#include "position.h"

namespace reserve {
namespace RESERVE_ISA {

// Whether queries and keys are the same tokens, so that one table of factors serves both.
static bool shares_position(const reserve_attention& p) {
  return p.angles_k == p.angles && p.cu_seqlens_k == p.cu_seqlens;
}

// Floats of the factors of `tokens` tokens.
static int64_t position_size(const reserve_attention& p, int64_t tokens) {
  return tokens * factors_of(p.token_angles) * (p.rotary == RESERVE_ROTARY_STANDARD ? 2 : 1);
}

// Factors for the tokens `range`, in memory from `next` on.
static Position position_of(const reserve_attention& p, const float* angles, Range range, float*& next) {
  const int64_t length = range.end - range.begin, size = factors_of(p.token_angles);
  const bool standard = p.rotary == RESERVE_ROTARY_STANDARD;
  float* own = next;
  float* other = standard ? own + length * size : nullptr;
  fill_position(angles + range.begin * p.token_angles, length, p.token_angles, standard, own, other);
  next += position_size(p, length);
  return {own, other, size};
}

static Positions positions_of(const reserve_attention& p, const Unit& unit, float*& next) {
  if (p.angles == nullptr) return {};
  const Position queries = position_of(p, p.angles, unit.tokens, next);
  return {queries, shares_position(p) ? queries : position_of(p, p.angles_k, unit.tokens_k, next)};
}

template <int head_size>
static size_t bytes_for(const reserve_attention& p, int64_t longest, int64_t longest_k) {
  const bool backward = p.grad != nullptr;
  int64_t floats = longest_k * head_size * (backward ? 4 : 2);
  if (p.angles != nullptr) floats += position_size(p, longest) + (shares_position(p) ? 0 : position_size(p, longest_k));
  return (backward ? sizeof(BackwardBlock<head_size>) : sizeof(ForwardBlock<head_size>)) +
         static_cast<size_t>(floats) * sizeof(float);
}

template <int head_size, typename Number>
static void run_numbers(const reserve_attention& p, const Unit& unit, void* scratch) {
  if (p.grad == nullptr) {
    auto& block = *static_cast<ForwardBlock<head_size>*>(scratch);
    float* next = reinterpret_cast<float*>(&block + 1);
    const Positions positions = positions_of(p, unit, next);
    const int64_t size = (unit.tokens_k.end - unit.tokens_k.begin) * head_size;
    forward<head_size, Number>(p, unit, positions, block, next, next + size);
  } else {
    auto& block = *static_cast<BackwardBlock<head_size>*>(scratch);
    float* next = reinterpret_cast<float*>(&block + 1);
    const Positions positions = positions_of(p, unit, next);
    const int64_t size = (unit.keys.end - unit.keys.begin) * head_size;
    backward<head_size, Number>(p, unit, positions, block, {next, next + size, next + 2 * size, next + 3 * size});
  }
}

template <int head_size>
static void run_size(const reserve_attention& problem, const Unit& unit, void* scratch) {
  if (problem.dtype == RESERVE_BFLOAT16)
    run_numbers<head_size, uint16_t>(problem, unit, scratch);
  else
    run_numbers<head_size, float>(problem, unit, scratch);
}

static size_t scratch_bytes(const reserve_attention& problem, int64_t longest, int64_t longest_k) {
  switch (problem.head_size) {
    case 32: return bytes_for<32>(problem, longest, longest_k);
    case 96: return bytes_for<96>(problem, longest, longest_k);
    case 128: return bytes_for<128>(problem, longest, longest_k);
    default: return bytes_for<64>(problem, longest, longest_k);
  }
}

static void run(const reserve_attention& problem, const Unit& unit, void* scratch) {
  switch (problem.head_size) {
    case 32: return run_size<32>(problem, unit, scratch);
    case 96: return run_size<96>(problem, unit, scratch);
    case 128: return run_size<128>(problem, unit, scratch);
    default: return run_size<64>(problem, unit, scratch);
  }
}

}  // namespace RESERVE_ISA

AttentionKernel RESERVE_KERNEL() noexcept { return {RESERVE_ISA::scratch_bytes, RESERVE_ISA::run}; }

}  // namespace reserve
