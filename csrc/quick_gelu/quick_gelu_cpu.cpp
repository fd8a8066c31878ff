// The CPU entry point of bias + quick GELU: checks, choice of the instruction set, threads.
#include "quick_gelu_cpu.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "cpu_isa.h"
#include "cpu_threads.h"

namespace reserve {
namespace {

// About the numbers that a thread takes at a time. Each such strip has a partial sum of the bias's gradient, little
// beside a strip of this length.
constexpr int64_t strip_numbers = 1 << 16;
// A thread costs tens of microseconds to start: each gets at least this many strips (about 0.1 ms).
constexpr int64_t least_strips_per_thread = 2;

QuickGeluFunction function_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return quick_gelu_avx512;
  if (isa == RESERVE_ISA_AVX2) return quick_gelu_avx2;
#endif
  return quick_gelu_baseline;
}

bool is_valid(const reserve_quick_gelu* p) noexcept {
  if (p == nullptr || p->rows < 0 || p->features < 0) return false;
  if (p->dtype != RESERVE_FLOAT32 && p->dtype != RESERVE_BFLOAT16) return false;
  const bool wants_bias_grad = p->grad != nullptr && p->bias != nullptr;
  if (wants_bias_grad != (p->grad_bias != nullptr) && p->features > 0) return false;
  const bool is_empty = p->rows == 0 || p->features == 0;
  if (!is_empty && p->features > INT64_MAX / p->rows) return false;
  return is_empty || (p->x != nullptr && p->out != nullptr);
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_quick_gelu_cpu(const reserve_quick_gelu* problem, int32_t threads, int32_t isa) {
  using namespace reserve;
  if (!is_valid(problem) || threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const reserve_quick_gelu& p = *problem;
  const QuickGeluFunction run = function_for(best_isa(isa));
  const int64_t numbers = p.rows * p.features;
  // Strips do not depend on the number of threads, so that neither does the order of a sum.
  const int64_t length = p.bias == nullptr || p.features == 0 ? strip_numbers
                                                              : std::max<int64_t>(1, strip_numbers / p.features) * p.features;
  const int64_t strips = numbers / length + (numbers % length != 0);
  std::unique_ptr<float[]> sums;
  if (p.grad_bias != nullptr) {
    sums.reset(new (std::nothrow) float[static_cast<size_t>(strips * p.features)]());
    if (sums == nullptr) return RESERVE_OUT_OF_MEMORY;
  }
  std::atomic<int64_t> next{0};
  on_threads(std::min<int64_t>(threads, strips / least_strips_per_thread), [&] {
    for (int64_t strip = next.fetch_add(1); strip < strips; strip = next.fetch_add(1)) {
      const int64_t begin = strip * length;
      run(p, begin, std::min(begin + length, numbers), sums ? sums.get() + strip * p.features : nullptr);
    }
  });
  if (p.grad_bias != nullptr) {
    std::fill_n(p.grad_bias, p.features, 0.0f);
    for (int64_t strip = 0; strip < strips; ++strip)
      for (int64_t i = 0; i < p.features; ++i) p.grad_bias[i] += sums[strip * p.features + i];
  }
  return RESERVE_OK;
}
