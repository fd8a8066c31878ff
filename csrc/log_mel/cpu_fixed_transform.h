// The transform of frames whose passes are fixed at compile time. Once per instruction set (vector.h).
#pragma once

#include "butterflies.h"
#include "cpu_frames.h"
#include "plan.h"

namespace reserve {
namespace RESERVE_ISA {

using C = Complex<Vector>;

template <typename Plan>
struct FixedScratch {
  // After pass one, block by block. The blocks are apart so that they do not fall on the same lines of the cache.
  C spectrum[Plan::first][Plan::block + 3];
  C blocks[2][Plan::block];  // a block and the one that mirrors it, after passes two and three
};

// Windowed samples, two of them one complex number, through pass one.
template <typename Plan>
static void first_pass(Frames frames, const float* window, const Complex<float>* twiddles, FixedScratch<Plan>& s) {
  for (int j = 0; j < Plan::block; j += 2) {
    frames.upcoming.prefetch(frames.upcoming.part((Plan::block - j) / 2));
    C z[2][Plan::first];
#pragma GCC unroll 12
    for (int q = 0; q < Plan::first; ++q) {
      const int sample = 2 * (j + q * Plan::block);
      Vector x[4];
      load_transposed(frames.rows, sample, x);
      z[0][q] = {x[0] * window[sample], x[1] * window[sample + 1]};
      z[1][q] = {x[2] * window[sample + 2], x[3] * window[sample + 3]};
    }
    for (int i = 0; i < 2; ++i) {
      Transform<Plan::first>::run(z[i]);
      twiddle<Plan::first, Plan::block>(z[i], twiddles + j + i);
      for (int q = 0; q < Plan::first; ++q) s.spectrum[q][j + i] = z[i][q];
    }
  }
}

// Passes two and three of one block.
template <typename Plan>
static void block_passes(const C* from, const Complex<float>* twiddles, C* to) {
  for (int j = 0; j < Plan::third; ++j) {
    C z[Plan::second];
    for (int q = 0; q < Plan::second; ++q) z[q] = from[j + q * Plan::third];
    Transform<Plan::second>::run(z);
    twiddle<Plan::second, Plan::third>(z, twiddles + j);
    for (int q = 0; q < Plan::second; ++q) to[j + q * Plan::third] = z[q];
  }
  for (int q = 0; q < Plan::second; ++q) {
    C z[Plan::third];
    for (int i = 0; i < Plan::third; ++i) z[i] = to[q * Plan::third + i];
    Transform<Plan::third>::run(z);
    for (int i = 0; i < Plan::third; ++i) to[q * Plan::third + i] = z[i];
  }
}

// Powers of the bins at places [begin, end) of block q1 and of their mirrors: place p of `block` is mirrored at
// block - 1 - p of `mirror`.
template <typename Plan>
static void block_power(const C* block, const C* mirror, int q1, int end, const Complex<float>* turns, Vector* power) {
  for (int place = 0; place < end; ++place) {
    const int bin = q1 + Plan::first * Plan::r_at(place);
    unpack_power(block[place], mirror[Plan::block - 1 - place], turns[q1 * Plan::block + place], power[bin],
                 power[Plan::size - bin]);
  }
}

// Block 0 mirrors itself about r = 0: r about block - r.
template <typename Plan>
static void block_zero_power(const C* block, const Complex<float>* turns, Vector* power) {
  const Vector constant = block[0].re + block[0].im, alternating = block[0].re - block[0].im;
  const C middle = block[Plan::place_of(Plan::block / 2)];
  power[0] = constant * constant * 4.0f;
  power[Plan::size] = alternating * alternating * 4.0f;
  power[Plan::size / 2] = (middle.re * middle.re + middle.im * middle.im) * 4.0f;
  for (int r = 1; r < Plan::block / 2; ++r) {
    const int place = Plan::place_of(r), bin = Plan::first * r;
    unpack_power(block[place], block[Plan::place_of(Plan::block - r)], turns[place], power[bin],
                 power[Plan::size - bin]);
  }
}

// Four times the powers of the bins of each frame, [bins].
template <typename Plan>
static void fixed_powers(const Frames& frames, const float* window, const Twiddles& twiddles, FixedScratch<Plan>& s,
                         Vector* power) {
  constexpr int half = Plan::first / 2;
  first_pass<Plan>(frames, window, twiddles.first, s);
  const auto passes = [&](int q1, int slot) {
    block_passes<Plan>(s.spectrum[q1], twiddles.second, s.blocks[slot]);
  };
  passes(0, 0);
  block_zero_power<Plan>(s.blocks[0], twiddles.real, power);
  passes(half, 0);  // mirrors itself about its middle
  block_power<Plan>(s.blocks[0], s.blocks[0], half, Plan::block / 2, twiddles.real, power);
  for (int q1 = 1; q1 < half; ++q1) {
    passes(q1, 0);
    passes(Plan::first - q1, 1);
    block_power<Plan>(s.blocks[0], s.blocks[1], q1, Plan::block, twiddles.real, power);
  }
}

}  // namespace RESERVE_ISA
}  // namespace reserve
