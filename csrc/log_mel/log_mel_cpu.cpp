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

// A thread costs tens of microseconds to start: each gets at least this many samples of frames, some 0.08 ms.
constexpr int64_t least_samples_per_thread = 96 * 1536;
// Rows that a thread takes at a time: a multiple of every lane count, few enough that threads end together.
int64_t rows_per_turn(const reserve_log_mel& p) noexcept { return p.n_fft < 1024 ? 64 : 16; }

ScratchPool scratch_pool;

// The rows of a problem, a part for each thread, so that each reads and writes memory from front to back. Who is done
// helps the others.
struct Work {
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const reserve_log_mel& problem;
  CpuKernel kernel;
  CpuTables tables;
  int64_t count;  // parts
  int64_t turn;   // rows taken at a time
  Part parts[most_threads];
  std::atomic<int64_t> arrived{0};

  Work(const reserve_log_mel& p, CpuKernel k, CpuTables t, int64_t threads) noexcept
      : problem(p),
        kernel(k),
        tables(t),
        count(threads < 1 ? 1 : threads < most_threads ? threads : most_threads),
        turn(rows_per_turn(p)) {
    const int64_t rows = p.clips * p.frames, turns = (rows + turn - 1) / turn;
    int64_t begin = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t end = begin + (turns / count + (i < turns % count ? 1 : 0)) * turn;
      parts[i].next = begin;
      parts[i].end = end < rows ? end : rows;  // only the last turn of all may be short, and later parts empty
      begin = end;
    }
  }

  // Takes turns until none is left. Without memory it takes none: the other threads do the work.
  void run() noexcept {
    void* scratch = scratch_pool.take(kernel.scratch_bytes(problem, tables));
    if (scratch == nullptr) return;
    const int64_t first = arrived.fetch_add(1);
    for (int64_t i = 0; i < count; ++i) run_part(parts[(first + i) % count], scratch);
    scratch_pool.give_back(scratch);
  }

  void run_part(Part& part, void* scratch) noexcept {
    for (int64_t begin = part.next.fetch_add(turn); begin < part.end; begin = part.next.fetch_add(turn)) {
      const int64_t end = begin + turn < part.end ? begin + turn : part.end;
      kernel.rows(problem, tables, begin, end, scratch);
    }
  }

  // Every turn taken was finished, so rows are missing only if no thread had memory.
  bool is_done() const noexcept {
    for (int64_t i = 0; i < count; ++i)
      if (parts[i].next < parts[i].end) return false;
    return true;
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

}  // namespace

CpuKernel log_mel_kernel([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return log_mel_avx512();
  if (isa == RESERVE_ISA_AVX2) return log_mel_avx2();
#endif
  return log_mel_baseline();
}

}  // namespace reserve

extern "C" int32_t reserve_log_mel_cpu(const reserve_log_mel* problem, int32_t threads, int32_t isa) {
  using namespace reserve;
  if (problem == nullptr) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  if (threads < 1) return RESERVE_INVALID_ARGUMENT;
  if (isa != RESERVE_ISA_AUTO && !can_run(isa)) return RESERVE_UNSUPPORTED;
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK || p.clips == 0 || p.frames == 0) return status;
  if (!bands_are_valid(p) || !offsets_are_valid(p)) return RESERVE_INVALID_ARGUMENT;
  CpuTables tables{};
  if (has_fixed_plan(p)) {
    tables.fixed = twiddles_for(p.n_fft);
  } else {
    tables.mixed = mixed_plan(p.n_fft);
    if (tables.mixed == nullptr) return RESERVE_OUT_OF_MEMORY;
  }
  const int64_t useful = p.clips * p.frames / (least_samples_per_thread / p.n_fft);
  Work work(p, log_mel_kernel(best_isa(isa)), tables, threads < useful ? threads : useful);
  on_threads(work.count, [&work] { work.run(); });
  return work.is_done() ? RESERVE_OK : RESERVE_OUT_OF_MEMORY;
}
