// The CUDA block code on the CPU, one thread after another: they share nothing.
#include "adamw_block.h"
#include "adamw_problem.h"

extern "C" int32_t reserve_adamw_emulated(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                          int64_t count) {
  using namespace reserve;
  const int32_t status = check_adamw(settings, tensors, count);
  if (status != RESERVE_OK) return status;
  return in_launches(*settings, tensors, count, [](const AdamwLaunch& launch, uint32_t blocks) -> int32_t {
    if (blocks == 0) return RESERVE_CUDA_ERROR;  // as CUDA says of a grid without blocks
    for (uint32_t block = 0; block < blocks; ++block)
      for (int thread = 0; thread < adamw_threads; ++thread)
        if (launch.settings.moments_dtype == RESERVE_BFLOAT16)
          adamw_block<uint16_t>(launch, block, thread);
        else
          adamw_block<float>(launch, block, thread);
    return RESERVE_OK;
  });
}
