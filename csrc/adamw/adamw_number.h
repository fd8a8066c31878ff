// One number's step of AdamW, the same on the CPU and the GPU: what kernels/adamw/reference.py writes in PyTorch.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "adamw_moments.h"
#include "adamw_stochastic.h"
#include "reserve_native.h"

namespace reserve {

// a / (sqrt(b) + c), on the GPU to a few units in the last place: the exact root and quotient would call functions for 0
// and tiny numbers.
RESERVE_HD float quotient_by_root(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(b));
  return __fdividef(a, root + c);
#else
  return a / (sqrtf(b) + c);
#endif
}

// The clamp of finite gradients. It keeps a second moment, a mean of squares, finite (in bfloat16 its cube): a stored
// infinity would stay forever and make the weight NaN.
RESERVE_HD float largest_gradient(const float* /*v*/) { return 0x1p63f; }
RESERVE_HD float largest_gradient(const void* /*v*/) { return 0x1p21f; }

// The new weight; the moments are updated in place. `start` is what decay pulls towards; `random` is 32 random bits for
// stochastic rounding.
template <typename Moment>
RESERVE_HD float adamw_number(const reserve_adamw_settings& s, float weight, float gradient, float start, Moment* m_at,
                              Moment* v_at, uint32_t random) {
  const float largest = largest_gradient(v_at);
  const float size = fabsf(gradient);
  const float g = size <= FLT_MAX ? copysignf(size < largest ? size : largest, gradient) : 0.0f;
  const float m = s.beta1 * read_first(*m_at) + s.rest1 * g;
  const float v = s.beta2 * read_second(*v_at) + s.rest2 * (g * g);
  write_moments(m_at, m, v_at, v, random);
  const float update = quotient_by_root(m * s.m_scale, v * s.v_scale, s.eps) + s.weight_decay * (weight - start);
  return weight - s.learning_rate * update;
}

}  // namespace reserve
