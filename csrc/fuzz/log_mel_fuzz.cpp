// Feeds the log-mel ops random problems, sensible and not, to be run under AddressSanitizer and
// UndefinedBehaviorSanitizer:
//   log_mel_fuzz SECONDS [SEED]
// Every buffer is exactly as long as the interface asks for, so that one element too far is seen. Where the CPU code
// and the code of the CUDA kernel both take a problem, their results must agree; a disagreement ends the run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "random_input.h"
#include "reserve_native.h"

namespace {

using reserve_fuzz::exactly;
using reserve_fuzz::Random;

// A problem with the arrays that it points to.
struct Case {
  reserve_log_mel problem{};
  std::unique_ptr<unsigned char[]> waveform;
  std::unique_ptr<float[]> window, weights, twiddles;
  std::unique_ptr<int64_t[]> offsets;
  std::unique_ptr<int32_t[]> start, row, places, placed_row;
  std::unique_ptr<reserve_placed_weight[]> placed_weight;
  size_t out_bytes = 0;
  int32_t threads = 1;
  int32_t isa = RESERVE_ISA_AUTO;
  bool broken_offsets = false;
};

void make_bands(Random& random, Case& c) {
  reserve_log_mel& p = c.problem;
  const int bins = p.n_fft / 2 + 1;
  int32_t floats = 0, places = 0;
  std::vector<int32_t> place(static_cast<size_t>(bins));
  if (reserve_log_mel_table_sizes(&p, &floats, &places) == RESERVE_OK) {
    c.twiddles.reset(new float[static_cast<size_t>(floats)]);
    reserve_log_mel_tables(&p, c.twiddles.get(), place.data());
  }
  std::vector<int32_t> start, row{0}, placed_row{0};
  std::vector<float> weights;
  std::vector<reserve_placed_weight> placed_weight;
  for (int m = 0; m < p.n_mels; ++m) {
    const int64_t from = random.between(0, bins - 1);
    const int64_t width = random.between(0, std::min<int64_t>(bins - from, 60));
    start.push_back(static_cast<int32_t>(from));
    row.push_back(row.back() + static_cast<int32_t>(width));
    for (int64_t i = 0; i < width; ++i) {
      weights.push_back(std::fabs(random.normal()));
      placed_weight.push_back({place[static_cast<size_t>(from + i)], weights.back()});
    }
    while (placed_weight.size() % 4 != 0) placed_weight.push_back({placed_weight.back().place, 0.0f});
    placed_row.push_back(static_cast<int32_t>(placed_weight.size()));
  }
  c.start = exactly(start);
  c.row = exactly(row);
  c.weights = exactly(weights);
  c.places = exactly(place);
  c.placed_row = exactly(placed_row);
  c.placed_weight = exactly(placed_weight);
  p.band_start = c.start.get();
  p.band_row = c.row.get();
  p.band_weight = c.weights.get();
  p.places = c.places.get();
  p.placed_row = c.placed_row.get();
  p.placed_weight = c.placed_weight.get();
  p.twiddles = c.twiddles.get();
}

void make_clips(Random& random, Case& c) {
  reserve_log_mel& p = c.problem;
  p.clips = random.between(0, 5);
  p.samples = random.chance(0.1) ? random.between(0, 3) : random.between(0, 9000);
  size_t total = static_cast<size_t>(p.samples);
  if (random.chance(0.4)) {
    std::vector<int64_t> offsets(static_cast<size_t>(p.clips) + 1);
    for (int64_t& o : offsets) o = random.between(0, p.samples);
    std::sort(offsets.begin(), offsets.end());
    c.broken_offsets = random.chance(0.1);
    if (c.broken_offsets)
      offsets[static_cast<size_t>(random.between(0, p.clips))] = random.pick<int64_t>({-7, INT64_MAX, INT64_MIN});
    c.offsets = exactly(offsets);
    p.clip_offsets = c.offsets.get();
  } else {
    // Clips apart, overlapping, and all the same.
    const bool apart = random.chance(0.6);
    p.clip_stride = apart ? p.samples + random.between(0, 9) : random.between(0, 2) * random.between(0, 900);
    total = p.clips == 0 ? 0 : static_cast<size_t>((p.clips - 1) * p.clip_stride + p.samples);
    if (random.chance(0.02)) p.clip_stride = random.pick<int64_t>({-1, INT64_MIN, INT64_MAX, INT64_MAX / 4});
  }
  const bool wide = p.in_dtype == RESERVE_FLOAT32;
  const bool all_good = total == 0 || random.chance(0.8);
  const size_t bad = all_good ? total : static_cast<size_t>(random.between(0, static_cast<int64_t>(total) - 1));
  std::vector<unsigned char> waveform(total * (wide ? 4 : 2));
  for (size_t i = 0; i < total; ++i) {
    if (wide) {
      const float x = i == bad ? random.pick({NAN, INFINITY, -INFINITY, 3e38f, 1e-42f}) : random.normal();
      std::memcpy(&waveform[4 * i], &x, 4);
    } else {
      // Of a normal size in every dtype, or infinite or NaN in one.
      const int64_t good = 0x3800 + random.between(0, 0x7ff) + 0x8000 * random.between(0, 1);
      const int64_t other = random.pick({0x7c00, 0xfe00, 0x7f80, 0xffff, 0x8000, 0x0001});
      const auto bits = static_cast<uint16_t>(i == bad ? other : good);
      std::memcpy(&waveform[2 * i], &bits, 2);
    }
  }
  c.waveform = exactly(waveform);
  p.waveform = c.waveform.get();
  p.frames = random.between(0, random.chance(0.9) ? 24 : 150);
}

// The front end, sometimes that of the fixed passes.
void make_numbers(Random& random, reserve_log_mel& p) {
  p.n_fft = 1;
  do {
    const int factor = random.pick({2, 2, 2, 3, 5});
    if (p.n_fft * factor <= 8192) p.n_fft *= factor;
  } while (p.n_fft == 1 || random.chance(0.85));
  if (random.chance(0.3)) p.n_fft = random.pick({1536, 3072, 4608});
  if (random.chance(0.03)) p.n_fft = random.pick({0, -1, 1, 7, 1535, 8193, 16384});
  p.window_length = random.chance(0.5) ? p.n_fft : static_cast<int32_t>(random.between(1, std::max(p.n_fft, 1)));
  p.hop_length = static_cast<int32_t>(random.chance(0.7) ? 2 * random.between(1, 800) : random.between(1, 9000));
  p.start = -p.n_fft / 2;
  p.frame_extra = p.hop_length;
  p.power = 2;
  p.log = p.relative = 1;
  p.offset = random.pick({0.1f, 1.0f, 1e-6f});
  p.out_scale = 1.0f;
  p.pad_mode = static_cast<int32_t>(random.between(0, 1));
  if (random.chance(0.3)) return;
  p.in_dtype = static_cast<int32_t>(random.between(0, 3));
  p.start = random.between(-2 * int64_t{p.n_fft} - 3, 100);
  p.frame_extra = random.between(-2 * int64_t{p.n_fft} - 3, 9000);
  p.pad_mode = static_cast<int32_t>(random.between(0, 4));
  p.remove_dc = static_cast<int32_t>(random.between(0, 1));
  p.preemphasis = random.pick({0.0f, 0.97f, 1.0f});
  p.power = static_cast<int32_t>(random.between(1, 2));
  p.log = static_cast<int32_t>(random.between(0, 1));
  p.relative = static_cast<int32_t>(random.between(0, 1));
  // What is nothing but for rounding differs: the offset hides that.
  p.offset = p.power == 1 ? 1.0f : random.pick({0.1f, 1.0f});
  p.floor = random.pick({0.0f, 1e-10f, 0.5f});
  p.out_scale = random.pick({1.0f, -0.25f, 10.0f});
  p.out_shift = random.pick({0.0f, 1.5f});
  p.bands_first = static_cast<int32_t>(random.between(0, 1));
}

// One number out of range.
void break_number(Random& random, reserve_log_mel& p) {
  switch (random.between(0, 8)) {
    case 0: p.hop_length = random.pick({0, -5, INT32_MAX, INT32_MIN}); break;
    case 1: p.pad_mode = random.pick({-1, 5}); break;
    case 2: p.in_dtype = random.pick({-1, 4}); break;
    case 3: p.out_dtype = random.pick({-1, 2, 3}); break;
    case 4: p.window_length = random.pick({0, -1, p.n_fft + 1, INT32_MAX}); break;
    case 5: p.start = random.pick<int64_t>({INT64_MIN, INT64_MAX, int64_t{1} << 34}); break;
    case 6: p.frame_extra = random.pick<int64_t>({INT64_MIN, INT64_MAX, int64_t{1} << 33}); break;
    case 7: p.power = random.pick({0, 3}); break;
    default: p.append = random.pick({2, -1});
  }
}

Case make_case(Random& random) {
  Case c;
  reserve_log_mel& p = c.problem;
  make_numbers(random, p);
  p.n_mels = static_cast<int32_t>(random.between(1, random.chance(0.9) ? 140 : 1030));
  p.append = p.bands_first && random.chance(0.98) ? 0 : static_cast<int32_t>(random.between(0, 1));
  p.append_value = 2.0f;
  p.out_dtype = static_cast<int32_t>(random.between(0, 1));
  if (random.chance(0.1)) break_number(random, p);
  c.threads = random.chance(0.02) ? 0 : static_cast<int32_t>(random.between(1, 3));
  c.isa = static_cast<int32_t>(random.between(0, 3));
  std::vector<float> window(static_cast<size_t>(std::clamp(p.window_length, 0, 8192)));
  const float scale = p.in_dtype == RESERVE_INT16 ? 0x1p-15f : 0.5f;
  for (float& w : window) w = random.normal() * scale;
  c.window = exactly(window);
  p.window = c.window.get();
  if (p.n_fft > 0) make_bands(random, c);
  make_clips(random, c);
  const size_t columns = static_cast<size_t>(p.n_mels) + (p.append != 0 ? 1 : 0);
  c.out_bytes = static_cast<size_t>(p.clips * p.frames) * columns * (p.out_dtype == RESERVE_BFLOAT16 ? 2 : 4);
  if (random.chance(0.02)) p.frames = INT64_MAX - 3;
  return c;
}

float value_at(const unsigned char* out, size_t i, bool half) {
  uint32_t bits = 0;
  if (half) {
    uint16_t high;
    std::memcpy(&high, out + 2 * i, 2);
    bits = static_cast<uint32_t>(high) << 16;
  } else {
    std::memcpy(&bits, out + 4 * i, 4);
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

bool agree(const Case& c, const unsigned char* a, const unsigned char* b) {
  const bool half = c.problem.out_dtype == RESERVE_BFLOAT16;
  const float tolerance = half ? 0.01f : 1e-3f;
  for (size_t i = 0; i < c.out_bytes / (half ? 2 : 4); ++i) {
    const float x = value_at(a, i, half), y = value_at(b, i, half);
    if (std::isnan(x) != std::isnan(y)) return false;
    if (!std::isnan(x) && !(std::fabs(x - y) <= tolerance * (1.0f + std::fabs(x)))) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10.0;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const auto start = std::chrono::steady_clock::now();
  uint64_t runs = 0, accepted = 0, compared = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++runs) {
    Random random(seed * 1000003 + runs);
    Case c = make_case(random);
    std::unique_ptr<unsigned char[]> out(new unsigned char[c.out_bytes]), other(new unsigned char[c.out_bytes]);
    c.problem.out = out.get();
    const int32_t status = reserve_log_mel_cpu(&c.problem, c.threads, c.isa);
    accepted += status == RESERVE_OK;
    c.problem.out = other.get();
    const int32_t emulated = c.problem.frames < 1000 ? reserve_log_mel_emulated(&c.problem) : RESERVE_UNSUPPORTED;
    if (status != RESERVE_OK || emulated != RESERVE_OK || c.broken_offsets) continue;
    ++compared;
    bool same = agree(c, out.get(), other.get());
    const float below = random.chance(0.5) ? 1.0f : -1.0f;
    const bool floats = c.problem.out_dtype == RESERVE_FLOAT32;
    same = same && (reserve_log_mel_limited_cpu(&c.problem, below, c.threads, c.isa) == RESERVE_OK) == floats;
    c.problem.out = out.get();
    same = same && (reserve_log_mel_limited_cpu(&c.problem, below, 1, RESERVE_ISA_BASELINE) == RESERVE_OK) == floats;
    if (!same || !agree(c, out.get(), other.get())) {
      std::fprintf(stderr, "run %llu of seed %llu: the CPU and the CUDA code disagree, or a limit failed\n",
                   static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed));
      return 1;
    }
  }
  std::printf("%llu problems, %llu accepted, %llu compared; seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(compared),
              static_cast<unsigned long long>(seed));
  return 0;
}
