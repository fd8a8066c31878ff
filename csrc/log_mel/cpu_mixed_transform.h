// The transform of frames of any size 2^a 3^b 5^c. Once per instruction set (vector.h).
#pragma once

#include "butterflies.h"
#include "cpu_frames.h"
#include "mixed_plan.h"

namespace reserve {
namespace RESERVE_ISA {

using C = Complex<Vector>;

// Where the next sample of all frames goes: pairs of them are complex numbers, or each is one if n_fft is odd. The blocks
// of the first pass are apart.
struct Writer {
  Vector* at;
  int per_block, left;
  bool even;

  Writer(const MixedPlan& plan, C* z) : at(&z[0].re), even(plan.passes.even()) {
    per_block = plan.passes.count == 0 ? INT32_MAX : plan.passes.block[0] * (even ? 2 : 1);
    left = per_block;
  }
  RESERVE_HD void put(Vector x) {
    *at++ = x;
    if (!even) *at++ = splat(0.0f);
    if (--left == 0) {
      left = per_block;
      at += 2 * MixedPlan::gap;
    }
  }
};

// The means of the rows' first `window_length` columns. Sums of differences from the first sample, so that the mean of a
// constant is the constant.
static Vector means(Rows rows, int window_length) {
  float sums[lanes][lanes];
  for (int lane = 0; lane < lanes; ++lane) {
    const float* from = rows.base + lane * rows.stride;
    const float first = from[0];
    Vector sum = splat(0.0f);
    int i = 0;
    for (; i + lanes <= window_length; i += lanes) sum += load(from + i) - first;
    store(sums[lane], sum);
    for (; i < window_length; ++i) sums[lane][i % lanes] += from[i] - first;
  }
  Vector total = splat(0.0f);
  for (int column = 0; column < lanes; column += 4) {
    Vector x[4];
    load_transposed({sums[0], lanes}, column, x);
    total += (x[0] + x[1]) + (x[2] + x[3]);
  }
  Vector first[4];
  load_transposed(rows, 0, first);
  return first[0] + total / static_cast<float>(window_length);
}

// The windowed samples of all frames, without their means and with pre-emphasis if so, and zeros up to n_fft.
template <bool filtered>
static void window_samples(const Frames& frames, const reserve_log_mel& problem, const MixedPlan& plan, C* z) {
  const int window_length = problem.window_length;
  const Vector mean = filtered && problem.remove_dc ? means(frames.rows, window_length) : splat(0.0f);
  Upcoming upcoming = frames.upcoming;
  const int64_t part = upcoming.part((window_length + 3) / 4);
  Writer writer(plan, z);
  Vector previous;
  const auto put = [&](Vector x, int i) {
    if constexpr (filtered) {
      const Vector level = x - mean;
      if (i == 0) previous = level;
      x = level - previous * problem.preemphasis;
      previous = level;
    }
    writer.put(x * problem.window[i]);
  };
  int i = 0;
  for (; i + 4 <= window_length; i += 4) {
    upcoming.prefetch(part);
    Vector x[4];
    load_transposed(frames.rows, i, x);
    for (int k = 0; k < 4; ++k) put(x[k], i + k);
  }
  if (i < window_length) {
    Vector x[4];
    load_transposed(frames.rows, i, x);
    for (int k = 0; i < window_length; ++i, ++k) put(x[k], i);
  }
  for (; i < problem.n_fft; ++i) writer.put(splat(0.0f));
}

// A pass over `count` blocks of `radix` parts that are `stride` numbers apart, each of `block` numbers.
template <int radix>
static void pass(C* z, int count, int block, int64_t stride, const Complex<float>* twiddles) {
  for (int b = 0; b < count; ++b, z += radix * stride) {
    const Complex<float>* factors = twiddles;
    for (int j = 0; j < block; ++j, factors += radix - 1) {
      C part[radix];
      RESERVE_UNROLL
      for (int q = 0; q < radix; ++q) part[q] = z[j + q * stride];
      Transform<radix>::run(part);
      // The factors of the last pass are 1.
      if (block > 1) twiddle<radix>(part, factors, 1);
      RESERVE_UNROLL
      for (int q = 0; q < radix; ++q) z[j + q * stride] = part[q];
    }
  }
}

static void any_pass(int radix, C* z, int count, int block, int64_t stride, const Complex<float>* twiddles) {
  switch (radix) {
    case 2: return pass<2>(z, count, block, stride, twiddles);
    case 3: return pass<3>(z, count, block, stride, twiddles);
    case 4: return pass<4>(z, count, block, stride, twiddles);
    case 5: return pass<5>(z, count, block, stride, twiddles);
    case 6: return pass<6>(z, count, block, stride, twiddles);
    case 8: return pass<8>(z, count, block, stride, twiddles);
    default: return pass<10>(z, count, block, stride, twiddles);
  }
}

// Passes `p` and later of `count` blocks that lie `stride` apart. Blocks that fit into the first-level cache together, and
// have no gaps between them, take each pass at once, others one after another.
static void passes_from(const MixedPlan& plan, int p, C* z, int count, int64_t stride) {
  constexpr int64_t cached = (16 << 10) / static_cast<int64_t>(sizeof(C));
  const MixedPasses& passes = plan.passes;
  if (p == passes.count) return;
  const int radix = passes.radix[p], block = passes.block[p];
  const Complex<float>* twiddles = plan.twiddles.data() + passes.twiddle[p];
  if (p > 1 && count * stride <= cached) {
    any_pass(radix, z, count, block, block, twiddles);
    return passes_from(plan, p + 1, z, count * radix, block);
  }
  const int64_t apart = block + (p == 0 ? MixedPlan::gap : 0);
  for (int b = 0; b < count; ++b, z += stride) {
    any_pass(radix, z, 1, block, apart, twiddles);
    passes_from(plan, p + 1, z, radix, apart);
  }
}

static void transform(const MixedPlan& plan, C* z) { passes_from(plan, 0, z, 1, 0); }

// Four times the powers of the bins of each frame, [bins].
static void mixed_powers(const Frames& frames, const reserve_log_mel& problem, const MixedPlan& plan, C* z,
                         Vector* power) {
  if (problem.remove_dc || problem.preemphasis != 0.0f) {
    window_samples<true>(frames, problem, plan, z);
  } else {
    window_samples<false>(frames, problem, plan, z);
  }
  transform(plan, z);
  const int32_t* places = plan.places.data();
  const int size = plan.passes.size;
  const auto power_of = [](C x) { return (x.re * x.re + x.im * x.im) * 4.0f; };
  if (!plan.passes.even()) {
    for (int k = 0; k < plan.passes.bins(); ++k) power[k] = power_of(z[places[k]]);
    return;
  }
  const Complex<float>* turns = plan.twiddles.data() + plan.passes.turns;
  const Vector constant = z[0].re + z[0].im, alternating = z[0].re - z[0].im;
  power[0] = constant * constant * 4.0f;
  power[size] = alternating * alternating * 4.0f;
  if (size % 2 == 0) power[size / 2] = power_of(z[places[size / 2]]);
  for (int k = 1; 2 * k < size; ++k)
    unpack_power(z[places[k]], z[places[size - k]], turns[k], power[k], power[size - k]);
}

}  // namespace RESERVE_ISA
}  // namespace reserve
