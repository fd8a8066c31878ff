// The CPU entry points of contrastive_loss: checks, choice of the instruction set, threads.
#include "contrastive_cpu.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "cpu_isa.h"
#include "cpu_threads.h"

namespace reserve {
namespace {

// A thread costs tens of microseconds to start: each gets at least this many numbers (about 0.1 ms).
constexpr int64_t least_numbers_per_thread = 1 << 18;

const ContrastiveKernels& kernels_for([[maybe_unused]] int32_t isa) noexcept {
#if defined(RESERVE_X86)
  if (isa == RESERVE_ISA_AVX512) return contrastive_avx512;
  if (isa == RESERVE_ISA_AVX2) return contrastive_avx2;
#endif
  return contrastive_baseline;
}

bool is_size(int64_t rows, int64_t columns) noexcept {
  return rows >= 0 && columns >= 0 && (rows == 0 || columns <= INT64_MAX / 4 / rows);
}

// Whether every row has its own column of the diagonal.
bool has_diagonal(int64_t first, int64_t rows, int64_t columns) noexcept {
  return first >= 0 && rows <= columns && first <= columns - rows;
}

bool is_valid(const reserve_contrastive_scale* p) noexcept {
  if (p == nullptr || !is_size(p->rows, p->dim)) return false;
  if (p->grad != nullptr && p->shares == nullptr && p->rows > 0) return false;
  return p->rows == 0 || p->dim == 0 || (p->x != nullptr && p->out != nullptr);
}

bool is_valid(const reserve_contrastive_logsumexp* p) noexcept {
  if (p == nullptr || !is_size(p->rows, p->columns)) return false;
  if (p->row_lse == nullptr && p->column_sum == nullptr) return false;
  if (!p->bounded && ((p->column_sum == nullptr) != (p->column_max == nullptr) || p->store)) return false;
  if (p->diagonal != nullptr && !has_diagonal(p->first, p->rows, p->columns)) return false;
  return p->rows == 0 || p->columns == 0 || p->logits != nullptr;
}

bool is_valid(const reserve_contrastive_weights* p) noexcept {
  if (p == nullptr || !is_size(p->rows, p->columns)) return false;
  if (p->row_grad == nullptr && p->column_grad == nullptr) return false;
  if ((p->row_grad == nullptr) != (p->row_lse == nullptr)) return false;
  if ((p->column_grad == nullptr) != (p->column_lse == nullptr)) return false;
  if (p->exponentiated && !p->bounded) return false;
  if (p->diagonal_grad != nullptr && !has_diagonal(p->first, p->rows, p->columns)) return false;
  return p->rows == 0 || p->columns == 0 || (p->logits != nullptr && p->weights != nullptr);
}

// Calls run(strip, begin, end) for strips of rows. They do not depend on the number of threads, so neither does the
// order of a sum.
template <typename Run>
void each_strip(int64_t rows, int64_t columns, int64_t threads, const Run& run) {
  const int64_t strips = (rows + contrastive_strip - 1) / contrastive_strip;
  std::atomic<int64_t> next{0};
  on_threads(std::min({threads, strips, rows * columns / least_numbers_per_thread}), [&] {
    for (int64_t strip = next.fetch_add(1); strip < strips; strip = next.fetch_add(1))
      run(strip, strip * contrastive_strip, std::min((strip + 1) * contrastive_strip, rows));
  });
}

std::unique_ptr<float[]> scratch(int64_t count) {
  return std::unique_ptr<float[]>(new (std::nothrow) float[static_cast<size_t>(count)]);
}

template <typename Problem>
int32_t status_of(const Problem* problem, int32_t threads, int32_t isa) noexcept {
  if (!is_valid(problem) || threads < 1) return RESERVE_INVALID_ARGUMENT;
  return isa == RESERVE_ISA_AUTO || can_run(isa) ? RESERVE_OK : RESERVE_UNSUPPORTED;
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_contrastive_scale_cpu(const reserve_contrastive_scale* problem, int32_t threads,
                                                 int32_t isa) {
  using namespace reserve;
  if (const int32_t status = status_of(problem, threads, isa)) return status;
  const ContrastiveKernels& kernels = kernels_for(best_isa(isa));
  each_strip(problem->rows, problem->dim, threads,
             [&](int64_t, int64_t begin, int64_t end) { kernels.scale(*problem, begin, end); });
  return RESERVE_OK;
}

extern "C" int32_t reserve_contrastive_logsumexp_cpu(const reserve_contrastive_logsumexp* problem, int32_t threads,
                                                     int32_t isa) {
  using namespace reserve;
  if (const int32_t status = status_of(problem, threads, isa)) return status;
  const ContrastiveKernels& kernels = kernels_for(best_isa(isa));
  const reserve_contrastive_logsumexp& p = *problem;
  const int64_t strips = (p.rows + contrastive_strip - 1) / contrastive_strip;
  const auto sums = scratch(strips * p.columns), maxima = scratch(p.bounded ? 0 : strips * p.columns);
  if (sums == nullptr || maxima == nullptr) return RESERVE_OUT_OF_MEMORY;
  each_strip(p.rows, p.columns, threads, [&](int64_t strip, int64_t begin, int64_t end) {
    kernels.logsumexp(p, begin, end, p.bounded ? nullptr : maxima.get() + strip * p.columns,
                      sums.get() + strip * p.columns);
  });
  if (p.column_sum != nullptr) kernels.merge(p, strips, maxima.get(), sums.get());
  return RESERVE_OK;
}

extern "C" int32_t reserve_contrastive_weights_cpu(const reserve_contrastive_weights* problem, int32_t threads,
                                                   int32_t isa) {
  using namespace reserve;
  if (const int32_t status = status_of(problem, threads, isa)) return status;
  const ContrastiveKernels& kernels = kernels_for(best_isa(isa));
  const reserve_contrastive_weights& p = *problem;
  const bool has_factors = p.bounded && p.column_grad != nullptr;
  const auto factors = scratch(has_factors ? p.columns : 0);
  if (factors == nullptr) return RESERVE_OUT_OF_MEMORY;
  if (has_factors) kernels.factors(p.column_grad, p.column_lse, factors.get(), p.columns);
  each_strip(p.rows, p.columns, threads,
             [&](int64_t, int64_t begin, int64_t end) { kernels.weights(p, factors.get(), begin, end); });
  return RESERVE_OK;
}
