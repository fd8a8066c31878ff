// The CPU entry point of attention: checks, choice of the instruction set, division into units, threads.
#include "attention_cpu.h"

#include <algorithm>
#include <atomic>

#include "cpu_isa.h"
#include "cpu_threads.h"
#include "scratch_pool.h"

namespace reserve {
namespace {

AttentionKernel kernel_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return attention_avx512();
  if (isa == RESERVE_ISA_AVX2) return attention_avx2();
#endif
  return attention_baseline();
}

ScratchPool scratch_pool;

// A thread costs tens of microseconds to start: each gets at least this much of `cost`, about 0.1 ms.
constexpr double least_cost_per_thread = 3e5;
// Units that a thread should have, so that threads end together.
constexpr int64_t units_per_thread = 4;
// Tokens of the heads of a unit together: fewer would spend their time on the angles' sines, which heads share.
constexpr int64_t tokens_per_unit = 512;

// About the cycles of one head of a sequence.
double cost(int64_t length, bool backward) noexcept {
  const double n = static_cast<double>(length);
  return n * (8 * n + 200) * (backward ? 2.5 : 1);
}

// How sequences are divided. It changes no bits of a result.
struct Division {
  bool single_heads;  // a unit for each head, or for several
  int64_t part;       // forward: queries of a unit. Backward: queries or keys of a unit of one gradient; 0: whole sequences

  int64_t heads_per_unit(int64_t length, int64_t heads) const noexcept {
    const int64_t most = single_heads ? 1 : std::clamp<int64_t>(tokens_per_unit / length, 1, heads);
    const int64_t groups = (heads + most - 1) / most;
    return (heads + groups - 1) / groups;
  }
  int64_t parts(int64_t length) const noexcept { return part == 0 ? 1 : (length + part - 1) / part; }
};

struct Work {
  const reserve_attention& problem;
  AttentionKernel kernel;
  Division division;
  size_t scratch_bytes;
  std::atomic<int64_t> next{0};

  bool is_split() const noexcept { return problem.grad != nullptr && division.part != 0; }

  int64_t units_of(int64_t length) const noexcept {
    if (length == 0) return 0;
    const int64_t heads = division.heads_per_unit(length, problem.heads);
    return (problem.heads + heads - 1) / heads * division.parts(length) * (is_split() ? 2 : 1);
  }

  Unit unit_of(Range tokens, int64_t index) const noexcept {
    const int64_t length = tokens.end - tokens.begin, parts = division.parts(length);
    const int64_t heads = division.heads_per_unit(length, problem.heads);
    // The parts of one head follow each other.
    const int64_t kinds = is_split() ? 2 : 1;
    const int64_t first = index / (parts * kinds) * heads, in_head = index % (parts * kinds);
    const int64_t begin = in_head % parts * division.part;
    const Range whole{0, length};
    const Range part = division.part == 0 ? whole : Range{begin, std::min(begin + division.part, length)};
    Unit unit{tokens, {first, std::min(first + heads, problem.heads)}, whole, whole, true, true};
    if (!is_split()) {
      if (problem.grad == nullptr) unit.queries = part;
    } else if (in_head < parts) {
      unit.queries = part;
      unit.key_grad = false;
    } else {
      unit.keys = part;
      unit.query_grad = false;
    }
    return unit;
  }

  int64_t units() const noexcept {
    int64_t sum = 0;
    for (int64_t s = 0; s < problem.sequences; ++s) sum += units_of(problem.cu_seqlens[s + 1] - problem.cu_seqlens[s]);
    return sum;
  }

  // Takes units until none is left. Without memory it takes none: the other threads do the work.
  void run() noexcept {
    void* scratch = scratch_pool.take(scratch_bytes);
    if (scratch == nullptr) return;
    int64_t before = 0;  // units of the sequences before s
    int64_t s = 0;
    for (int64_t unit = next.fetch_add(1);; unit = next.fetch_add(1)) {
      Range tokens{};
      for (; s < problem.sequences; ++s) {
        tokens = {problem.cu_seqlens[s], problem.cu_seqlens[s + 1]};
        const int64_t count = units_of(tokens.end - tokens.begin);
        if (unit < before + count) break;
        before += count;
      }
      if (s == problem.sequences) break;
      kernel.run(problem, unit_of(tokens, unit - before), scratch);
    }
    scratch_pool.give_back(scratch);
  }
};

bool is_valid(const reserve_attention* p) noexcept {
  if (p == nullptr || p->tokens < 0 || p->heads < 0 || p->sequences < 0 || p->cu_seqlens == nullptr) return false;
  if (p->dtype != RESERVE_FLOAT32 && p->dtype != RESERVE_BFLOAT16) return false;
  if (p->rotary != RESERVE_ROTARY_DIAGONAL && p->rotary != RESERVE_ROTARY_STANDARD) return false;
  if (p->tokens > INT32_MAX || p->heads > (INT64_MAX >> 32) / (3 * head_size * int64_t{sizeof(float)})) return false;
  if ((p->grad == nullptr) != (p->grad_qkv == nullptr) && p->tokens > 0 && p->heads > 0) return false;
  const int32_t* starts = p->cu_seqlens;
  if (starts[0] != 0 || starts[p->sequences] != p->tokens) return false;
  for (int64_t s = 0; s < p->sequences; ++s)
    if (starts[s + 1] < starts[s]) return false;
  return p->tokens == 0 || p->heads == 0 || (p->qkv != nullptr && p->out != nullptr && p->lse != nullptr);
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_attention_cpu(const reserve_attention* problem, int32_t threads, int32_t isa) {
  using namespace reserve;
  if (!is_valid(problem) || threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const reserve_attention& p = *problem;
  if (p.tokens == 0 || p.heads == 0) return RESERVE_OK;
  const bool backward = p.grad != nullptr;
  int64_t longest = 0;
  double total = 0;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const int64_t length = p.cu_seqlens[s + 1] - p.cu_seqlens[s];
    longest = std::max(longest, length);
    total += cost(length, backward) * static_cast<double>(p.heads);
  }
  const int64_t useful = static_cast<int64_t>(std::min(total / least_cost_per_thread, 1.0 * most_threads));
  const int64_t count = std::min<int64_t>(threads, useful);
  const AttentionKernel kernel = kernel_for(best_isa(isa));
  // From coarse to fine, until there is enough for all threads. The last one of the backward pass computes weights twice.
  const Division forward_divisions[] = {{false, 1024}, {true, 2 * block_size}};
  const Division backward_divisions[] = {{false, 0}, {true, 0}, {true, 2 * block_size}};
  const Division* divisions = backward ? backward_divisions : forward_divisions;
  const Division* last = backward ? backward_divisions + 2 : forward_divisions + 1;
  Work work{p, kernel, *divisions, kernel.scratch_bytes(p, longest)};
  while (divisions != last && count > 1 && work.units() < units_per_thread * count) work.division = *++divisions;
  on_threads(count, [&work] { work.run(); });
  // Every unit taken was finished, so some are missing only if no thread had memory.
  return work.next < work.units() ? RESERVE_OUT_OF_MEMORY : RESERVE_OK;
}
