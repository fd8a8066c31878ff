// A Fourier transform of any size 2^a 3^b 5^c, split into passes at run time. Shared by the CPU and the CUDA code.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace reserve {

constexpr int most_points = 8192;
constexpr int most_passes = 12;

// A complex transform of `size` points by decimation in frequency, in place: pass p splits each of its blocks of
// radix[p] * block[p] numbers into radix[p] blocks of block[p], and turns their numbers by twiddles. An even n_fft takes
// half as many points, with even samples as real and odd ones as imaginary parts, and is unpacked at the end; an odd one
// takes n_fft points without imaginary parts.
struct MixedPasses {
  int32_t n_fft;
  int32_t size;
  int32_t count;
  int32_t radix[most_passes];
  int32_t block[most_passes];
  int32_t twiddle[most_passes];  // where the twiddles of a pass start: block * (radix - 1) of them
  int32_t turns;                 // where w_n_fft^k starts for k up to n_fft / 4, which unpacks an even n_fft
  int32_t twiddles;              // the number of all

  RESERVE_HD bool even() const { return n_fft % 2 == 0; }
  RESERVE_HD int bins() const { return n_fft / 2 + 1; }
};

// The place of frequency k after the passes, if the blocks of the first pass are `gap` numbers apart.
inline int place_of(const MixedPasses& passes, int k, int gap) noexcept {
  int place = 0;
  for (int p = 0; p < passes.count; ++p) {
    place += k % passes.radix[p] * (passes.block[p] + (p == 0 ? gap : 0));
    k /= passes.radix[p];
  }
  return place;
}

// How the twiddles of a pass lie: those of one butterfly side by side, or butterflies side by side.
enum class TwiddleOrder { by_butterfly, by_output };

bool is_mixed_size(int n_fft) noexcept;

void fill_twiddles(const MixedPasses& passes, TwiddleOrder order, Complex<float>* out) noexcept;

// An n_fft's passes on the CPU with their tables, and its passes in CUDA blocks.
struct MixedPlan {
  static constexpr int gap = 3;  // keeps blocks of a power of two off the same lines of the cache
  MixedPasses passes;
  MixedPasses block_passes;  // a thread's registers hold no larger radix than 8
  std::vector<Complex<float>> twiddles;
  std::vector<int32_t> places;  // [size]

  // Numbers from the start of a transform to its end.
  int64_t extent() const { return passes.size + (passes.count > 0 ? passes.radix[0] * gap : 0); }
};

// The plan of `n_fft`, for which is_mixed_size holds; made once per process and never freed. Null if out of memory.
const MixedPlan* mixed_plan(int n_fft) noexcept;

}  // namespace reserve
