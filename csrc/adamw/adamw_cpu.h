// What the instruction-set specific translation units offer to adamw_cpu.cpp.
#pragma once

#include <cstdint>

#include "reserve_native.h"

namespace reserve {

// Updates the numbers [begin, end) of a tensor. `random`, if not null, is the tensor's for stochastic rounding.
using AdamwFunction = void(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor,
                           const reserve_adamw_random* random, int64_t begin, int64_t end);

AdamwFunction adamw_baseline;
#if defined(RESERVE_X86)
AdamwFunction adamw_avx2, adamw_avx512;
#endif

}  // namespace reserve
