// AdamW over an array, compiled and vectorised once for each instruction set: RESERVE_KERNEL is the function's name. All
// functions of this file and its includes are inlined or local, so that instruction sets share none.
#include "adamw_cpu.h"
#include "adamw_number.h"

namespace reserve {
namespace {

// Numbers [begin, end), whose indices in the whole tensor begin with `index` and have the same upper 32 bits. Not
// inlined: registers are then allocated for one loop, with fewer spills.
template <typename Moment, bool has_start>
__attribute__((noinline)) void update(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor,
                                      [[maybe_unused]] RandomKey key, [[maybe_unused]] uint32_t index, int64_t begin,
                                      int64_t end) {
  const reserve_adamw_settings s = settings;
  float* __restrict weight = tensor.weight;
  const float* __restrict gradient = tensor.gradient;
  const uint16_t* __restrict start = tensor.start;
  Moment* __restrict m = static_cast<Moment*>(tensor.m);
  Moment* __restrict v = static_cast<Moment*>(tensor.v);
  for (int64_t i = begin; i < end; ++i) {
    const float towards = has_start ? from_bfloat16(start[i]) : 0.0f;
    uint32_t random = 0;
    if constexpr (is_stochastic<Moment>) random = random_bits(key, index + static_cast<uint32_t>(i - begin));
    weight[i] = adamw_number(s, weight[i], gradient[i], towards, m + i, v + i, random);
  }
}

template <bool has_start>
void update_stochastic(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor,
                       const reserve_adamw_random& random, int64_t begin, int64_t end) {
  while (begin < end) {
    const uint64_t index = random.first + static_cast<uint64_t>(begin);
    const int64_t left = (int64_t{1} << 32) - static_cast<uint32_t>(index);  // with the same upper bits
    const int64_t stop = end - begin < left ? end : begin + left;
    const RandomKey key = random_key(random, index);
    update<StochasticBfloat16, has_start>(settings, tensor, key, static_cast<uint32_t>(index), begin, stop);
    begin = stop;
  }
}

template <bool has_start>
void update_any(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor,
                const reserve_adamw_random* random, int64_t begin, int64_t end) {
  if (random != nullptr)
    update_stochastic<has_start>(settings, tensor, *random, begin, end);
  else if (settings.moments_dtype == RESERVE_BFLOAT16)
    update<uint16_t, has_start>(settings, tensor, {}, 0, begin, end);
  else
    update<float, has_start>(settings, tensor, {}, 0, begin, end);
}

}  // namespace

void RESERVE_KERNEL(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor,
                    const reserve_adamw_random* random, int64_t begin, int64_t end) {
  if (tensor.start == nullptr)
    update_any<false>(settings, tensor, random, begin, end);
  else
    update_any<true>(settings, tensor, random, begin, end);
}

}  // namespace reserve
