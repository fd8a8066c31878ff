// The steps of a CUDA block whose passes are known only at run time: any n_fft, window, padding, filter, logarithm and
// dtype. Like log_mel_block.h, functions of a thread's index that also compile for the host.
#pragma once

#include <cmath>
#include <cstdint>

#include "bfloat16.h"
#include "block_bands.h"
#include "block_problem.h"
#include "butterflies.h"
#include "frame_source.h"

namespace reserve {

// What a launch takes: one argument, as the kernels of fixed passes have.
struct MixedProblem {
  reserve_log_mel log_mel;
  MixedPasses passes;
  MixedLayout layout;

  MixedProblem(const reserve_log_mel& p, const MixedPlan& plan) : log_mel(p), passes(plan.block_passes), layout(p) {}
};

struct MixedBlock {
  using C = Complex<float>;

  const reserve_log_mel& problem;
  const MixedPasses& plan;
  const MixedLayout& layout;
  float* shared;
  int64_t clip_index;
  int64_t first_frame;
  Clip clip;

  RESERVE_HD MixedBlock(const MixedProblem& all, float* shared_, uint32_t index)
      : problem(all.log_mel), plan(all.passes), layout(all.layout), shared(shared_) {
    const auto per_clip = static_cast<uint32_t>((problem.frames - 1) / layout.frames + 1);
    clip_index = index / per_clip;
    first_frame = int64_t{index % per_clip} * layout.frames;
    clip = clip_at(problem, clip_index);
  }

  RESERVE_HD C* spectrum(int frame) const { return reinterpret_cast<C*>(shared) + frame * layout.spectrum; }
  RESERVE_HD float* sums(int frame) const { return shared + layout.sums() + frame * warp_size; }
  RESERVE_HD float* staged() const { return shared + layout.samples(); }
  // The finished row of a frame, where the samples were.
  RESERVE_HD float* row(int frame) const { return staged() + frame * layout.row_stride; }
  // Whether a frame of the block belongs to the clip and must be computed.
  RESERVE_HD bool has(int frame) const { return first_frame + frame < clip.frames; }
  RESERVE_HD bool any_frame() const { return has(0); }
  RESERVE_HD int threads() const { return layout.frames * warp_size; }

  // Step 1: the samples of all frames. A barrier of the block follows.
  RESERVE_HD void stage(int thread) const {
    const int64_t start = first_frame * problem.hop_length + problem.start;
    const int64_t skipped = int64_t{problem.hop_length} - layout.staged_stride;
    RESERVE_NO_UNROLL
    for (int i = thread; i < layout.staged; i += threads()) {
      int64_t position = start + i;
      if (skipped > 0) position += i / layout.staged_stride * skipped;
      staged()[i] = padded_sample(problem, clip, position);
    }
  }

  // Step 2, if the mean is to be removed: each lane's part of the sum of a frame's differences from its first sample, so
  // that the mean of a constant is the constant. Here and below a barrier of the warp follows.
  RESERVE_HD void sum_samples(int frame, int lane) const {
    const float* samples = staged() + frame * layout.staged_stride;
    float sum = 0.0f;
    for (int i = lane; i < problem.window_length; i += warp_size) sum += samples[i] - samples[0];
    sums(frame)[lane] = sum;
  }

  // Step 3: windowed samples, two of them one complex number, or each by itself if n_fft is odd.
  RESERVE_HD void window(int frame, int lane) const {
    const float* samples = staged() + frame * layout.staged_stride;
    float mean = 0.0f;
    if (problem.remove_dc) {
      for (int i = 0; i < warp_size; ++i) mean += sums(frame)[i];
      mean = samples[0] + mean / static_cast<float>(problem.window_length);
    }
    const float preemphasis = problem.preemphasis;
    const auto value = [&](int i) {
      if (i >= problem.window_length) return 0.0f;
      float x = samples[i] - mean;
      if (preemphasis != 0.0f) x -= preemphasis * (samples[i > 0 ? i - 1 : 0] - mean);
      return x * problem.window[i];
    };
    C* to = spectrum(frame);
    RESERVE_NO_UNROLL
    for (int j = lane; j < plan.size; j += warp_size)
      to[MixedLayout::padded(j)] = plan.even() ? C{value(2 * j), value(2 * j + 1)} : C{value(j), 0.0f};
  }

  // Step 4, once for each pass of the plan.
  RESERVE_HD void pass(int frame, int lane, int index) const {
    switch (plan.radix[index]) {
      case 2: return pass_of<2>(frame, lane, index);
      case 3: return pass_of<3>(frame, lane, index);
      case 4: return pass_of<4>(frame, lane, index);
      case 5: return pass_of<5>(frame, lane, index);
      default: return pass_of<8>(frame, lane, index);
    }
  }

  template <int radix>
  RESERVE_HD void pass_of(int frame, int lane, int index) const {
    const auto block = static_cast<unsigned>(plan.block[index]);
    const C* twiddles = reinterpret_cast<const C*>(problem.twiddles) + plan.twiddle[index];
    C* z = spectrum(frame);
    RESERVE_NO_UNROLL
    for (unsigned i = static_cast<unsigned>(lane); i < static_cast<unsigned>(plan.size) / radix; i += warp_size) {
      const unsigned j = i % block;
      const auto from = static_cast<int>((i - j) * radix + j);
      C part[radix];
      RESERVE_UNROLL
      for (int q = 0; q < radix; ++q) part[q] = z[MixedLayout::padded(from + q * plan.block[index])];
      Transform<radix>::run(part);
      twiddle<radix>(part, twiddles + j, plan.block[index]);
      RESERVE_UNROLL
      for (int q = 0; q < radix; ++q) z[MixedLayout::padded(from + q * plan.block[index])] = part[q];
    }
  }

  // Step 5: four times the powers, or their roots, each in place of the number it comes from. A barrier of the block
  // follows.
  RESERVE_HD void powers(int frame, int lane) const {
    float* values = reinterpret_cast<float*>(spectrum(frame));
    const bool root = problem.power == 1;
    const auto store = [&](int bin, float power) { values[problem.places[bin]] = root ? sqrtf(power) : power; };
    const auto number = [&](int bin) {
      const float* at = values + problem.places[bin];
      return C{at[0], at[1]};
    };
    const auto power_of = [](C z) { return 4.0f * (z.re * z.re + z.im * z.im); };
    const C* turns = reinterpret_cast<const C*>(problem.twiddles) + plan.turns;
    if (!plan.even()) {
      for (int k = lane; k < plan.bins(); k += warp_size) store(k, power_of(number(k)));
      return;
    }
    RESERVE_NO_UNROLL
    for (int k = lane; 2 * k <= plan.size; k += warp_size) {
      if (k == 0) {
        const C zero = number(0);
        store(0, 4.0f * (zero.re + zero.im) * (zero.re + zero.im));
        store(plan.size, 4.0f * (zero.re - zero.im) * (zero.re - zero.im));
      } else if (2 * k == plan.size) {
        store(k, power_of(number(k)));
      } else {
        float power, mirror;
        unpack_power(number(k), number(plan.size - k), turns[k], power, mirror);
        store(k, power);
        store(plan.size - k, mirror);
      }
    }
  }

  // Step 6: the bands of all frames, into the staged samples' place. Neighbouring threads take the frames of one band,
  // so that they read one weight. A barrier of the block follows.
  RESERVE_HD void bands(int thread) const {
    const int frame = thread % layout.frames;
    if (!has(frame)) return;
    const float* power = reinterpret_cast<const float*>(spectrum(frame));
    // Bin 0 is NaN or infinite whenever a sample is.
    const float poison = power[0] - power[0], scale = problem.power == 1 ? 0.5f : 0.25f;
    const float silence = problem.log && problem.relative ? logf(problem.floor + problem.offset) : 0.0f;
    RESERVE_NO_UNROLL
    for (int m = thread / layout.frames; m < problem.n_mels; m += warp_size) {
      float value = band_sum(problem, m, power, poison) * scale;
      if (problem.log) {
        // This way round NaN stays NaN.
        const float x = (value < problem.floor ? problem.floor : value) + problem.offset;
        value = logf(x) - silence + (x - x);
      }
      row(frame)[m] = value * problem.out_scale + problem.out_shift;
    }
  }

  // Step 7: the rows of all frames. Where bands come first, neighbouring threads take the frames of one band.
  RESERVE_HD void write(int thread) const {
    const int columns = problem.n_mels + problem.append, frames = layout.frames;
    RESERVE_NO_UNROLL
    for (int i = thread; i < columns * frames; i += threads()) {
      const int frame = problem.bands_first ? i % frames : i / columns;
      const int column = problem.bands_first ? i / frames : i % columns;
      const int64_t index = first_frame + frame;
      if (index >= problem.frames) continue;
      float value = 0.0f;
      if (has(frame)) value = column < problem.n_mels ? row(frame)[column] : problem.append_value;
      const int64_t at = problem.bands_first ? (clip_index * problem.n_mels + column) * problem.frames + index
                                             : (clip_index * problem.frames + index) * columns + column;
      if (problem.out_dtype == RESERVE_FLOAT32) {
        static_cast<float*>(problem.out)[at] = value;
      } else {
        static_cast<uint16_t*>(problem.out)[at] = to_bfloat16(value);
      }
    }
  }
};

}  // namespace reserve
