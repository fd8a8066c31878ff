// How the Fourier transform of a frame is split: n_fft real samples are one complex transform of half the size, done in
// three passes of small transforms. Shared by the CPU and the CUDA code.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define RESERVE_HD __host__ __device__ __forceinline__
#else
#define RESERVE_HD inline __attribute__((always_inline))
#endif

namespace reserve {

// Complex transform of `size` = first * second * third points by decimation in frequency. Pass one leaves `first`
// independent blocks of second * third points; frequency k = q1 + first * (q2 + second * q3) ends up in block q1 at
// place q2 * third + q3.
template <int first_, int second_, int third_>
struct FourierPlan {
  static constexpr int first = first_;
  static constexpr int second = second_;
  static constexpr int third = third_;
  static constexpr int block = second * third;
  static constexpr int size = first * block;
  static constexpr int n_fft = 2 * size;
  static constexpr int bins = size + 1;

  // Place within its block of the frequency q1 + first * r.
  static RESERVE_HD constexpr int place(int r) { return (r % second) * third + r / second; }
};

using Plan1536 = FourierPlan<12, 8, 8>;
using Plan3072 = FourierPlan<12, 8, 16>;
using Plan4608 = FourierPlan<12, 12, 16>;

// Constants of a plan, cosine and sine side by side; w_n = exp(-2 pi i / n) is stored as (cos, sin) of 2 pi / n.
struct Twiddles {
  const float* first;   // [block][first - 1][2]: w_size^(j q)
  const float* second;  // [third][second - 1][2]: w_block^(j q)
  const float* real;    // [first][block][2]: w_n_fft^(q1 + first r), which unpack the real transform
};

}  // namespace reserve
