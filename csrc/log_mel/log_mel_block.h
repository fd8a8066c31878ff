// The steps of a CUDA block between barriers, as functions of a thread's index. They also compile for the host, where
// log_mel_emulated.cpp runs them thread by thread.
//
// A block transforms `frames` consecutive frames of one clip, one warp each. The samples they share are staged in
// shared memory once; the three passes of the transform and the powers work in place in the warp's part of it, so that
// between them only the warp waits.
#pragma once

#if defined(__CUDACC__)
#include <cuda_pipeline.h>
#endif

#include <cmath>
#include <cstdint>

#include "bfloat16.h"
#include "block_bands.h"
#include "block_problem.h"
#include "butterflies.h"
#include "frame_source.h"
#include "plan.h"
#include "reserve_native.h"

namespace reserve {

// Shared memory of a block: `frames` spectra, then the staged samples, which make room for the finished rows.
template <typename Plan>
struct BlockLayout {
  static constexpr int frames = Plan::size <= 768 ? 8 : 4;
  static constexpr int threads = frames * warp_size;
  // One complex number of padding after every 16 spreads the passes over the banks; the rest sets frames 32 / frames
  // banks apart for the sums over bands.
  static constexpr int spectrum = Plan::size + Plan::size / 16 + 16 / frames;
  static_assert(2 * spectrum % 32 == 32 / frames, "frames would share banks");

  static RESERVE_HD constexpr int padded(int place) { return place + place / 16; }
  // So padded(a + b) = padded(a) + padded(b) where 16 divides a, and where a + b % 16 < 16: the steps below add
  // constants to one address. The passes step over blocks, and inside one over `third`, from less than that on.
  static_assert(Plan::block % warp_size == 0 && (Plan::third == 8 || Plan::third == 16), "constants would be wrong");

  // Floats from the start of a frame's spectrum to the power of a bin: in place of the real part, except that the
  // last bin takes the imaginary part of the first.
  static constexpr int power_of(int bin) {
    const int q1 = bin % Plan::first, r = bin / Plan::first;
    return bin == Plan::size ? 1 : 2 * padded(q1 * Plan::block + Plan::place_of(r));
  }

  static RESERVE_HD int row_stride(int n_mels) { return block_row_stride(n_mels, frames); }
  static RESERVE_HD int64_t span(int hop_length) { return int64_t{frames - 1} * hop_length + Plan::n_fft; }
  static RESERVE_HD int64_t shared_floats(int hop_length, int n_mels) {
    const int64_t rows = int64_t{frames} * row_stride(n_mels), samples = span(hop_length);
    return 2 * frames * spectrum + (samples > rows ? samples : rows);
  }
};

template <typename Plan>
struct Block {
  using Layout = BlockLayout<Plan>;
  using C = Complex<float>;

  const reserve_log_mel& problem;
  float* shared;
  int64_t clip_index;
  int64_t first_frame;
  Clip clip;

  // `index` is below 2^31, so that dividing takes a few instructions rather than a hundred.
  RESERVE_HD Block(const reserve_log_mel& problem_, float* shared_, uint32_t index)
      : problem(problem_), shared(shared_) {
    const auto per_clip = static_cast<uint32_t>((problem.frames - 1) / Layout::frames + 1);
    clip_index = index / per_clip;
    first_frame = int64_t{index % per_clip} * Layout::frames;
    clip = clip_at(problem, clip_index);
  }

  RESERVE_HD C* spectrum(int frame) const { return reinterpret_cast<C*>(shared) + frame * Layout::spectrum; }
  RESERVE_HD float* staged() const { return shared + 2 * Layout::frames * Layout::spectrum; }
  // The finished row of a frame, where the samples were.
  RESERVE_HD float* row(int frame) const { return staged() + frame * Layout::row_stride(problem.n_mels); }
  // Whether a frame of the block belongs to the clip and must be computed. Avoids clip.frames, which costs a division.
  RESERVE_HD bool has(int frame) const {
    const int64_t index = first_frame + frame;
    return index < problem.frames && clip.length > 0 && index * problem.hop_length <= clip.length;
  }
  // Whether the block has a frame of its clip; otherwise only zeros are to be written.
  RESERVE_HD bool any_frame() const { return has(0); }

  // Step 1: the samples of all frames. A barrier of the block follows.
  RESERVE_HD void stage(int thread) const {
    const int span = static_cast<int>(Layout::span(problem.hop_length));
    const int64_t start = first_frame * problem.hop_length - Plan::n_fft / 2;
    float* to = staged();
    const float* samples = static_cast<const float*>(problem.waveform) + clip.first;
    if (start < 0 || start + span > clip.length) {
      const bool zeros = problem.pad_mode == RESERVE_PAD_CONSTANT;
      for (int i = thread; i < span; i += Layout::threads) {
        const int64_t position = start + i;
        const bool inside = position >= 0 && position < clip.length;
        to[i] = !inside && zeros ? 0.0f : samples[inside ? position : reflected(position, clip.length)];
      }
      return;
    }
    const float* from = samples + start;
    if (reinterpret_cast<uintptr_t>(from) % sizeof(C) == 0) {
      copy_ahead(reinterpret_cast<C*>(to), reinterpret_cast<const C*>(from), thread, span / 2);
    } else {
      copy_ahead(to, from, thread, span);
    }
  }

  // The block copies `count` values; each thread issues all of its loads before it waits for any.
  template <typename T>
  RESERVE_HD static void copy_ahead(T* to, const T* from, int thread, int count) {
#if defined(__CUDA_ARCH__)
    for (int i = thread; i < count; i += Layout::threads) __pipeline_memcpy_async(to + i, from + i, sizeof(T));
    __pipeline_commit();
    __pipeline_wait_prior(0);
#else
    for (int i = thread; i < count; i += Layout::threads) to[i] = from[i];
#endif
  }

  // Step 2: window and pass one. Here and below a barrier of the warp follows.
  RESERVE_HD void first_pass(int frame, int lane, const Complex<float>* twiddles) const {
    // Two samples are one complex number; an even hop keeps them aligned.
    const C* samples = reinterpret_cast<const C*>(staged() + frame * problem.hop_length);
    const C* window = reinterpret_cast<const C*>(problem.window);
    RESERVE_NO_UNROLL
    for (int j = lane; j < Plan::block; j += warp_size) {
      C z[Plan::first];
      RESERVE_UNROLL
      for (int q = 0; q < Plan::first; ++q) {
        const C x = samples[j + q * Plan::block], weight = window[j + q * Plan::block];
        z[q] = {x.re * weight.re, x.im * weight.im};
      }
      Transform<Plan::first>::run(z);
      twiddle<Plan::first, Plan::block>(z, twiddles + j);
      C* to = spectrum(frame) + Layout::padded(j);
      RESERVE_UNROLL
      for (int q = 0; q < Plan::first; ++q) to[q * Layout::padded(Plan::block)] = z[q];
    }
  }

  // Step 3: pass two.
  RESERVE_HD void second_pass(int frame, int lane, const Complex<float>* twiddles) const {
    RESERVE_NO_UNROLL
    for (unsigned i = static_cast<unsigned>(lane); i < Plan::size / Plan::second; i += warp_size) {
      const unsigned j = i % Plan::third;
      unsigned block = i / Plan::third;
      // With 8 values of j, half a warp spans two blocks: taking the next but one puts them into different banks.
      if (Plan::third == 8) block = (block & ~3u) | (block & 1) << 1 | (block >> 1 & 1);
      C* at = spectrum(frame) + block * Layout::padded(Plan::block) + j;
      C z[Plan::second];
      RESERVE_UNROLL
      for (int q = 0; q < Plan::second; ++q) z[q] = at[Layout::padded(q * Plan::third)];
      Transform<Plan::second>::run(z);
      twiddle<Plan::second, Plan::third>(z, twiddles + j);
      RESERVE_UNROLL
      for (int q = 0; q < Plan::second; ++q) at[Layout::padded(q * Plan::third)] = z[q];
    }
  }

  // Step 4: pass three.
  RESERVE_HD void third_pass(int frame, int lane) const {
    RESERVE_NO_UNROLL
    for (unsigned i = static_cast<unsigned>(lane); i < Plan::size / Plan::third; i += warp_size) {
      C* at = spectrum(frame) + i * Plan::third + i * Plan::third / 16;
      C z[Plan::third];
      RESERVE_UNROLL
      for (int q = 0; q < Plan::third; ++q) z[q] = at[q];
      Transform<Plan::third>::run(z);
      RESERVE_UNROLL
      for (int q = 0; q < Plan::third; ++q) at[q] = z[q];
    }
  }

  // Step 5: four times the powers, each in place of the number it comes from. A barrier of the block follows.
  RESERVE_HD void powers(int frame, int lane, const Complex<float>* turns) const {
    constexpr int half = Plan::first / 2, parts = Plan::block / warp_size;
    constexpr int block = Layout::padded(Plan::block), part = Layout::padded(warp_size);
    C* all = spectrum(frame);
    const auto pair = [](C& z, C& m, C turn) { unpack_power(z, m, turn, z.re, m.re); };
    // Block q1 from its start, and the block that mirrors it from its end, a warp's width at a time.
    C* from = all + Layout::padded(lane) + block;
    C* back = all + Layout::padded(warp_size - 1 - lane) + (Plan::first - 1) * block;
    const C* turn = turns + Plan::block + lane;
    RESERVE_NO_UNROLL
    for (int q1 = 1; q1 < half; ++q1, from += block, back -= block, turn += Plan::block) {
      RESERVE_UNROLL
      for (int i = 0; i < parts; ++i) pair(from[i * part], back[(parts - 1 - i) * part], turn[i * warp_size]);
    }
    // Block `half` mirrors itself.
    RESERVE_UNROLL
    for (int i = 0; i < parts / 2; ++i) pair(from[i * part], back[(parts - 1 - i) * part], turn[i * warp_size]);
    RESERVE_NO_UNROLL
    for (unsigned r = static_cast<unsigned>(lane); r < Plan::block / 2; r += warp_size) {
      if (r > 0) {
        const unsigned place = Plan::place_of(r), mirror = Plan::place_of(Plan::block - r);
        pair(all[place + place / 16], all[mirror + mirror / 16], turns[place]);
      } else {
        const C zero = all[0];
        all[0] = {4.0f * (zero.re + zero.im) * (zero.re + zero.im), 4.0f * (zero.re - zero.im) * (zero.re - zero.im)};
        C& middle = all[Layout::padded(Plan::place_of(Plan::block / 2))];
        middle.re = 4.0f * (middle.re * middle.re + middle.im * middle.im);
      }
    }
  }

  // Step 6: the bands of all frames, into the staged samples' place. Neighbouring threads take the frames of one band,
  // so that they read one weight, and a wide band goes with a narrow one. A barrier of the block follows.
  RESERVE_HD void bands(int thread) const {
    const int frame = thread % Layout::frames, group = thread / Layout::frames;
    if (!has(frame)) return;
    const float* power = reinterpret_cast<const float*>(spectrum(frame));
    const float floor = logf(problem.offset);
    float* out = row(frame);
    // Bin 0 is NaN or infinite whenever a sample is.
    const float poison = power[0] - power[0];
    for (int turn = 0; turn * warp_size < problem.n_mels; ++turn) {
      const int m = turn * warp_size + (turn % 2 == 0 ? group : warp_size - 1 - group);
      if (m >= problem.n_mels) continue;
      const float x = band_sum(problem, m, power, poison) * 0.25f + problem.offset;
      out[m] = logf(x) - floor + (x - x);
    }
  }

  // Step 7: the row of each frame, by its warp.
  RESERVE_HD void write(int frame, int lane) const {
    const int64_t index = first_frame + frame;
    if (index >= problem.frames) return;
    const bool own = has(frame);
    const float* values = row(frame);
    const int columns = problem.n_mels + problem.append;
    const int64_t base = (clip_index * problem.frames + index) * columns;
    RESERVE_NO_UNROLL
    for (int column = lane; column < columns; column += warp_size) {
      float value = 0.0f;
      if (own) value = column < problem.n_mels ? values[column] : problem.append_value;
      if (problem.out_dtype == RESERVE_FLOAT32) {
        static_cast<float*>(problem.out)[base + column] = value;
      } else {
        static_cast<uint16_t*>(problem.out)[base + column] = to_bfloat16(value);
      }
    }
  }
};

}  // namespace reserve
