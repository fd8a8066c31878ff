// The CPU entry point of log-mel: checks, choice of the instruction set, threads.
#include <atomic>

#include "cpu_isa.h"
#include "cpu_threads.h"
#include "log_mel_cpu.h"
#include "problem.h"
#include "reserve_native.h"
#include "scratch_pool.h"
#include "twiddles.h"

namespace reserve {
namespace {

// A thread costs tens of microseconds to start: each gets at least this many samples of frames (about 0.1 ms).
constexpr int64_t least_samples_per_thread = 256 * 1536;
// Rows that a thread takes at a time: a multiple of every lane count, small enough that threads end together.
constexpr int64_t rows_per_turn = 64;

CpuKernel kernel_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return log_mel_avx512();
  if (isa == RESERVE_ISA_AVX2) return log_mel_avx2();
#endif
  return log_mel_baseline();
}

ScratchPool scratch_pool;

struct Work {
  const reserve_log_mel& problem;
  CpuKernel kernel;
  CpuTables tables;
  int64_t rows;
  std::atomic<int64_t> next{0};

  // Takes turns until none is left. Without memory it takes none: the other threads do the work.
  void run() noexcept {
    void* scratch = scratch_pool.take(kernel.scratch_bytes(problem, tables));
    if (scratch == nullptr) return;
    for (int64_t begin = next.fetch_add(rows_per_turn); begin < rows; begin = next.fetch_add(rows_per_turn)) {
      const int64_t end = begin + rows_per_turn < rows ? begin + rows_per_turn : rows;
      kernel.rows(problem, tables, begin, end, scratch);
    }
    scratch_pool.give_back(scratch);
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

bool offsets_are_valid(const reserve_log_mel& p) noexcept {
  if (p.clip_offsets[0] < 0 || p.clip_offsets[p.clips] > p.samples) return false;
  for (int64_t c = 0; c < p.clips; ++c)
    if (p.clip_offsets[c + 1] < p.clip_offsets[c]) return false;
  return true;
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_log_mel_cpu(const reserve_log_mel* problem, int32_t threads, int32_t isa) {
  using namespace reserve;
  if (problem == nullptr) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  if (threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK || p.clips == 0 || p.frames == 0) return status;
  if (!bands_are_valid(p) || (p.clip_offsets != nullptr && !offsets_are_valid(p))) return RESERVE_INVALID_ARGUMENT;
  CpuTables tables{};
  if (has_fixed_plan(p)) {
    tables.fixed = twiddles_for(p.n_fft);
  } else {
    tables.mixed = mixed_plan(p.n_fft);
    if (tables.mixed == nullptr) return RESERVE_OUT_OF_MEMORY;
  }
  Work work{p, kernel_for(best_isa(isa)), tables, p.clips * p.frames};
  const int64_t useful = work.rows / (least_samples_per_thread / p.n_fft);
  on_threads(threads < useful ? threads : useful, [&work] { work.run(); });
  // Every turn taken was finished, so rows are missing only if no thread had memory.
  return work.next < work.rows ? RESERVE_OUT_OF_MEMORY : RESERVE_OK;
}
