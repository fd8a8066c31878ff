#include "cpu_isa.h"

#include "reserve_native.h"

namespace reserve {

bool can_run(int32_t isa) noexcept {
#if defined(RESERVE_X86)
  // The compiler's runtime does so when it is loaded, if that is the runtime that was linked.
  __builtin_cpu_init();
#endif
  switch (isa) {
    case RESERVE_ISA_BASELINE: return true;
#if defined(RESERVE_X86)
    case RESERVE_ISA_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case RESERVE_ISA_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
    default: return false;
  }
}

int32_t best_isa(int32_t isa) noexcept {
  if (isa != RESERVE_ISA_AUTO) return isa;
  if (can_run(RESERVE_ISA_AVX512)) return RESERVE_ISA_AVX512;
  return can_run(RESERVE_ISA_AVX2) ? RESERVE_ISA_AVX2 : RESERVE_ISA_BASELINE;
}

}  // namespace reserve

extern "C" int32_t reserve_has_isa(int32_t isa) { return reserve::can_run(isa) ? 1 : 0; }
