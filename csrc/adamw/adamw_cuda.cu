// AdamW on the GPU: one launch for dozens of tensors. What a thread does is in adamw_block.h.
#include <cuda_runtime.h>

#include "adamw_block.h"
#include "adamw_problem.h"
#include "cuda_status.h"

namespace reserve {
// Named: nvcc would put a number that differs between builds into the names of an unnamed one.
namespace adamw_on_gpu {

template <typename Moment>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(const __grid_constant__ AdamwLaunch<Moment> launch) {
  adamw_block(launch, blockIdx.x, threadIdx.x);
}

template <typename Moment>
int32_t launch_all(const reserve_adamw_settings& settings, const reserve_adamw_tensor* tensors,
                   const reserve_adamw_random* random, int64_t count, cudaStream_t stream) noexcept {
  const void* const kernel = reinterpret_cast<const void*>(adamw_kernel<Moment>);
  return in_launches<Moment>(settings, tensors, random, count,
                             [=](const AdamwLaunch<Moment>& launch, uint32_t blocks) {
                               void* arguments[] = {const_cast<AdamwLaunch<Moment>*>(&launch)};
                               return status_of(
                                   cudaLaunchKernel(kernel, dim3(blocks), dim3(adamw_threads), arguments, 0, stream));
                             });
}

}  // namespace adamw_on_gpu
using namespace adamw_on_gpu;
}  // namespace reserve

extern "C" int32_t reserve_adamw_cuda(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                      const reserve_adamw_random* random, int64_t count, void* stream) {
  using namespace reserve;
  const int32_t status = check_adamw(settings, tensors, random, count);
  if (status != RESERVE_OK) return status;
  const auto on = static_cast<cudaStream_t>(stream);
  if (random != nullptr) return launch_all<StochasticBfloat16>(*settings, tensors, random, count, on);
  if (settings->moments_dtype == RESERVE_BFLOAT16) return launch_all<uint16_t>(*settings, tensors, random, count, on);
  return launch_all<float>(*settings, tensors, random, count, on);
}
