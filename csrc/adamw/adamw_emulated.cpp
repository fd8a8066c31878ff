// The CUDA block code on the CPU, one thread after another: they share nothing.
#include "adamw_block.h"
#include "adamw_problem.h"

namespace reserve {
namespace {

template <typename Moment>
int32_t emulate(const reserve_adamw_settings& settings, const reserve_adamw_tensor* tensors,
                const reserve_adamw_random* random, int64_t count) noexcept {
  return in_launches<Moment>(settings, tensors, random, count,
                             [](const AdamwLaunch<Moment>& launch, uint32_t blocks) -> int32_t {
                               if (blocks == 0) return RESERVE_CUDA_ERROR;  // as CUDA says of a grid without blocks
                               for (uint32_t block = 0; block < blocks; ++block)
                                 for (int thread = 0; thread < adamw_threads; ++thread)
                                   adamw_block(launch, block, thread);
                               return RESERVE_OK;
                             });
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_adamw_emulated(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                          const reserve_adamw_random* random, int64_t count) {
  using namespace reserve;
  const int32_t status = check_adamw(settings, tensors, random, count);
  if (status != RESERVE_OK) return status;
  if (random != nullptr) return emulate<StochasticBfloat16>(*settings, tensors, random, count);
  if (settings->moments_dtype == RESERVE_BFLOAT16) return emulate<uint16_t>(*settings, tensors, random, count);
  return emulate<float>(*settings, tensors, random, count);
}
