// What the instruction-set specific translation units offer to contrastive_cpu.cpp.
#pragma once

#include <cstdint>

#include "reserve_native.h"

namespace reserve {

struct ContrastiveKernels {
  // Rows [begin, end) of the problem.
  void (*scale)(const reserve_contrastive_scale& problem, int64_t begin, int64_t end);

  // Rows [begin, end), at most contrastive_strip of them. Writes the sums of exp of their columns to `sums` [columns];
  // unless logits are bounded, with the maxima to `maxima` subtracted.
  void (*logsumexp)(const reserve_contrastive_logsumexp& problem, int64_t begin, int64_t end, float* maxima,
                    float* sums);

  // Merges what the strips gave for each column, [strips, columns], into the problem's column_max and column_sum.
  void (*merge)(const reserve_contrastive_logsumexp& problem, int64_t strips, const float* maxima, const float* sums);

  // factors[j] = gradients[j] exp(-logsumexps[j])
  void (*factors)(const float* gradients, const float* logsumexps, float* factors, int64_t count);

  // Rows [begin, end) of the problem. `factors` [columns] are those of its columns if logits are bounded.
  void (*weights)(const reserve_contrastive_weights& problem, const float* factors, int64_t begin, int64_t end);
};

// Rows that a thread takes at a time. It sums their columns in float, and the strips in double.
constexpr int64_t contrastive_strip = 32;

extern const ContrastiveKernels contrastive_baseline;
#if defined(RESERVE_X86)
extern const ContrastiveKernels contrastive_avx2;
extern const ContrastiveKernels contrastive_avx512;
#endif

}  // namespace reserve
