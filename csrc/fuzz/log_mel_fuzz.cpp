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
  std::unique_ptr<float[]> waveform, window, weights, twiddles;
  std::unique_ptr<int64_t[]> offsets;
  std::unique_ptr<int32_t[]> start, row, placed_row;
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
  if (reserve_log_mel_table_sizes(p.n_fft, &floats, &places) == RESERVE_OK) {
    c.twiddles.reset(new float[static_cast<size_t>(floats)]);
    reserve_log_mel_tables(p.n_fft, c.twiddles.get(), place.data());
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
  c.placed_row = exactly(placed_row);
  c.placed_weight = exactly(placed_weight);
  p.band_start = c.start.get();
  p.band_row = c.row.get();
  p.band_weight = c.weights.get();
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
  std::vector<float> waveform(total);
  for (float& x : waveform) x = random.normal();
  if (total > 0 && random.chance(0.2))
    waveform[static_cast<size_t>(random.between(0, static_cast<int64_t>(total) - 1))] =
        random.pick({NAN, INFINITY, -INFINITY, 3e38f, 1e-42f});
  c.waveform = exactly(waveform);
  p.waveform = c.waveform.get();
  p.frames = random.between(0, random.chance(0.9) ? 24 : 150);
}

Case make_case(Random& random) {
  Case c;
  reserve_log_mel& p = c.problem;
  p.n_fft = random.chance(0.03) ? random.pick({0, -1, 512, 1535}) : random.pick({1536, 1536, 3072, 4608});
  p.hop_length = static_cast<int32_t>(random.chance(0.7) ? 2 * random.between(1, 800) : random.between(1, 9000));
  if (random.chance(0.02)) p.hop_length = random.pick({0, -5, INT32_MAX, INT32_MIN});
  p.pad_mode = random.chance(0.02) ? 9 : static_cast<int32_t>(random.between(0, 1));
  p.n_mels = static_cast<int32_t>(random.between(1, 140));
  p.offset = random.pick({0.1f, 1.0f, 1e-6f});
  p.append = random.chance(0.02) ? 2 : static_cast<int32_t>(random.between(0, 1));
  p.append_value = 2.0f;
  p.out_dtype = random.chance(0.02) ? 5 : static_cast<int32_t>(random.between(0, 1));
  c.threads = random.chance(0.02) ? 0 : static_cast<int32_t>(random.between(1, 3));
  c.isa = static_cast<int32_t>(random.between(0, 3));
  std::vector<float> window(static_cast<size_t>(std::max(p.n_fft, 0)));
  for (float& w : window) w = random.normal() * 0.5f;
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
  for (size_t i = 0; i < c.out_bytes / (half ? 2 : 4); ++i) {
    const float x = value_at(a, i, half), y = value_at(b, i, half);
    if (std::isnan(x) != std::isnan(y)) return false;
    if (!std::isnan(x) && !(std::fabs(x - y) <= (half ? 0.01f : 1e-3f) * (1.0f + std::fabs(x)))) return false;
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
    if (!agree(c, out.get(), other.get())) {
      std::fprintf(stderr, "run %llu of seed %llu: the CPU and the CUDA code disagree\n",
                   static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed));
      return 1;
    }
  }
  std::printf("%llu problems, %llu accepted, %llu compared; seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(compared),
              static_cast<unsigned long long>(seed));
  return 0;
}
