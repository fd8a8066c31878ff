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

// Values of the output: `runs` times `width` floats that lie together, `stride` apart.
struct Block {
  float* first;
  int64_t runs, width, stride;
};

// The smallest value of a block ([0]) or the largest ([1]), and the limit of its values to at most ([0]) or at least
// ([1]) a number; see cpu_range.h.
struct CpuRange {
  float (*extreme[2])(const Block& block, float from);
  void (*limit[2])(const Block& block, float limit);
};

struct CpuKernel {
  int lanes;  // frames transformed at a time
  size_t (*scratch_bytes)(const reserve_log_mel& problem, const CpuTables& tables);
  RowsFunction rows;
  CpuRange range;
};

CpuKernel log_mel_baseline() noexcept;
#if defined(RESERVE_X86)
CpuKernel log_mel_avx2() noexcept;
CpuKernel log_mel_avx512() noexcept;
#endif

}  // namespace reserve
