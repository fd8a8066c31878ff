// Limits the values of each clip to a range below its largest one.
#include <atomic>
#include <cmath>
#include <memory>
#include <new>

#include "cpu_isa.h"
#include "cpu_threads.h"
#include "frame_source.h"
#include "log_mel_cpu.h"
#include "problem.h"
#include "reserve_native.h"

namespace reserve {
namespace {

// What a thread takes at a time, and what makes a further thread worth its start.
constexpr int64_t values_per_turn = 1 << 14, least_values_per_thread = 1 << 18;

// Where the values of a clip lie: `runs` times `width` of them, `stride` apart.
struct Runs {
  float* first;
  int64_t runs, width, stride;
};

Runs runs_of(const reserve_log_mel& p, int64_t index) {
  const int64_t columns = int64_t{p.n_mels} + p.append, frames = clip_at(p, index).frames;
  float* first = static_cast<float*>(p.out) + index * p.frames * columns;
  if (p.bands_first && frames < p.frames) return {first, p.n_mels, frames, p.frames};
  if (!p.bands_first && p.append) return {first, frames, p.n_mels, columns};
  return {first, 1, frames * p.n_mels, 0};
}

// Calls run(values, n) for each piece of values [begin, end) of a clip that lies together.
template <typename Call>
void each_piece(const Runs& runs, int64_t begin, int64_t end, const Call& call) {
  while (begin < end) {
    const int64_t run = begin / runs.width, at = begin % runs.width;
    const int64_t n = runs.width - at < end - begin ? runs.width - at : end - begin;
    call(runs.first + run * runs.stride + at, n);
    begin += n;
  }
}

// Calls `run(clip, begin, end)` for all values of all clips, in as many threads as are worth it.
template <typename Run>
void each_turn(const reserve_log_mel& p, int32_t threads, const Run& run) {
  const int64_t turns = (p.frames * p.n_mels + values_per_turn - 1) / values_per_turn;
  const int64_t useful = p.clips * p.frames * p.n_mels / least_values_per_thread;
  std::atomic<int64_t> next{0};
  on_threads(threads < useful ? threads : useful, [&] {
    for (int64_t turn = next++; turn < p.clips * turns; turn = next++) {
      const Runs runs = runs_of(p, turn / turns);
      const int64_t count = runs.runs * runs.width, begin = turn % turns * values_per_turn;
      const int64_t end = begin + values_per_turn < count ? begin + values_per_turn : count;
      if (begin < end) run(runs, turn / turns, begin, end);
    }
  });
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_log_mel_limit_cpu(const reserve_log_mel* problem, float below, int32_t threads,
                                             int32_t isa) {
  using namespace reserve;
  if (problem == nullptr || threads < 1 || below != below) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK) return status;
  if (p.out_dtype != RESERVE_FLOAT32) return RESERVE_INVALID_ARGUMENT;
  if (p.clips == 0 || p.frames == 0) return RESERVE_OK;
  if (!offsets_are_valid(p)) return RESERVE_INVALID_ARGUMENT;
  const CpuRange range = log_mel_kernel(best_isa(isa)).range;
  const bool larger = !std::signbit(below);
  const float none = larger ? -HUGE_VALF : HUGE_VALF;
  const std::unique_ptr<std::atomic<float>[]> extremes(new (std::nothrow) std::atomic<float>[p.clips]);
  if (extremes == nullptr) return RESERVE_OUT_OF_MEMORY;
  for (int64_t c = 0; c < p.clips; ++c) extremes[c] = none;
  each_turn(p, threads, [&](const Runs& runs, int64_t clip, int64_t begin, int64_t end) {
    float found = none;
    each_piece(runs, begin, end, [&](float* values, int64_t n) { found = range.extreme[larger](values, n, found); });
    float held = extremes[clip];
    while (held == held && !(larger ? held >= found : held <= found) &&
           !extremes[clip].compare_exchange_weak(held, found)) {
    }
  });
  each_turn(p, threads, [&](const Runs& runs, int64_t clip, int64_t begin, int64_t end) {
    const float limit = extremes[clip] - below;
    each_piece(runs, begin, end, [&](float* values, int64_t n) { range.limit[larger](values, n, limit); });
  });
  return RESERVE_OK;
}
