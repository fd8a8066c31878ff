// The CUDA block code on the CPU: each step for all threads before the next, which the barriers ask for at least.
#include <cstdlib>

#include "block_problem.h"
#include "log_mel_block.h"
#include "log_mel_mixed_block.h"

namespace reserve {
namespace {

// `block` for each block's index, with shared memory of `floats`.
template <typename RunBlock>
int32_t run_blocks(uint32_t blocks, int64_t floats, const RunBlock& block) {
  if (blocks == 0) return RESERVE_UNSUPPORTED;
  float* shared = static_cast<float*>(std::malloc(static_cast<size_t>(floats) * sizeof(float)));
  if (shared == nullptr) return RESERVE_OUT_OF_MEMORY;
  for (uint32_t index = 0; index < blocks; ++index) {
    // What a block does not write it must not read: NaN shows it.
    for (int64_t i = 0; i < floats; ++i) shared[i] = NAN;
    block(shared, index);
  }
  std::free(shared);
  return RESERVE_OK;
}

template <typename Plan>
void run_block(const Block<Plan>& block, const Twiddles& twiddles) {
  using Layout = BlockLayout<Plan>;
  const auto every_thread = [](auto step) {
    for (int thread = 0; thread < Layout::threads; ++thread) step(thread);
  };
  const auto every_lane = [&](auto step) {
    every_thread([&](int thread) { step(thread / warp_size, thread % warp_size); });
  };
  // Steps that a warp leaves out when its frame is not to be computed.
  const auto every_own_lane = [&](auto step) {
    every_lane([&](int frame, int lane) {
      if (block.has(frame)) step(frame, lane);
    });
  };
  if (block.any_frame()) {
    every_thread([&](int thread) { block.stage(thread); });
    every_own_lane([&](int frame, int lane) { block.first_pass(frame, lane, twiddles.first); });
    every_own_lane([&](int frame, int lane) { block.second_pass(frame, lane, twiddles.second); });
    every_own_lane([&](int frame, int lane) { block.third_pass(frame, lane); });
    every_own_lane([&](int frame, int lane) { block.powers(frame, lane, twiddles.real); });
    every_thread([&](int thread) { block.bands(thread); });
  }
  every_lane([&](int frame, int lane) { block.write(frame, lane); });
}

template <typename Plan>
int32_t run(const reserve_log_mel& problem) {
  using Layout = BlockLayout<Plan>;
  const int64_t floats = Layout::shared_floats(problem.hop_length, problem.n_mels);
  return run_blocks(block_count(problem, Layout::frames), floats, [&problem](float* shared, uint32_t index) {
    run_block(Block<Plan>(problem, shared, index), twiddles_in<Plan>(problem.twiddles));
  });
}

void run_mixed_block(const MixedBlock& block) {
  const auto every_thread = [&block](auto step) {
    for (int thread = 0; thread < block.threads(); ++thread) step(thread);
  };
  // Steps that a warp leaves out when its frame is not to be computed.
  const auto every_own_lane = [&](auto step) {
    every_thread([&](int thread) {
      if (block.has(thread / warp_size)) step(thread / warp_size, thread % warp_size);
    });
  };
  if (block.any_frame()) {
    every_thread([&](int thread) { block.stage(thread); });
    if (block.problem.remove_dc) every_own_lane([&](int frame, int lane) { block.sum_samples(frame, lane); });
    every_own_lane([&](int frame, int lane) { block.window(frame, lane); });
    for (int pass = 0; pass < block.plan.count; ++pass)
      every_own_lane([&](int frame, int lane) { block.pass(frame, lane, pass); });
    every_own_lane([&](int frame, int lane) { block.powers(frame, lane); });
    every_thread([&](int thread) { block.bands(thread); });
  }
  every_thread([&](int thread) { block.write(thread); });
}

int32_t run_mixed(const reserve_log_mel& problem) {
  const MixedPlan* plan = mixed_plan(problem.n_fft);
  if (plan == nullptr) return RESERVE_OUT_OF_MEMORY;
  const MixedProblem mixed(problem, *plan);
  return run_blocks(block_count(problem, mixed.layout.frames), mixed.layout.shared_floats(),
                    [&mixed](float* shared, uint32_t index) { run_mixed_block(MixedBlock(mixed, shared, index)); });
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_log_mel_emulated(const reserve_log_mel* problem) {
  using namespace reserve;
  if (problem == nullptr) return RESERVE_INVALID_ARGUMENT;
  const int32_t status = check_block_problem(*problem);
  if (status != RESERVE_OK || problem->clips == 0 || problem->frames == 0) return status;
  if (!has_fixed_block(*problem)) return run_mixed(*problem);
  switch (problem->n_fft) {
    case Plan1536::n_fft: return run<Plan1536>(*problem);
    case Plan3072::n_fft: return run<Plan3072>(*problem);
    default: return run<Plan4608>(*problem);
  }
}
