// Log-mel on the GPU: one kernel from samples to rows. What a thread does is in log_mel_block.h.
#include <cuda_runtime.h>

#include "cuda_status.h"
#include "block_problem.h"
#include "log_mel_block.h"
#include "log_mel_mixed_block.h"

namespace reserve {
// Named: nvcc would put a number that differs between builds into the names of an unnamed one.
namespace log_mel_on_gpu {

template <typename Plan>
__global__ void __launch_bounds__(BlockLayout<Plan>::threads, Plan::size <= 768 ? 3 : 2)
    log_mel_kernel(const __grid_constant__ reserve_log_mel problem) {
  extern __shared__ __align__(16) float shared[];
  const Block<Plan> block(problem, shared, blockIdx.x);
  const int thread = threadIdx.x, frame = thread / warp_size, lane = thread % warp_size;
  if (block.any_frame()) {
    const Twiddles twiddles = twiddles_in<Plan>(problem.twiddles);
    block.stage(thread);
    __syncthreads();
    if (block.has(frame)) {
      block.first_pass(frame, lane, twiddles.first);
      __syncwarp();
      block.second_pass(frame, lane, twiddles.second);
      __syncwarp();
      block.third_pass(frame, lane);
      __syncwarp();
      block.powers(frame, lane, twiddles.real);
    }
    __syncthreads();
    block.bands(thread);
    __syncthreads();
  }
  block.write(frame, lane);
}

__global__ void __launch_bounds__(8 * warp_size, 2) log_mel_mixed_kernel(const __grid_constant__ MixedProblem problem) {
  extern __shared__ __align__(16) float shared[];
  const MixedBlock block(problem, shared, blockIdx.x);
  const int thread = threadIdx.x, frame = thread / warp_size, lane = thread % warp_size;
  if (block.any_frame()) {
    block.stage(thread);
    __syncthreads();
    if (block.has(frame)) {
      if (block.problem.remove_dc) {
        block.sum_samples(frame, lane);
        __syncwarp();
      }
      block.window(frame, lane);
      __syncwarp();
      RESERVE_NO_UNROLL
      for (int pass = 0; pass < block.plan.count; ++pass) {
        block.pass(frame, lane, pass);
        __syncwarp();
      }
      block.powers(frame, lane);
    }
    __syncthreads();
    block.bands(thread);
    __syncthreads();
  }
  block.write(thread);
}

int32_t launch(const void* kernel, void* argument, uint32_t blocks, int threads, int64_t shared_floats,
               cudaStream_t stream) {
  if (blocks == 0) return RESERVE_UNSUPPORTED;
  const int64_t bytes = shared_floats * static_cast<int64_t>(sizeof(float));
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess && bytes > most) return RESERVE_UNSUPPORTED;
  // The limit belongs to the kernel, not to the launch. Set to the device's own it is the same in every call, so host
  // threads with different hops cannot lower it under one another's launches.
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  if (error == cudaSuccess) {
    void* arguments[] = {argument};
    error = cudaLaunchKernel(kernel, dim3(blocks), dim3(threads), arguments, static_cast<size_t>(bytes), stream);
  }
  return status_of(error);
}

template <typename Plan>
int32_t launch_fixed(const reserve_log_mel& problem, cudaStream_t stream) {
  using Layout = BlockLayout<Plan>;
  return launch(reinterpret_cast<const void*>(log_mel_kernel<Plan>), const_cast<reserve_log_mel*>(&problem),
                block_count(problem, Layout::frames), Layout::threads,
                Layout::shared_floats(problem.hop_length, problem.n_mels), stream);
}

int32_t launch_mixed(const reserve_log_mel& problem, cudaStream_t stream) {
  const MixedPlan* plan = mixed_plan(problem.n_fft);
  if (plan == nullptr) return RESERVE_OUT_OF_MEMORY;
  MixedProblem mixed(problem, *plan);
  const MixedLayout& layout = mixed.layout;
  return launch(reinterpret_cast<const void*>(log_mel_mixed_kernel), &mixed, block_count(problem, layout.frames),
                layout.frames * warp_size, layout.shared_floats(), stream);
}

}  // namespace log_mel_on_gpu
using namespace log_mel_on_gpu;
}  // namespace reserve

extern "C" int32_t reserve_has_cuda(void) { return 1; }

extern "C" int32_t reserve_log_mel_cuda(const reserve_log_mel* problem, void* stream) {
  using namespace reserve;
  if (problem == nullptr) return RESERVE_INVALID_ARGUMENT;
  const int32_t status = check_block_problem(*problem);
  if (status != RESERVE_OK || problem->clips == 0 || problem->frames == 0) return status;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (!has_fixed_block(*problem)) return launch_mixed(*problem, on);
  switch (problem->n_fft) {
    case Plan1536::n_fft: return launch_fixed<Plan1536>(*problem, on);
    case Plan3072::n_fft: return launch_fixed<Plan3072>(*problem, on);
    default: return launch_fixed<Plan4608>(*problem, on);
  }
}
