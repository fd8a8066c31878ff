// The tables and the shared memory that the CUDA blocks need; also in builds without CUDA.
#include <cstring>

#include "block_problem.h"
#include "log_mel_block.h"
#include "reserve_native.h"
#include "twiddles.h"

namespace reserve {
namespace {

// `call` with the fixed plan of a problem that has_fixed_block.
template <typename Call>
auto with_fixed_plan(const reserve_log_mel& p, const Call& call) noexcept {
  switch (p.n_fft) {
    case Plan1536::n_fft: return call(Plan1536{});
    case Plan3072::n_fft: return call(Plan3072{});
    default: return call(Plan4608{});
  }
}

}  // namespace

}  // namespace reserve

extern "C" int32_t reserve_log_mel_table_sizes(const reserve_log_mel* problem, int32_t* twiddles, int32_t* places) {
  using namespace reserve;
  if (problem == nullptr || twiddles == nullptr || places == nullptr) return RESERVE_INVALID_ARGUMENT;
  const int32_t status = check_numbers(*problem);
  if (status != RESERVE_OK) return status;
  if (has_fixed_block(*problem)) {
    *twiddles = with_fixed_plan(*problem, [](auto plan) { return int32_t{twiddle_floats<decltype(plan)>}; });
  } else {
    const MixedPlan* plan = mixed_plan(problem->n_fft);
    if (plan == nullptr) return RESERVE_OUT_OF_MEMORY;
    *twiddles = 2 * plan->block_passes.twiddles;
  }
  *places = problem->n_fft / 2 + 1;
  return RESERVE_OK;
}

extern "C" int32_t reserve_log_mel_tables(const reserve_log_mel* problem, float* twiddles, int32_t* places) {
  using namespace reserve;
  int32_t floats = 0, bins = 0;
  const int32_t status = reserve_log_mel_table_sizes(problem, &floats, &bins);
  if (status != RESERVE_OK) return status;
  if (twiddles == nullptr || places == nullptr) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  if (has_fixed_block(p)) {
    std::memcpy(twiddles, twiddle_tables(p.n_fft), static_cast<size_t>(floats) * sizeof(float));
    with_fixed_plan(p, [&](auto plan) {
      for (int bin = 0; bin < bins; ++bin) places[bin] = BlockLayout<decltype(plan)>::power_of(bin);
    });
    return RESERVE_OK;
  }
  const MixedPasses& passes = mixed_plan(p.n_fft)->block_passes;
  fill_twiddles(passes, TwiddleOrder::by_output, reinterpret_cast<Complex<float>*>(twiddles));
  // In place of the real part, except that the last bin of an even n_fft takes the imaginary part of the first.
  for (int bin = 0; bin < bins; ++bin)
    places[bin] = bin == passes.size ? 1 : 2 * MixedLayout::padded(place_of(passes, bin, 0));
  return RESERVE_OK;
}

extern "C" int32_t reserve_log_mel_cuda_shared_bytes(const reserve_log_mel* problem, int64_t* bytes) {
  using namespace reserve;
  if (problem == nullptr || bytes == nullptr) return RESERVE_INVALID_ARGUMENT;
  const reserve_log_mel& p = *problem;
  const int32_t status = check_numbers(p);
  if (status != RESERVE_OK) return status;
  if (p.n_mels > 1024) return RESERVE_UNSUPPORTED;
  const auto fixed_floats = [&p](auto plan) {
    return BlockLayout<decltype(plan)>::shared_floats(p.hop_length, p.n_mels);
  };
  const int64_t floats = has_fixed_block(p) ? with_fixed_plan(p, fixed_floats) : MixedLayout(p).shared_floats();
  *bytes = floats * static_cast<int64_t>(sizeof(float));
  return RESERVE_OK;
}
