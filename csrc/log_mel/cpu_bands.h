// From powers to bands and their logarithms, and to the output. Once per instruction set (vector.h).
#pragma once

#include "bfloat16.h"
#include "cpu_frames.h"
#include "vector.h"

namespace reserve {
namespace RESERVE_ISA {

static RESERVE_HD Vector square_root(Vector x) {
#if RESERVE_LANES == 16
  // The masked form: GCC warns of what the other leaves undefined.
  return (Vector)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif RESERVE_LANES == 8
  return (Vector)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// The values of each band, [n_mels][lanes]. `power` holds four times the powers.
static void bands_of(Vector* power, int bins, const reserve_log_mel& problem, Vector* bands) {
  // Bin 0 is NaN or infinite whenever a sample is: the whole frame shows it, whichever bins its bands cover.
  const Vector poison = power[0] - power[0];
  float scale = 0.25f;
  if (problem.power == 1) {
    for (int bin = 0; bin < bins; ++bin) power[bin] = square_root(power[bin]);
    scale = 0.5f;
  }
  const Vector floor = splat(problem.floor);
  const Vector silence = problem.log && problem.relative ? logarithm(floor + problem.offset) : splat(0.0f);
  for (int m = 0; m < problem.n_mels; ++m) {
    const float* weights = problem.band_weight + problem.band_row[m];
    const int width = problem.band_row[m + 1] - problem.band_row[m];
    const Vector* p = power + problem.band_start[m];
    Vector sums[4] = {poison, splat(0.0f), splat(0.0f), splat(0.0f)};
    int i = 0;
    for (; i + 4 <= width; i += 4)
      for (int k = 0; k < 4; ++k) sums[k] += p[i + k] * weights[i + k];
    for (; i < width; ++i) sums[0] += p[i] * weights[i];
    const Vector mel = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
    // This way round NaN stays NaN.
    const Vector raised = mel < floor ? floor : mel;
    const Vector value = problem.log ? logarithm(raised + problem.offset) - silence : mel;
    bands[m] = value * problem.out_scale + problem.out_shift;
  }
}

static RESERVE_HD void put(const reserve_log_mel& problem, int64_t index, float value) {
  if (problem.out_dtype == RESERVE_FLOAT32) {
    static_cast<float*>(problem.out)[index] = value;
  } else {
    static_cast<uint16_t*>(problem.out)[index] = to_bfloat16(value);
  }
}

// One row of [clips, frames, n_mels + append] from `values`.
static void write_row(const reserve_log_mel& problem, int64_t row, const float* values) {
  const int64_t columns = int64_t{problem.n_mels} + problem.append;
  if (problem.out_dtype == RESERVE_FLOAT32) {
    float* out = static_cast<float*>(problem.out) + row * columns;
    std::memcpy(out, values, static_cast<size_t>(problem.n_mels) * sizeof(float));
  } else {
    uint16_t* out = static_cast<uint16_t*>(problem.out) + row * columns;
    for (int m = 0; m < problem.n_mels; ++m) out[m] = to_bfloat16(values[m]);
  }
  if (problem.append) put(problem, row * columns + problem.n_mels, problem.append_value);
}

// Where band 0 of a row is in [clips, n_mels, frames].
static RESERVE_HD int64_t first_of_column(const reserve_log_mel& problem, int64_t row) {
  return row / problem.frames * problem.n_mels * problem.frames + row % problem.frames;
}

// A row beyond those of its clip.
static void write_zeros(const reserve_log_mel& problem, int64_t row) {
  const int64_t columns = int64_t{problem.n_mels} + problem.append;
  const int64_t first = problem.bands_first ? first_of_column(problem, row) : row * columns;
  const int64_t step = problem.bands_first ? problem.frames : 1;
  for (int64_t column = 0; column < columns; ++column) put(problem, first + column * step, 0.0f);
}

// Floats from one row of `values` to the next.
static RESERVE_HD int64_t padded_bands(int n_mels) { return (int64_t{n_mels} + 3) / 4 * 4; }

// Rows of a batch from their bands, of which there is room for padded_bands; `values` has room for that many rows.
static void write_rows(const reserve_log_mel& problem, const Batch& batch, Vector* bands, float* values) {
  const int64_t stride = padded_bands(problem.n_mels);
  for (int64_t m = problem.n_mels; m < stride; ++m) bands[m] = splat(0.0f);
  for (int64_t m = 0; m < stride; m += 4) store_transposed(values, stride, m, bands + m);
  for (int lane = 0; lane < batch.size; ++lane) write_row(problem, batch.rows[lane], values + lane * stride);
}

// The same where bands come first: frames that follow one another are neighbours in memory, as they are in a vector.
static void write_columns(const reserve_log_mel& problem, const Batch& batch, const Vector* bands) {
  const bool together = batch.size == lanes && batch.consecutive(problem.hop_length);
  if (together && problem.out_dtype == RESERVE_FLOAT32) {
    float* out = static_cast<float*>(problem.out) + first_of_column(problem, batch.rows[0]);
    for (int m = 0; m < problem.n_mels; ++m) store(out + m * problem.frames, bands[m]);
    return;
  }
  int64_t first[lanes];
  for (int lane = 0; lane < batch.size; ++lane) first[lane] = first_of_column(problem, batch.rows[lane]);
  for (int m = 0; m < problem.n_mels; ++m)
    for (int lane = 0; lane < batch.size; ++lane) put(problem, first[lane] + m * problem.frames, bands[m][lane]);
}

}  // namespace RESERVE_ISA
}  // namespace reserve
