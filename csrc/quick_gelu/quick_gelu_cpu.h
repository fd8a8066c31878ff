// What the instruction-set specific translation units offer to quick_gelu_cpu.cpp.
#pragma once

#include <cstdint>

#include "reserve_native.h"

namespace reserve {

// Computes the numbers [begin, end) of the rows one after another. With a gradient and a bias, `begin` and `end` are at
// row boundaries and the gradient of the bias is added to `sum` [features].
using QuickGeluFunction = void (*)(const reserve_quick_gelu& problem, int64_t begin, int64_t end, float* sum);

void quick_gelu_baseline(const reserve_quick_gelu&, int64_t, int64_t, float*);
#if defined(RESERVE_X86)
void quick_gelu_avx2(const reserve_quick_gelu&, int64_t, int64_t, float*);
void quick_gelu_avx512(const reserve_quick_gelu&, int64_t, int64_t, float*);
#endif

}  // namespace reserve
