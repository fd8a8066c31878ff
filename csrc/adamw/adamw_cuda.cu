// AdamW on the GPU: one kernel for up to 72 tensors. What a thread does is in adamw_block.h.
#include <cuda_runtime.h>

#include "adamw_block.h"
#include "adamw_problem.h"
#include "cuda_status.h"

namespace reserve {
namespace {

template <typename Moment>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(const __grid_constant__ AdamwLaunch launch) {
  adamw_block<Moment>(launch, blockIdx.x, threadIdx.x);
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_adamw_cuda(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                      int64_t count, void* stream) {
  using namespace reserve;
  const int32_t status = check_adamw(settings, tensors, count);
  if (status != RESERVE_OK) return status;
  const void* kernel = settings->moments_dtype == RESERVE_BFLOAT16
                           ? reinterpret_cast<const void*>(adamw_kernel<uint16_t>)
                           : reinterpret_cast<const void*>(adamw_kernel<float>);
  return in_launches(*settings, tensors, count, [=](const AdamwLaunch& launch, uint32_t blocks) {
    void* arguments[] = {const_cast<AdamwLaunch*>(&launch)};
    return status_of(cudaLaunchKernel(kernel, dim3(blocks), dim3(adamw_threads), arguments, 0,
                                      static_cast<cudaStream_t>(stream)));
  });
}
