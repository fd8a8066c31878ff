// Which problems the CUDA blocks take, with fixed passes or mixed ones, and how a block of mixed passes is laid out.
#pragma once

#include <cstdint>

#include "mixed_plan.h"
#include "problem.h"
#include "reserve_native.h"

namespace reserve {

constexpr int warp_size = 32;

// Whether the block of fixed passes does this problem: the values that the model's audio has. Pairs of samples stay aligned,
// and each frame overlaps the next.
inline bool has_fixed_block(const reserve_log_mel& p) noexcept {
  return has_fixed_plan(p) && p.in_dtype == RESERVE_FLOAT32 && p.hop_length % 2 == 0 && p.hop_length <= p.n_fft &&
         p.start == -p.n_fft / 2 && p.frame_extra == p.hop_length && p.pad_mode <= RESERVE_PAD_CONSTANT &&
         p.power == 2 && p.log && p.floor == 0.0f && p.relative && p.out_scale == 1.0f && p.out_shift == 0.0f &&
         !p.bands_first;
}

// Floats from one finished row in shared memory to the next: an odd multiple of 32 / frames, so that what a warp writes
// at a time, a few neighbouring bands of all frames, falls into different banks.
RESERVE_HD int block_row_stride(int n_mels, int frames) {
  const unsigned step = static_cast<unsigned>(warp_size / frames);
  return static_cast<int>(((static_cast<unsigned>(n_mels) + step - 1) / step | 1) * step);
}

// The shared memory of a block of mixed passes: `frames` spectra, 32 partial sums for each frame, then the staged
// samples, which make room for the finished rows.
struct MixedLayout {
  int32_t frames;         // 1, 2, 4 or 8, a warp each
  int32_t spectrum;       // complex numbers from one spectrum to the next
  int32_t staged_stride;  // samples from one staged frame to the next
  int32_t staged;         // samples of all staged frames
  int32_t row_stride;

  // One complex number of padding after every 16 spreads the passes over the banks.
  static RESERVE_HD constexpr int padded(int place) { return place + place / 16; }

  explicit MixedLayout(const reserve_log_mel& p) {
    const int size = p.n_fft % 2 == 0 ? p.n_fft / 2 : p.n_fft;
    frames = size <= 768 ? 8 : size <= 2048 ? 4 : 2;
    // Frames lie 32 / frames banks apart for the sums over bands.
    const int apart = warp_size / frames / 2;
    spectrum = (padded(size) + 15) / 16 * 16 + apart;
    staged_stride = p.hop_length < p.window_length ? p.hop_length : p.window_length;
    staged = (frames - 1) * staged_stride + p.window_length;
    row_stride = block_row_stride(p.n_mels, frames);
  }
  RESERVE_HD int sums() const { return 2 * frames * spectrum; }
  RESERVE_HD int samples() const { return sums() + frames * warp_size; }
  int64_t shared_floats() const {
    const int64_t rows = int64_t{frames} * row_stride;
    return samples() + (staged > rows ? staged : rows);
  }
};

// check_problem for the block code, which also needs its tables and a bounded number of bands.
inline int32_t check_block_problem(const reserve_log_mel& p) noexcept {
  const int32_t status = check_problem(p);
  if (status != RESERVE_OK || p.clips == 0 || p.frames == 0) return status;
  if (p.twiddles == nullptr || p.places == nullptr || p.placed_row == nullptr || p.placed_weight == nullptr)
    return RESERVE_INVALID_ARGUMENT;
  return p.n_mels <= 1024 ? RESERVE_OK : RESERVE_UNSUPPORTED;
}

// The number of blocks of a problem with clips and frames; 0 if a launch cannot have that many.
inline uint32_t block_count(const reserve_log_mel& problem, int frames_a_block) noexcept {
  constexpr int64_t most = INT32_MAX;
  const int64_t per_clip = (problem.frames - 1) / frames_a_block + 1;
  return per_clip > most / problem.clips ? 0 : static_cast<uint32_t>(problem.clips * per_clip);
}

}  // namespace reserve
