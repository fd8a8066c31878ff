// Where the samples of a frame come from: clips in one buffer, padding at their ends.
#pragma once

#include <cstdint>

#include "plan.h"
#include "reserve_native.h"

namespace reserve {

// One clip: `length` samples and the rows of the output that are its own.
struct Clip {
  const float* samples;
  int64_t length;
  int64_t frames;
};

RESERVE_HD Clip clip_at(const reserve_log_mel& problem, int64_t clip) {
  const float* start = problem.waveform;
  int64_t length = problem.samples;
  if (problem.clip_offsets == nullptr) {
    start += clip * problem.clip_stride;
  } else {
    // Offsets on a GPU cannot be checked beforehand: whatever they say, no sample outside the waveform is read.
    int64_t first = problem.clip_offsets[clip], end = problem.clip_offsets[clip + 1];
    first = first < 0 ? 0 : first;
    end = end > problem.samples ? problem.samples : end;
    start += first < end ? first : 0;
    length = first < end ? end - first : 0;
  }
  int64_t frames = length > 0 ? 1 + length / problem.hop_length : 0;
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

// The value at any position of a padded clip.
RESERVE_HD float padded_sample(const Clip& clip, int64_t position, int pad_mode) {
  if (position >= 0 && position < clip.length) return clip.samples[position];
  if (pad_mode == RESERVE_PAD_CONSTANT) return 0.0f;
  return clip.samples[reflected(position, clip.length)];
}

}  // namespace reserve
