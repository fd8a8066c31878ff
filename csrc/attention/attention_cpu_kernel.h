// Both passes of attention for one instruction set: the including file defines RESERVE_ISA, RESERVE_LANES and
// RESERVE_KERNEL. All functions of this file and its includes are inlined or local, so that instruction sets share none.
#include "attention_cpu.h"
#include "backward.h"
#include "forward.h"
#include "position.h"

namespace reserve {
namespace RESERVE_ISA {

static size_t scratch_bytes(const reserve_attention& problem, int64_t longest) {
  const bool backward = problem.grad != nullptr;
  const int64_t position = problem.angles == nullptr ? 0 : rotated_size * (problem.rotary == RESERVE_ROTARY_STANDARD ? 2 : 1);
  const int64_t row = position + head_size * (backward ? 4 : 2);
  return (backward ? sizeof(BackwardBlock) : sizeof(ForwardBlock)) +
         static_cast<size_t>(longest) * static_cast<size_t>(row) * sizeof(float);
}

// The sequence's position, in memory from `next` on.
static Position position_of(const reserve_attention& p, const Unit& unit, float*& next) {
  if (p.angles == nullptr) return {};
  const int64_t length = unit.tokens.end - unit.tokens.begin;
  const bool standard = p.rotary == RESERVE_ROTARY_STANDARD;
  float* own = next;
  float* other = standard ? own + length * rotated_size : nullptr;
  fill_position(p.angles + unit.tokens.begin * token_angles, length, standard, own, other);
  next += length * rotated_size * (standard ? 2 : 1);
  return {own, other};
}

template <typename Number>
static void run_numbers(const reserve_attention& p, const Unit& unit, void* scratch) {
  const int64_t length = unit.tokens.end - unit.tokens.begin;
  if (p.grad == nullptr) {
    auto& block = *static_cast<ForwardBlock*>(scratch);
    float* next = reinterpret_cast<float*>(&block + 1);
    const Position position = position_of(p, unit, next);
    forward<Number>(p, unit, position, block, next, next + length * head_size);
  } else {
    auto& block = *static_cast<BackwardBlock*>(scratch);
    float* next = reinterpret_cast<float*>(&block + 1);
    const Position position = position_of(p, unit, next);
    const int64_t size = (unit.keys.end - unit.keys.begin) * head_size;
    backward<Number>(p, unit, position, block, {next, next + size, next + 2 * size, next + 3 * size});
  }
}

static void run(const reserve_attention& problem, const Unit& unit, void* scratch) {
  if (problem.dtype == RESERVE_BFLOAT16)
    run_numbers<uint16_t>(problem, unit, scratch);
  else
    run_numbers<float>(problem, unit, scratch);
}

}  // namespace RESERVE_ISA

AttentionKernel RESERVE_KERNEL() noexcept { return {RESERVE_ISA::scratch_bytes, RESERVE_ISA::run}; }

}  // namespace reserve
