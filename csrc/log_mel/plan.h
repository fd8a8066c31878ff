// How the Fourier transform of a frame is split: n_fft real samples are one complex transform of half the size, done in
// three passes of small transforms. Shared by the CPU and the CUDA code.
#pragma once

#include <cstdint>

#include "host_device.h"

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

  // Which r = q2 + second * q3 lies at a place of a block, and the other way round. Places p and block - 1 - p hold
  // frequencies that mirror one another, as r and block - 1 - r do.
  static RESERVE_HD constexpr int r_at(int place) { return place / third + second * (place % third); }
  static RESERVE_HD constexpr int place_of(int r) { return (r % second) * third + r / second; }
};

using Plan1536 = FourierPlan<12, 8, 8>;
using Plan3072 = FourierPlan<12, 8, 16>;
using Plan4608 = FourierPlan<12, 12, 16>;

// On the GPU the pair is aligned, so that one access moves both.
template <typename V>
struct alignas(sizeof(V) == sizeof(float) ? 2 * sizeof(V) : alignof(V)) Complex {
  V re, im;
};

// Constants of a plan; exp(-2 pi i / n) is stored as the cosine and the sine of 2 pi / n.
struct Twiddles {
  const Complex<float>* first;   // [first - 1][block]: w_size^(j q) for q from 1 on
  const Complex<float>* second;  // [second - 1][third]: w_block^(j q) for q from 1 on
  const Complex<float>* real;    // [first][block]: w_n_fft^(q1 + first r) by place, which unpack the real transform
};

// How many floats the three tables of a plan are, one after another.
template <typename Plan>
constexpr int twiddle_floats = 2 * ((Plan::first - 1) * Plan::block + (Plan::second - 1) * Plan::third + Plan::size);

// The three tables in one array of `twiddle_floats`, aligned to 8 bytes.
template <typename Plan>
RESERVE_HD Twiddles twiddles_in(const float* all) {
  const auto* first = reinterpret_cast<const Complex<float>*>(all);
  const auto* second = first + (Plan::first - 1) * Plan::block;
  return {first, second, second + (Plan::second - 1) * Plan::third};
}

}  // namespace reserve
