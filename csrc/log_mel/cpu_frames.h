// The frames of a batch as rows of floats: in place, or staged with their padding. Once per instruction set (vector.h).
#pragma once

#include "frame_source.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// Rows whose frames are transformed together.
struct Batch {
  Clip clips[lanes];
  int64_t positions[lanes];  // of the frame's first sample in its clip
  int64_t rows[lanes];
  int size = 0;

  void add(const Clip& clip, int64_t position, int64_t row) {
    clips[size] = clip;
    positions[size] = position;
    rows[size++] = row;
  }
  // Whether the frames follow one another in one clip. A later clip's positions begin anew.
  bool consecutive(int64_t hop_length) const {
    const int64_t steps = size - 1;
    return rows[steps] - rows[0] == steps && positions[steps] - positions[0] == steps * hop_length;
  }
};

// The samples that the next frames will be the first to read. Hardware prefetchers do not recognise the scattered reads
// of frames, so the reading of one batch prefetches those of the next a part at a time.
struct Upcoming {
  const float* next;
  const float* end;

  RESERVE_HD void prefetch(int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(next + i, 0, 3);
    next += floats < end - next ? floats : end - next;
  }
  // One of `parts` parts of what is left.
  RESERVE_HD int64_t part(int parts) const { return (end - next + parts - 1) / parts; }
};

struct Frames {
  Rows rows;
  Upcoming upcoming;
};

// Rows are read four columns at a time, the last of which may lie beyond the window.
static RESERVE_HD int64_t read_columns(const reserve_log_mel& problem) {
  return (int64_t{problem.window_length} + 3) / 4 * 4;
}
// Floats from one staged frame to the next: an odd number of cache lines, so that the rows of long windows do not fall on
// the same lines of the cache.
static RESERVE_HD int64_t staged_stride(const reserve_log_mel& problem) {
  return ((read_columns(problem) + 15) / 16 | 1) * 16;
}
static RESERVE_HD int64_t staged_floats(const reserve_log_mel& problem) { return lanes * staged_stride(problem); }

// `n` samples of a waveform of any dtype from `from` on.
static void copy_samples(const reserve_log_mel& problem, int64_t from, float* out, int64_t n) {
  if (problem.in_dtype == RESERVE_FLOAT32) {
    const float* wide = static_cast<const float*>(problem.waveform) + from;
    std::memcpy(out, wide, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const uint16_t* narrow = static_cast<const uint16_t*>(problem.waveform) + from;
  switch (problem.in_dtype) {
    case RESERVE_INT16:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(static_cast<int16_t>(narrow[i]));
      break;
    case RESERVE_BFLOAT16:
      for (int64_t i = 0; i < n; ++i) out[i] = from_bfloat16(narrow[i]);
      break;
    default:
      for (int64_t i = 0; i < n; ++i) out[i] = from_float16(narrow[i]);
  }
}

// n samples of a padded clip from `position` on. Runs that go one way are copied as such: near the ends of a clip
// this is most of a frame.
static void copy_padded(const reserve_log_mel& problem, const Clip& clip, int64_t position, float* out, int64_t n) {
  for (int64_t done = 0; done < n;) {
    const int64_t at = position + done;
    int64_t run = n - done;
    if (at >= 0 && at < clip.length) {
      run = clip.length - at < run ? clip.length - at : run;
      copy_samples(problem, clip.first + at, out + done, run);
    } else if (problem.pad_mode == RESERVE_PAD_CONSTANT) {
      if (at < 0) run = -at < run ? -at : run;
      std::memset(out + done, 0, static_cast<size_t>(run) * sizeof(float));
    } else {
      const int64_t from = repeated(at, clip.length, problem.pad_mode);
      const int64_t step = repeated(at + 1, clip.length, problem.pad_mode) - from;
      const int64_t left = step == 1 ? clip.length - from : step == -1 ? from + 1 : 1;
      run = left < run ? left : run;
      for (int64_t i = 0; i < run; ++i)
        out[done + i] = sample_at(problem.waveform, problem.in_dtype, clip.first + from + step * i);
    }
    done += run;
  }
}

// What the `lanes` frames after the last of `batch` read beyond it, of a waveform of floats.
static Upcoming after(const reserve_log_mel& problem, const Batch& batch) {
  const int64_t length =
      problem.clip_offsets != nullptr ? problem.samples : (problem.clips - 1) * problem.clip_stride + problem.samples;
  const Clip& clip = batch.clips[batch.size - 1];
  const int64_t reached = batch.positions[batch.size - 1] + problem.window_length;
  const int64_t from = clip.first + (reached < 0 ? 0 : reached < clip.length ? reached : clip.length);
  const int64_t step = problem.hop_length < problem.window_length ? problem.hop_length : problem.window_length;
  const int64_t count = lanes * step < length - from ? lanes * step : length - from;
  const float* next = static_cast<const float*>(problem.waveform) + from;
  return {next, next + count};
}

// The frames of a batch: in place if all are consecutive floats inside one clip, otherwise copied to `staged`.
static Frames frames_of(const reserve_log_mel& problem, const Batch& batch, float* staged) {
  const bool consecutive = batch.consecutive(problem.hop_length);
  const bool floats = problem.in_dtype == RESERVE_FLOAT32;
  const Upcoming upcoming = floats ? after(problem, batch) : Upcoming{nullptr, nullptr};
  const Clip& clip = batch.clips[0];
  if (floats && consecutive && batch.size == lanes && batch.positions[0] >= 0 &&
      batch.positions[lanes - 1] + read_columns(problem) <= clip.length) {
    const float* base = static_cast<const float*>(problem.waveform) + clip.first + batch.positions[0];
    return {{base, problem.hop_length}, upcoming};
  }
  const int64_t window = problem.window_length, stride = staged_stride(problem);
  if (consecutive && problem.hop_length < window) {
    // All at once, since they overlap. Lanes without a frame get zeros: their result is thrown away.
    const int64_t span = (batch.size - 1) * int64_t{problem.hop_length} + window;
    const int64_t all = (lanes - 1) * int64_t{problem.hop_length} + read_columns(problem);
    copy_padded(problem, clip, batch.positions[0], staged, span);
    std::memset(staged + span, 0, static_cast<size_t>(all - span) * sizeof(float));
    return {{staged, problem.hop_length}, upcoming};
  }
  for (int lane = 0; lane < lanes; ++lane) {
    float* row = staged + lane * stride;
    const int64_t copied = lane < batch.size ? window : 0;
    if (copied > 0) copy_padded(problem, batch.clips[lane], batch.positions[lane], row, window);
    std::memset(row + copied, 0, static_cast<size_t>(read_columns(problem) - copied) * sizeof(float));
  }
  return {{staged, stride}, upcoming};
}

}  // namespace RESERVE_ISA
}  // namespace reserve
