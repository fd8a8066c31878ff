// Checks of a log-mel problem that need no look at its arrays.
#pragma once

#include <cstdint>

#include "reserve_native.h"
#include "twiddles.h"

namespace reserve {

// A waveform longer than this has no size in bytes.
constexpr int64_t most_samples = INT64_MAX / static_cast<int64_t>(sizeof(float));

// RESERVE_OK, or why `p` cannot run. RESERVE_OK implies that the size of the output does not overflow.
inline int32_t check_problem(const reserve_log_mel& p) noexcept {
  if (!has_plan(p.n_fft)) return RESERVE_UNSUPPORTED;
  if (p.clips < 0 || p.samples < 0 || p.frames < 0 || p.hop_length < 1 || p.n_mels < 1 ||
      (p.append != 0 && p.append != 1) || (p.pad_mode != RESERVE_PAD_REFLECT && p.pad_mode != RESERVE_PAD_CONSTANT) ||
      (p.out_dtype != RESERVE_FLOAT32 && p.out_dtype != RESERVE_BFLOAT16))
    return RESERVE_INVALID_ARGUMENT;
  if (p.clips == 0 || p.frames == 0) return RESERVE_OK;
  const int64_t row_bytes = 4 * (int64_t{p.n_mels} + 1);
  if (p.frames > INT64_MAX / p.clips / row_bytes) return RESERVE_INVALID_ARGUMENT;
  if (p.samples > most_samples) return RESERVE_INVALID_ARGUMENT;
  if (p.clip_offsets == nullptr && p.clips > 1 &&
      (p.clip_stride < 0 || p.clip_stride > (most_samples - p.samples) / (p.clips - 1)))
    return RESERVE_INVALID_ARGUMENT;
  if (p.window == nullptr || p.band_start == nullptr || p.band_row == nullptr || p.band_weight == nullptr ||
      p.out == nullptr || (p.waveform == nullptr && p.samples > 0))
    return RESERVE_INVALID_ARGUMENT;
  return RESERVE_OK;
}

// Whether the block code has these sizes: pairs of samples stay aligned, and each frame overlaps the next.
inline bool fits_block(int32_t n_fft, int32_t hop_length, int32_t n_mels) noexcept {
  return hop_length % 2 == 0 && hop_length <= n_fft && n_mels <= 1024;
}

// check_problem for the block code, which also needs its tables and bounded sizes.
inline int32_t check_block_problem(const reserve_log_mel& p) noexcept {
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK || p.clips == 0 || p.frames == 0) return status;
  if (p.twiddles == nullptr || p.placed_row == nullptr || p.placed_weight == nullptr) return RESERVE_INVALID_ARGUMENT;
  return fits_block(p.n_fft, p.hop_length, p.n_mels) ? RESERVE_OK : RESERVE_UNSUPPORTED;
}

}  // namespace reserve
