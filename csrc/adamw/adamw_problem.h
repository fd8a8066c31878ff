// What every AdamW entry point checks.
#pragma once

#include "reserve_native.h"

namespace reserve {

inline int32_t check_adamw(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                           const reserve_adamw_random* random, int64_t count) noexcept {
  if (settings == nullptr || count < 0 || (tensors == nullptr && count > 0)) return RESERVE_INVALID_ARGUMENT;
  const int32_t dtype = settings->moments_dtype;
  if (dtype != RESERVE_FLOAT32 && dtype != RESERVE_BFLOAT16) return RESERVE_INVALID_ARGUMENT;
  if (random != nullptr && dtype != RESERVE_BFLOAT16) return RESERVE_INVALID_ARGUMENT;
  for (int64_t i = 0; i < count; ++i) {
    const reserve_adamw_tensor& t = tensors[i];
    if (t.count < 0) return RESERVE_INVALID_ARGUMENT;
    if (t.count > 0 && (t.weight == nullptr || t.gradient == nullptr || t.m == nullptr || t.v == nullptr))
      return RESERVE_INVALID_ARGUMENT;
  }
  return RESERVE_OK;
}

}  // namespace reserve
