// The CPU entry point of log-mel: checks, choice of the instruction set, threads.
#include <atomic>
#include <thread>

#include "cpu_isa.h"
#include "cpu_threads.h"
#include "log_mel_cpu.h"
#include "problem.h"
#include "range.h"
#include "reserve_native.h"
#include "row_parts.h"
#include "scratch_pool.h"
#include "twiddles.h"

namespace reserve {
namespace {

// A thread costs tens of microseconds to start: each gets at least this many samples of frames, some 0.08 ms.
constexpr int64_t least_samples_per_thread = 96 * 1536;
// Rows that a thread takes at a time: a multiple of every lane count, few enough that threads end together.
int64_t rows_per_turn(const reserve_log_mel& p) noexcept { return p.n_fft < 1024 ? 64 : 16; }

ScratchPool scratch_pool;

// What the threads of a call share. `range` is null if there is no limit to the range.
struct Work {
  const reserve_log_mel& problem;
  const CpuKernel kernel;
  const CpuTables tables;
  Range* const range;
  const int64_t rows;
  RowParts parts, limited;
  std::atomic<int64_t> arrived{0}, done{0};  // threads, rows

  Work(const reserve_log_mel& p, CpuKernel k, CpuTables t, Range* r, int64_t threads) noexcept
      : problem(p),
        kernel(k),
        tables(t),
        range(r),
        rows(p.clips * p.frames),
        parts(rows, rows_per_turn(p), threads),
        limited(rows, rows_per_turn(p), threads) {}

  // Takes turns until none is left. Without memory it takes none: the other threads do the work.
  void run() noexcept {
    void* scratch = scratch_pool.take(kernel.scratch_bytes(problem, tables));
    if (scratch == nullptr) return;
    const int64_t first = arrived++;
    parts.each(first, [&](int64_t begin, int64_t end) {
      kernel.rows(problem, tables, begin, end, scratch);
      if (range != nullptr) range->note(problem, kernel.range, begin, end);
      done += end - begin;
    });
    scratch_pool.give_back(scratch);
    if (range == nullptr) return;
    // Others are at their last turns, some microseconds each.
    while (done < rows) std::this_thread::yield();
    limited.each(first, [&](int64_t begin, int64_t end) { range->limit(problem, kernel.range, begin, end); });
  }
};

bool bands_are_valid(const reserve_log_mel& p) noexcept {
  const int bins = p.n_fft / 2 + 1;
  if (p.band_row[0] < 0) return false;
  for (int m = 0; m < p.n_mels; ++m) {
    const int64_t width = static_cast<int64_t>(p.band_row[m + 1]) - p.band_row[m];
    if (width < 0 || p.band_start[m] < 0 || p.band_start[m] + width > bins) return false;
  }
  return true;
}

CpuKernel kernel_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return log_mel_avx512();
  if (isa == RESERVE_ISA_AVX2) return log_mel_avx2();
#endif
  return log_mel_baseline();
}

int32_t run(const reserve_log_mel* problem, Range* range, int32_t threads, int32_t isa) noexcept {
  if (problem == nullptr) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  if (threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK) return status;
  if (range != nullptr && p.out_dtype != RESERVE_FLOAT32) return RESERVE_INVALID_ARGUMENT;
  if (p.clips == 0 || p.frames == 0) return RESERVE_OK;
  if (!bands_are_valid(p) || !offsets_are_valid(p)) return RESERVE_INVALID_ARGUMENT;
  CpuTables tables{};
  if (has_fixed_plan(p)) {
    tables.fixed = twiddles_for(p.n_fft);
  } else {
    tables.mixed = mixed_plan(p.n_fft);
    if (tables.mixed == nullptr) return RESERVE_OUT_OF_MEMORY;
  }
  if (range != nullptr && !range->prepare(p.clips)) return RESERVE_OUT_OF_MEMORY;
  const int64_t useful = p.clips * p.frames / (least_samples_per_thread / p.n_fft);
  Work work(p, kernel_for(best_isa(isa)), tables, range, threads < useful ? threads : useful);
  on_threads(work.parts.count(), [&work] { work.run(); });
  // Every turn taken was finished, so rows are missing only if no thread had memory.
  return work.done == work.rows ? RESERVE_OK : RESERVE_OUT_OF_MEMORY;
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_log_mel_cpu(const reserve_log_mel* problem, int32_t threads, int32_t isa) {
  return reserve::run(problem, nullptr, threads, isa);
}

extern "C" int32_t reserve_log_mel_limited_cpu(const reserve_log_mel* problem, float below, int32_t threads,
                                               int32_t isa) {
  if (below != below) return RESERVE_INVALID_ARGUMENT;
  reserve::Range range(below);
  return reserve::run(problem, &range, threads, isa);
}
