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

// About the cycles of one head of a sequence, of 64 numbers.
double cost(int64_t queries, int64_t keys, bool backward) noexcept {
  return static_cast<double>(queries) * (8 * static_cast<double>(keys) + 200) * (backward ? 2.5 : 1);
}

// A sequence's tokens: those of its queries and those of its keys, which may be the same.
struct Sequence {
  Range tokens;
  Range tokens_k;

  int64_t queries() const noexcept { return tokens.end - tokens.begin; }
  int64_t keys() const noexcept { return tokens_k.end - tokens_k.begin; }
  int64_t longer() const noexcept { return std::max(queries(), keys()); }
};

Sequence sequence_of(const reserve_attention& p, int64_t s) noexcept {
  return {{p.cu_seqlens[s], p.cu_seqlens[s + 1]}, {p.cu_seqlens_k[s], p.cu_seqlens_k[s + 1]}};
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

  // Units of one group of heads.
  int64_t parts_of(const Sequence& s) const noexcept {
    return division.parts(s.queries()) + (is_split() ? division.parts(s.keys()) : 0);
  }

  int64_t units_of(const Sequence& s) const noexcept {
    if ((problem.grad == nullptr ? s.queries() : s.longer()) == 0) return 0;
    const int64_t heads = division.heads_per_unit(s.longer(), problem.kv_heads);
    return (problem.kv_heads + heads - 1) / heads * parts_of(s);
  }

  Range part_of(int64_t index, int64_t length) const noexcept {
    if (division.part == 0) return {0, length};
    return {index * division.part, std::min((index + 1) * division.part, length)};
  }

  Unit unit_of(const Sequence& s, int64_t index) const noexcept {
    const int64_t parts = parts_of(s), query_parts = division.parts(s.queries());
    const int64_t heads = division.heads_per_unit(s.longer(), problem.kv_heads);
    // The parts of one head follow each other.
    const int64_t first = index / parts * heads, in_head = index % parts;
    const Range all_queries{0, s.queries()}, all_keys{0, s.keys()};
    Unit unit{s.tokens, s.tokens_k, {first, std::min(first + heads, problem.kv_heads)}, all_queries, all_keys, true, true};
    if (in_head < query_parts) {
      unit.queries = part_of(in_head, s.queries());
      unit.key_grad = !is_split();
    } else {
      unit.keys = part_of(in_head - query_parts, s.keys());
      unit.query_grad = false;
    }
    return unit;
  }

  int64_t units() const noexcept {
    int64_t sum = 0;
    for (int64_t s = 0; s < problem.sequences; ++s) sum += units_of(sequence_of(problem, s));
    return sum;
  }

  // Takes units until none is left. Without memory it takes none: the other threads do the work.
  void run() noexcept {
    void* scratch = scratch_pool.take(scratch_bytes);
    if (scratch == nullptr) return;
    int64_t before = 0;  // units of the sequences before s
    int64_t s = 0;
    for (int64_t unit = next.fetch_add(1);; unit = next.fetch_add(1)) {
      Sequence sequence{};
      for (; s < problem.sequences; ++s) {
        sequence = sequence_of(problem, s);
        const int64_t count = units_of(sequence);
        if (unit < before + count) break;
        before += count;
      }
      if (s == problem.sequences) break;
      kernel.run(problem, unit_of(sequence, unit - before), scratch);
    }
    scratch_pool.give_back(scratch);
  }
};

// Whether `starts` are those of sequences that `tokens` tokens make up.
bool are_starts(const int32_t* starts, int64_t sequences, int64_t tokens) noexcept {
  if (starts == nullptr || tokens < 0 || tokens > INT32_MAX || starts[0] != 0 || starts[sequences] != tokens) return false;
  for (int64_t s = 0; s < sequences; ++s)
    if (starts[s + 1] < starts[s]) return false;
  return true;
}

bool is_valid(const reserve_attention* p) noexcept {
  if (p == nullptr || p->sequences < 0 || p->heads < 0 || p->kv_heads < 0) return false;
  if (p->dtype != RESERVE_FLOAT32 && p->dtype != RESERVE_BFLOAT16) return false;
  if (p->rotary != RESERVE_ROTARY_DIAGONAL && p->rotary != RESERVE_ROTARY_STANDARD) return false;
  if (p->head_size != 32 && p->head_size != 64 && p->head_size != 96 && p->head_size != 128) return false;
  const int64_t most = (INT64_MAX >> 32) / int64_t{sizeof(float)};  // elements from one token to the next
  if (p->heads > most / p->head_size || p->q_stride < p->heads * p->head_size || p->q_stride > most) return false;
  if (p->kv_heads > p->heads || p->kv_stride < p->kv_heads * p->head_size || p->kv_stride > most) return false;
  if (p->heads > 0 && (p->kv_heads == 0 || p->heads % p->kv_heads != 0)) return false;
  if (!are_starts(p->cu_seqlens, p->sequences, p->tokens)) return false;
  if (!are_starts(p->cu_seqlens_k, p->sequences, p->tokens_k)) return false;
  if (p->angles != nullptr && (p->token_angles < 1 || 2 * int64_t{p->token_angles} > p->head_size)) return false;
  if (p->heads == 0) return true;
  const bool some_queries = p->tokens > 0, some_keys = p->tokens_k > 0;
  if (some_queries && (p->q == nullptr || p->out == nullptr || p->lse == nullptr)) return false;
  if (some_keys && (p->k == nullptr || p->v == nullptr)) return false;
  if (some_queries && some_keys && (p->angles == nullptr) != (p->angles_k == nullptr)) return false;
  if (some_queries && some_keys && (p->segment_ids == nullptr) != (p->segment_ids_k == nullptr)) return false;
  const bool backward = p->grad != nullptr;
  if (some_queries && backward != (p->grad_q != nullptr)) return false;
  return !some_keys || (backward == (p->grad_k != nullptr) && backward == (p->grad_v != nullptr));
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_attention_cpu(const reserve_attention* problem, int32_t threads, int32_t isa) {
  using namespace reserve;
  if (!is_valid(problem) || threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const reserve_attention& p = *problem;
  if (p.heads == 0 || (p.tokens == 0 && p.tokens_k == 0)) return RESERVE_OK;
  const bool backward = p.grad != nullptr;
  int64_t longest = 0, longest_k = 0;
  double total = 0;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const Sequence sequence = sequence_of(p, s);
    longest = std::max(longest, sequence.queries());
    longest_k = std::max(longest_k, sequence.keys());
    total += cost(sequence.queries(), sequence.keys(), backward) * static_cast<double>(p.heads) * p.head_size / 64;
  }
  const int64_t useful = static_cast<int64_t>(std::min(total / least_cost_per_thread, 1.0 * most_threads));
  const int64_t count = std::min<int64_t>(threads, useful);
  const AttentionKernel kernel = kernel_for(best_isa(isa));
  // From coarse to fine, until there is enough for all threads. The last one of the backward pass computes weights twice.
  const Division forward_divisions[] = {{false, 1024}, {true, 2 * block_size}};
  const Division backward_divisions[] = {{false, 0}, {true, 0}, {true, 2 * block_size}};
  const Division* divisions = backward ? backward_divisions : forward_divisions;
  const Division* last = backward ? backward_divisions + 2 : forward_divisions + 1;
  Work work{p, kernel, *divisions, kernel.scratch_bytes(p, longest, longest_k)};
  while (divisions != last && count > 1 && work.units() < units_per_thread * count) work.division = *++divisions;
  on_threads(count, [&work] { work.run(); });
  // Every unit taken was finished, so some are missing only if no thread had memory.
  return work.next < work.units() ? RESERVE_OUT_OF_MEMORY : RESERVE_OK;
}
