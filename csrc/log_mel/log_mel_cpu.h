// What the instruction-set specific translation units offer to log_mel_cpu.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frame_source.h"
#include "plan.h"

namespace reserve {

// Rows [begin, end) of all clips' rows one after another; `scratch` is aligned to 64 bytes.
using RowsFunction = void (*)(const reserve_log_mel& problem, const Twiddles& twiddles, int64_t begin, int64_t end,
                              void* scratch);

struct CpuKernel {
  int lanes;  // frames transformed at a time
  size_t (*scratch_bytes)(int n_fft, int n_mels);
  RowsFunction rows;
};

CpuKernel log_mel_baseline() noexcept;
#if defined(RESERVE_X86)
CpuKernel log_mel_avx2() noexcept;
CpuKernel log_mel_avx512() noexcept;
#endif

}  // namespace reserve
