// What the instruction-set specific translation units offer to log_mel_cpu.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frame_source.h"
#include "mixed_plan.h"
#include "plan.h"

namespace reserve {

// The constants of a problem's transform, which has either a fixed plan or a mixed one.
struct CpuTables {
  Twiddles fixed;
  const MixedPlan* mixed;  // null: fixed
};

// Rows [begin, end) of all clips' rows one after another; `scratch` is aligned to 64 bytes.
using RowsFunction = void (*)(const reserve_log_mel& problem, const CpuTables& tables, int64_t begin, int64_t end,
                              void* scratch);

// The limit to a range below a clip's largest value ([1]), or above its smallest ([0]); see cpu_range.h.
struct CpuRange {
  float (*extreme[2])(const float* values, int64_t n, float from);
  void (*limit[2])(float* values, int64_t n, float limit);
};

struct CpuKernel {
  int lanes;  // frames transformed at a time
  size_t (*scratch_bytes)(const reserve_log_mel& problem, const CpuTables& tables);
  RowsFunction rows;
  CpuRange range;
};

// The kernel for an instruction set that can_run, not RESERVE_ISA_AUTO.
CpuKernel log_mel_kernel(int32_t isa) noexcept;

CpuKernel log_mel_baseline() noexcept;
#if defined(RESERVE_X86)
CpuKernel log_mel_avx2() noexcept;
CpuKernel log_mel_avx512() noexcept;
#endif

}  // namespace reserve
