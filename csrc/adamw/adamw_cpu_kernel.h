// AdamW over an array, compiled and vectorised once for each instruction set: RESERVE_KERNEL is the function's name. All
// functions of this file and its includes are inlined or local, so that instruction sets share none.
#include "adamw_cpu.h"
#include "adamw_number.h"

namespace reserve {
namespace {

template <typename Moment, bool has_start>
void update(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor, int64_t begin, int64_t end) {
  const reserve_adamw_settings s = settings;
  float* __restrict weight = tensor.weight;
  const float* __restrict gradient = tensor.gradient;
  const uint16_t* __restrict start = tensor.start;
  Moment* __restrict m = static_cast<Moment*>(tensor.m);
  Moment* __restrict v = static_cast<Moment*>(tensor.v);
  for (int64_t i = begin; i < end; ++i) {
    const float towards = has_start ? from_bfloat16(start[i]) : 0.0f;
    weight[i] = adamw_number(s, weight[i], gradient[i], towards, m + i, v + i);
  }
}

}  // namespace

void RESERVE_KERNEL(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor, int64_t begin,
                    int64_t end) {
  const bool half = settings.moments_dtype == RESERVE_BFLOAT16;
  if (tensor.start == nullptr)
    half ? update<uint16_t, false>(settings, tensor, begin, end) : update<float, false>(settings, tensor, begin, end);
  else
    half ? update<uint16_t, true>(settings, tensor, begin, end) : update<float, true>(settings, tensor, begin, end);
}

}  // namespace reserve
