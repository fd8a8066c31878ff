// The CPU entry point of AdamW: checks, choice of the instruction set, threads.
#include "adamw_cpu.h"

#include <algorithm>
#include <atomic>

#include "adamw_problem.h"
#include "cpu_isa.h"
#include "cpu_threads.h"

namespace reserve {
namespace {

// Numbers that a thread takes at a time: its arrays are some memory pages long, yet threads end together.
constexpr int64_t chunk = 1 << 14;
// A thread costs tens of microseconds to start: each gets at least this many chunks (about 0.1 ms).
constexpr int64_t least_chunks_per_thread = 4;

int64_t chunks_of(const reserve_adamw_tensor& tensor) { return (tensor.count + chunk - 1) / chunk; }

AdamwFunction* function_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return adamw_avx512;
  if (isa == RESERVE_ISA_AVX2) return adamw_avx2;
#endif
  return adamw_baseline;
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_adamw_cpu(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                     const reserve_adamw_random* random, int64_t count, int32_t threads, int32_t isa) {
  using namespace reserve;
  const int32_t status = check_adamw(settings, tensors, random, count);
  if (status != RESERVE_OK || threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  AdamwFunction* const update = function_for(best_isa(isa));
  int64_t chunks = 0;
  for (int64_t i = 0; i < count; ++i) chunks += chunks_of(tensors[i]);
  std::atomic<int64_t> next{0};
  on_threads(std::min<int64_t>(threads, chunks / least_chunks_per_thread), [&] {
    // Chunks are counted over all tensors; a thread's grow, so it goes through the tensors once.
    int64_t tensor = 0, first = 0;
    for (int64_t taken = next.fetch_add(1); taken < chunks; taken = next.fetch_add(1)) {
      while (taken >= first + chunks_of(tensors[tensor])) first += chunks_of(tensors[tensor++]);
      const int64_t begin = (taken - first) * chunk;
      const int64_t end = std::min(begin + chunk, tensors[tensor].count);
      update(*settings, tensors[tensor], random != nullptr ? random + tensor : nullptr, begin, end);
    }
  });
  return RESERVE_OK;
}
