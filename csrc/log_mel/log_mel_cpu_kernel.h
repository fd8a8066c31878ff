// Log-mel of `lanes` frames at a time, from samples to rows, without leaving the cache. Included once per instruction
// set (see vector.h); the including file defines RESERVE_ISA, RESERVE_LANES and RESERVE_KERNEL.
#pragma once

#include "bfloat16.h"
#include "butterflies.h"
#include "log_mel_cpu.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

using C = Complex<Vector>;

template <typename Plan>
struct Scratch {
  // After pass one, block by block. The blocks are apart so that they do not fall on the same lines of the cache.
  C spectrum[Plan::first][Plan::block + 3];
  C blocks[2][Plan::block];    // a block and the one that mirrors it, after passes two and three
  Vector power[Plan::bins];
  float frames[lanes][Plan::n_fft];  // those of a batch that do not lie `hop_length` apart inside one clip
};

static RESERVE_HD int64_t padded_bands(int n_mels) { return (int64_t{n_mels} + 3) / 4 * 4; }

template <typename Plan>
static size_t scratch_size(int n_mels) {
  // After the struct: the bands of all lanes, then the rows made of them.
  const size_t bands = static_cast<size_t>(padded_bands(n_mels));
  return sizeof(Scratch<Plan>) + bands * sizeof(Vector) + bands * lanes * sizeof(float);
}

// n samples of a padded clip from `position` on. Runs that go one way are copied as such: near the ends of a clip
// this is most of a frame.
static void copy_padded(const Clip& clip, int64_t position, int pad_mode, float* out, int n) {
  int done = 0;
  while (done < n) {
    const int64_t at = position + done;
    int64_t run = n - done;
    if (at >= 0 && at < clip.length) {
      run = clip.length - at < run ? clip.length - at : run;
      std::memcpy(out + done, clip.samples + at, static_cast<size_t>(run) * sizeof(float));
    } else if (pad_mode == RESERVE_PAD_CONSTANT) {
      if (at < 0) run = -at < run ? -at : run;
      std::memset(out + done, 0, static_cast<size_t>(run) * sizeof(float));
    } else {
      const int64_t from = reflected(at, clip.length);
      const bool forward = clip.length > 1 && reflected(at + 1, clip.length) > from;
      const int64_t left = clip.length == 1 ? run : forward ? clip.length - 1 - from : from;
      run = left < run ? left : run;
      const int64_t step = clip.length == 1 ? 0 : forward ? 1 : -1;
      for (int64_t i = 0; i < run; ++i) out[done + i] = clip.samples[from + step * i];
    }
    done += static_cast<int>(run);
  }
}

// The samples that the next frames will be the first to read. Hardware prefetchers do not recognise the scattered reads
// of frames, so pass one prefetches a part at a time.
struct Upcoming {
  const float* next;
  const float* end;

  RESERVE_HD void prefetch(int parts) {
    const int64_t floats = (end - next + parts - 1) / parts;
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(next + i, 0, 3);
    next += floats < end - next ? floats : end - next;
  }
};

// Windowed samples, two of them one complex number, through pass one.
template <typename Plan>
static void first_pass(Rows frames, Upcoming& upcoming, const float* window, const Complex<float>* twiddles,
                       Scratch<Plan>& s) {
  for (int j = 0; j < Plan::block; j += 2) {
    upcoming.prefetch((Plan::block - j) / 2);
    C z[2][Plan::first];
#pragma GCC unroll 12
    for (int q = 0; q < Plan::first; ++q) {
      const int sample = 2 * (j + q * Plan::block);
      Vector x[4];
      load_transposed(frames, sample, x);
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

template <typename Plan>
static void power_spectrum(Rows frames, const reserve_log_mel& problem, const Twiddles& twiddles,
                           Upcoming upcoming, Scratch<Plan>& s) {
  constexpr int half = Plan::first / 2;
  first_pass<Plan>(frames, upcoming, problem.window, twiddles.first, s);
  const auto passes = [&](int q1, int slot) {
    block_passes<Plan>(s.spectrum[q1], twiddles.second, s.blocks[slot]);
  };
  passes(0, 0);
  block_zero_power<Plan>(s.blocks[0], twiddles.real, s.power);
  passes(half, 0);  // mirrors itself about its middle
  block_power<Plan>(s.blocks[0], s.blocks[0], half, Plan::block / 2, twiddles.real, s.power);
  for (int q1 = 1; q1 < half; ++q1) {
    passes(q1, 0);
    passes(Plan::first - q1, 1);
    block_power<Plan>(s.blocks[0], s.blocks[1], q1, Plan::block, twiddles.real, s.power);
  }
}

// log(mel + offset) - log(offset) of each band, [n_mels][lanes]. `power` holds four times the power.
static void log_bands(const Vector* power, const reserve_log_mel& problem, Vector* bands) {
  const Vector floor = logarithm(splat(problem.offset));
  // Bin 0 is NaN or infinite whenever a sample is: the whole frame shows it, whichever bins its bands cover.
  const Vector poison = power[0] - power[0];
  for (int m = 0; m < problem.n_mels; ++m) {
    const float* weights = problem.band_weight + problem.band_row[m];
    const int width = problem.band_row[m + 1] - problem.band_row[m];
    const Vector* p = power + problem.band_start[m];
    Vector sums[4] = {poison, splat(0.0f), splat(0.0f), splat(0.0f)};
    int i = 0;
    for (; i + 4 <= width; i += 4)
      for (int k = 0; k < 4; ++k) sums[k] += p[i + k] * weights[i + k];
    for (; i < width; ++i) sums[0] += p[i] * weights[i];
    const Vector mel = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * 0.25f;
    bands[m] = logarithm(mel + problem.offset) - floor;
  }
}

// One row of the output from `values`, or of zeros without.
static void write_row(const reserve_log_mel& problem, int64_t row, const float* values) {
  const int64_t columns = int64_t{problem.n_mels} + problem.append;
  if (problem.out_dtype == RESERVE_FLOAT32) {
    float* out = static_cast<float*>(problem.out) + row * columns;
    if (values == nullptr) {
      std::memset(out, 0, static_cast<size_t>(columns) * sizeof(float));
      return;
    }
    std::memcpy(out, values, static_cast<size_t>(problem.n_mels) * sizeof(float));
    if (problem.append) out[problem.n_mels] = problem.append_value;
  } else {
    uint16_t* out = static_cast<uint16_t*>(problem.out) + row * columns;
    if (values == nullptr) {
      std::memset(out, 0, static_cast<size_t>(columns) * sizeof(uint16_t));
      return;
    }
    for (int m = 0; m < problem.n_mels; ++m) out[m] = to_bfloat16(values[m]);
    if (problem.append) out[problem.n_mels] = to_bfloat16(problem.append_value);
  }
}

// Rows whose frames are transformed together.
struct Batch {
  Clip clips[lanes];
  int64_t positions[lanes];  // of the frame's first sample in its clip
  int64_t rows[lanes];
  int size = 0;

  void add(const Clip& clip, int64_t position, int64_t row) {
    clips[size] = clip;
    positions[size] = position;
    rows[size++] = row;
  }
};

// The frames in place if all are consecutive and inside one clip; otherwise copies.
template <typename Plan>
static Rows frames_of(const reserve_log_mel& problem, const Batch& batch, Scratch<Plan>& s) {
  const Clip& clip = batch.clips[0];
  const int64_t apart = (lanes - 1) * int64_t{problem.hop_length};
  // Rows in a row whose positions are as far apart are of one clip: a later clip's rows begin anew.
  if (batch.size == lanes && batch.positions[0] >= 0 && batch.rows[lanes - 1] - batch.rows[0] == lanes - 1 &&
      batch.positions[lanes - 1] - batch.positions[0] == apart &&
      batch.positions[lanes - 1] + Plan::n_fft <= clip.length)
    return {clip.samples + batch.positions[0], problem.hop_length};
  for (int lane = 0; lane < lanes; ++lane) {
    // Lanes without a frame repeat the first: their result is thrown away.
    const int from = lane < batch.size ? lane : 0;
    copy_padded(batch.clips[from], batch.positions[from], problem.pad_mode, s.frames[lane], Plan::n_fft);
  }
  return {s.frames[0], Plan::n_fft};
}

// What the `lanes` frames after the last of `batch` read beyond it.
template <typename Plan>
static Upcoming after(const reserve_log_mel& problem, const Batch& batch) {
  const int64_t length =
      problem.clip_offsets != nullptr ? problem.samples : (problem.clips - 1) * problem.clip_stride + problem.samples;
  const Clip& clip = batch.clips[batch.size - 1];
  const int64_t reached = batch.positions[batch.size - 1] + Plan::n_fft;
  const int64_t from = (clip.samples - problem.waveform) + (reached < clip.length ? reached : clip.length);
  const int64_t step = problem.hop_length < Plan::n_fft ? problem.hop_length : Plan::n_fft;
  const int64_t count = lanes * step < length - from ? lanes * step : length - from;
  return {problem.waveform + from, problem.waveform + from + count};
}

template <typename Plan>
static void run_batch(const reserve_log_mel& problem, const Twiddles& twiddles, const Batch& batch, Scratch<Plan>& s) {
  Vector* bands = reinterpret_cast<Vector*>(&s + 1);
  const int64_t stride = padded_bands(problem.n_mels);
  float* values = reinterpret_cast<float*>(bands + stride);
  power_spectrum<Plan>(frames_of(problem, batch, s), problem, twiddles, after<Plan>(problem, batch), s);
  log_bands(s.power, problem, bands);
  for (int64_t m = problem.n_mels; m < stride; ++m) bands[m] = splat(0.0f);
  for (int64_t m = 0; m < stride; m += 4) store_transposed(values, stride, m, bands + m);
  for (int lane = 0; lane < batch.size; ++lane) write_row(problem, batch.rows[lane], values + lane * stride);
}

template <typename Plan>
static void rows_of(const reserve_log_mel& problem, const Twiddles& twiddles, int64_t begin, int64_t end,
                    void* memory) {
  auto& s = *static_cast<Scratch<Plan>*>(memory);
  Batch batch;
  for (int64_t row = begin; row < end; ++row) {
    const Clip clip = clip_at(problem, row / problem.frames);
    const int64_t frame = row % problem.frames;
    if (frame < clip.frames) {
      batch.add(clip, frame * problem.hop_length - Plan::n_fft / 2, row);
    } else {
      write_row(problem, row, nullptr);
    }
    if (batch.size == lanes || (row + 1 == end && batch.size > 0)) {
      run_batch<Plan>(problem, twiddles, batch, s);
      batch.size = 0;
    }
  }
}

static size_t scratch_bytes(int n_fft, int n_mels) {
  switch (n_fft) {
    case Plan1536::n_fft: return scratch_size<Plan1536>(n_mels);
    case Plan3072::n_fft: return scratch_size<Plan3072>(n_mels);
    default: return scratch_size<Plan4608>(n_mels);
  }
}

static void rows(const reserve_log_mel& problem, const Twiddles& twiddles, int64_t begin, int64_t end, void* scratch) {
  switch (problem.n_fft) {
    case Plan1536::n_fft: return rows_of<Plan1536>(problem, twiddles, begin, end, scratch);
    case Plan3072::n_fft: return rows_of<Plan3072>(problem, twiddles, begin, end, scratch);
    default: return rows_of<Plan4608>(problem, twiddles, begin, end, scratch);
  }
}

}  // namespace RESERVE_ISA

CpuKernel RESERVE_KERNEL() noexcept { return {RESERVE_ISA::lanes, RESERVE_ISA::scratch_bytes, RESERVE_ISA::rows}; }

}  // namespace reserve
