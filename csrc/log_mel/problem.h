// Checks of a log-mel problem that need no look at its arrays.
#pragma once

#include <cstdint>

#include "mixed_plan.h"
#include "reserve_native.h"
#include "twiddles.h"

namespace reserve {

// A waveform longer than this has no size in bytes.
constexpr int64_t most_samples = INT64_MAX / static_cast<int64_t>(sizeof(float));
// Further than this a frame is from where it would be without padding in no convention.
constexpr int64_t most_shift = int64_t{1} << 33;

// RESERVE_OK, or why `p` cannot run, whatever its pointers are.
inline int32_t check_numbers(const reserve_log_mel& p) noexcept {
  if (!is_mixed_size(p.n_fft)) return RESERVE_UNSUPPORTED;
  const auto flag = [](int32_t value) { return value == 0 || value == 1; };
  const auto shift = [](int64_t value) { return -most_shift <= value && value <= most_shift; };
  if (p.clips < 0 || p.samples < 0 || p.frames < 0 || p.hop_length < 1 || p.n_mels < 1 || p.window_length < 1 ||
      p.window_length > p.n_fft || !shift(p.start) || !shift(p.frame_extra))
    return RESERVE_INVALID_ARGUMENT;
  if (!flag(p.remove_dc) || !flag(p.log) || !flag(p.relative) || !flag(p.append) || !flag(p.bands_first) || (p.append && p.bands_first) ||
      (p.power != 1 && p.power != 2) || p.pad_mode < RESERVE_PAD_REFLECT || p.pad_mode > RESERVE_PAD_SYMMETRIC ||
      p.in_dtype < RESERVE_FLOAT32 || p.in_dtype > RESERVE_INT16 ||
      (p.out_dtype != RESERVE_FLOAT32 && p.out_dtype != RESERVE_BFLOAT16))
    return RESERVE_INVALID_ARGUMENT;
  return RESERVE_OK;
}

// RESERVE_OK, or why `p` cannot run. RESERVE_OK implies that the size of the output does not overflow.
inline int32_t check_problem(const reserve_log_mel& p) noexcept {
  const int32_t status = check_numbers(p);
  if (status != RESERVE_OK || p.clips == 0 || p.frames == 0) return status;
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

// Whether the clips, in memory that the CPU can read, lie in the waveform. Those without offsets do.
inline bool offsets_are_valid(const reserve_log_mel& p) noexcept {
  if (p.clip_offsets == nullptr) return true;
  if (p.clip_offsets[0] < 0 || p.clip_offsets[p.clips] > p.samples) return false;
  for (int64_t c = 0; c < p.clips; ++c)
    if (p.clip_offsets[c + 1] < p.clip_offsets[c]) return false;
  return true;
}

// Whether a transform whose passes are fixed at compile time does this problem: it takes whole frames as they are.
inline bool has_fixed_plan(const reserve_log_mel& p) noexcept {
  return has_plan(p.n_fft) && p.window_length == p.n_fft && !p.remove_dc && p.preemphasis == 0.0f;
}

}  // namespace reserve
