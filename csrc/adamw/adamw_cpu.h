// What the instruction-set specific translation units offer to adamw_cpu.cpp.
#pragma once

#include <cstdint>

#include "reserve_native.h"

namespace reserve {

// Updates the numbers [begin, end) of a tensor.
using AdamwFunction = void (*)(const reserve_adamw_settings& settings, const reserve_adamw_tensor& tensor, int64_t begin,
                               int64_t end);

void adamw_baseline(const reserve_adamw_settings&, const reserve_adamw_tensor&, int64_t, int64_t);
#if defined(RESERVE_X86)
void adamw_avx2(const reserve_adamw_settings&, const reserve_adamw_tensor&, int64_t, int64_t);
void adamw_avx512(const reserve_adamw_settings&, const reserve_adamw_tensor&, int64_t, int64_t);
#endif

}  // namespace reserve
