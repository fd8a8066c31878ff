// Log-mel of `lanes` frames at a time, from samples to rows, without leaving the cache. Included once per instruction
// set (see vector.h); the including file defines RESERVE_ISA, RESERVE_LANES and RESERVE_KERNEL.
#pragma once

#include "cpu_bands.h"
#include "cpu_fixed_transform.h"
#include "cpu_frames.h"
#include "cpu_mixed_transform.h"
#include "cpu_range.h"
#include "log_mel_cpu.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

// The scratch memory of a thread, in bytes from its start; each part is aligned to 64.
struct Scratch {
  size_t power, bands, values, staged, size;  // the transform's own comes first

  Scratch(const reserve_log_mel& problem, size_t transform) {
    const auto room = [](size_t from, int64_t count, size_t bytes) {
      return (from + static_cast<size_t>(count) * bytes + 63) / 64 * 64;
    };
    power = room(0, 1, transform);
    bands = room(power, problem.n_fft / 2 + 1, sizeof(Vector));
    values = room(bands, padded_bands(problem.n_mels), sizeof(Vector));
    staged = room(values, lanes * padded_bands(problem.n_mels), sizeof(float));
    size = room(staged, staged_floats(problem), sizeof(float));
  }
};

template <typename Plan>
struct FixedTransform {
  static size_t bytes(const CpuTables&) { return sizeof(FixedScratch<Plan>); }
  static void run(const Frames& frames, const reserve_log_mel& problem, const CpuTables& tables, char* scratch,
                  Vector* power) {
    fixed_powers<Plan>(frames, problem.window, tables.fixed, *reinterpret_cast<FixedScratch<Plan>*>(scratch), power);
  }
};

struct MixedTransform {
  static size_t bytes(const CpuTables& tables) { return static_cast<size_t>(tables.mixed->extent()) * sizeof(C); }
  static void run(const Frames& frames, const reserve_log_mel& problem, const CpuTables& tables, char* scratch,
                  Vector* power) {
    mixed_powers(frames, problem, *tables.mixed, reinterpret_cast<C*>(scratch), power);
  }
};

template <typename Transform>
static void run_batch(const reserve_log_mel& problem, const CpuTables& tables, const Batch& batch,
                      const Scratch& scratch, char* memory) {
  const auto vectors = [memory](size_t at) { return reinterpret_cast<Vector*>(memory + at); };
  const auto floats = [memory](size_t at) { return reinterpret_cast<float*>(memory + at); };
  const Frames frames = frames_of(problem, batch, floats(scratch.staged));
  Transform::run(frames, problem, tables, memory, vectors(scratch.power));
  bands_of(vectors(scratch.power), problem.n_fft / 2 + 1, problem, vectors(scratch.bands));
  if (problem.bands_first) {
    write_columns(problem, batch, vectors(scratch.bands));
  } else {
    write_rows(problem, batch, vectors(scratch.bands), floats(scratch.values));
  }
}

template <typename Transform>
static void rows_of(const reserve_log_mel& problem, const CpuTables& tables, int64_t begin, int64_t end,
                    void* memory) {
  const Scratch scratch(problem, Transform::bytes(tables));
  Batch batch;
  for (int64_t row = begin; row < end; ++row) {
    const Clip clip = clip_at(problem, row / problem.frames);
    const int64_t frame = row % problem.frames;
    if (frame < clip.frames) {
      batch.add(clip, frame * problem.hop_length + problem.start, row);
    } else {
      write_zeros(problem, row);
    }
    if (batch.size == lanes || (row + 1 == end && batch.size > 0)) {
      run_batch<Transform>(problem, tables, batch, scratch, static_cast<char*>(memory));
      batch.size = 0;
    }
  }
}

// `call` with the transform of a problem.
template <typename Call>
static auto with_transform(const reserve_log_mel& problem, const CpuTables& tables, const Call& call) {
  if (tables.mixed != nullptr) return call(MixedTransform{});
  switch (problem.n_fft) {
    case Plan1536::n_fft: return call(FixedTransform<Plan1536>{});
    case Plan3072::n_fft: return call(FixedTransform<Plan3072>{});
    default: return call(FixedTransform<Plan4608>{});
  }
}

static size_t scratch_bytes(const reserve_log_mel& problem, const CpuTables& tables) {
  return with_transform(problem, tables, [&](auto transform) {
    return Scratch(problem, decltype(transform)::bytes(tables)).size;
  });
}

static void rows(const reserve_log_mel& problem, const CpuTables& tables, int64_t begin, int64_t end, void* scratch) {
  with_transform(problem, tables, [&](auto transform) {
    rows_of<decltype(transform)>(problem, tables, begin, end, scratch);
  });
}

}  // namespace RESERVE_ISA

CpuKernel RESERVE_KERNEL() noexcept {
  using namespace RESERVE_ISA;
  return {lanes, scratch_bytes, rows, range_functions};
}

}  // namespace reserve
