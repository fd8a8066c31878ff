// Where the samples of a frame come from: clips in one buffer, padding at their ends.
#pragma once

#include <cstdint>

#include "bfloat16.h"
#include "plan.h"
#include "reserve_native.h"

namespace reserve {

// One clip: where it lies in the waveform, `length` samples, and the rows of the output that are its own.
struct Clip {
  int64_t first;
  int64_t length;
  int64_t frames;
};

RESERVE_HD Clip clip_at(const reserve_log_mel& problem, int64_t clip) {
  int64_t start = clip * problem.clip_stride, length = problem.samples;
  if (problem.clip_offsets != nullptr) {
    // Offsets on a GPU cannot be checked beforehand: whatever they say, no sample outside the waveform is read.
    int64_t first = problem.clip_offsets[clip], end = problem.clip_offsets[clip + 1];
    first = first < 0 ? 0 : first;
    end = end > problem.samples ? problem.samples : end;
    start = first < end ? first : 0;
    length = first < end ? end - first : 0;
  }
  const int64_t reach = length + problem.frame_extra;
  int64_t frames = length > 0 && reach > 0 ? reach / problem.hop_length : 0;
  if (frames > problem.frames) frames = problem.frames;
  return {start, length, frames};
}

// The sample that position `position` of the endless reflection of a clip about its end samples repeats.
RESERVE_HD int64_t reflected(int64_t position, int64_t length) {
  if (length == 1) return 0;
  if (position < 0 && -position < length) return -position;
  if (position >= length && position < 2 * length - 1) return 2 * (length - 1) - position;
  const int64_t period = 2 * (length - 1);
  int64_t folded = position % period;
  if (folded < 0) folded += period;
  return folded < length ? folded : period - folded;
}

// The sample that a position of a clip's endless padding repeats, in any pad mode but CONSTANT.
RESERVE_HD int64_t repeated(int64_t position, int64_t length, int pad_mode) {
  if (pad_mode == RESERVE_PAD_REFLECT) return reflected(position, length);
  if (pad_mode == RESERVE_PAD_REPLICATE) return position < 0 ? 0 : position < length ? position : length - 1;
  const int64_t period = pad_mode == RESERVE_PAD_CIRCULAR ? length : 2 * length;
  int64_t folded = position % period;
  if (folded < 0) folded += period;
  return folded < length ? folded : period - 1 - folded;
}

RESERVE_HD int64_t sample_bytes(int dtype) { return dtype == RESERVE_FLOAT32 ? 4 : 2; }

// The value of a float16, subnormal numbers, infinity and NaN included.
RESERVE_HD float from_float16(uint16_t half) {
  constexpr float two_to_112 = 5.192296858534828e33f;
  const uint32_t magnitude = half & 0x7fffu;
  const float finite = float_of(magnitude << 13) * two_to_112;
  const uint32_t bits = magnitude >= 0x7c00u ? magnitude << 13 | 0x7f800000u : bits_of(finite);
  return float_of(bits | (half & 0x8000u) << 16);
}

// Sample `index` of a waveform of `dtype`.
RESERVE_HD float sample_at(const void* waveform, int dtype, int64_t index) {
  if (dtype == RESERVE_FLOAT32) return static_cast<const float*>(waveform)[index];
  if (dtype == RESERVE_INT16) return static_cast<float>(static_cast<const int16_t*>(waveform)[index]);
  const uint16_t bits = static_cast<const uint16_t*>(waveform)[index];
  return dtype == RESERVE_BFLOAT16 ? from_bfloat16(bits) : from_float16(bits);
}

// The value at any position of a padded clip that has samples.
RESERVE_HD float padded_sample(const reserve_log_mel& problem, const Clip& clip, int64_t position) {
  if (position < 0 || position >= clip.length) {
    if (problem.pad_mode == RESERVE_PAD_CONSTANT) return 0.0f;
    position = repeated(position, clip.length, problem.pad_mode);
  }
  return sample_at(problem.waveform, problem.in_dtype, clip.first + position);
}

}  // namespace reserve
