// Feeds the AdamW ops random tensors, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//   adamw_fuzz SECONDS [SEED]
// Weights, gradients and stored moments are any bits; every buffer is exactly as long as the interface asks for. The CPU
// code and the code of the CUDA kernel must agree, moments rounded stochastically to the bit where betas are 0; a
// disagreement ends the run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "adamw/adamw_stochastic.h"
#include "fuzz_loop.h"
#include "random_input.h"
#include "reserve_native.h"

namespace {

using reserve_fuzz::exactly;
using reserve_fuzz::fuzz;
using reserve_fuzz::Random;

constexpr int lists = 5;  // weights, gradients, first and second moments, starts

// Tensors with the bytes that they point to. `shift` numbers before each array leave it unaligned.
struct Tensors {
  std::vector<std::unique_ptr<char[]>> bytes;
  std::vector<size_t> sizes;
  std::vector<reserve_adamw_tensor> tensors;

  Tensors(const Tensors& other)
      : sizes(other.sizes),
        tensors(other.tensors),
        half_(other.half_),
        has_start_(other.has_start_),
        shifts_(other.shifts_) {
    for (size_t i = 0; i < sizes.size(); ++i)
      bytes.push_back(exactly(std::vector<char>(other.bytes[i].get(), other.bytes[i].get() + sizes[i])));
    point();
  }

  Tensors(Random& random, bool half) : half_(half), has_start_(random.chance(0.5)), shifts_(lists) {
    tensors.resize(static_cast<size_t>(random.chance(0.1) ? random.between(70, 160) : random.between(0, 6)));
    for (int64_t& shift : shifts_) shift = random.chance(0.7) ? 0 : random.between(1, 5);
    for (reserve_adamw_tensor& t : tensors) {
      t.count = random.chance(0.1) ? random.between(15000, 40000) : random.between(0, 5000);
      for (int list = 0; list < lists; ++list) {
        sizes.push_back(static_cast<size_t>(t.count + shifts_[list]) * width(list));
        std::vector<char> drawn(sizes.back());
        for (char& byte : drawn) byte = static_cast<char>(random.between(0, 255));
        bytes.push_back(exactly(drawn));
      }
    }
    point();
  }

 private:
  size_t width(int list) const { return list == 4 || (half_ && list >= 2) ? 2 : 4; }

  void point() {
    for (size_t i = 0; i < tensors.size(); ++i) {
      char* at[lists];
      for (int list = 0; list < lists; ++list)
        at[list] = bytes[lists * i + list].get() + static_cast<size_t>(shifts_[list]) * width(list);
      reserve_adamw_tensor& t = tensors[i];
      t.weight = reinterpret_cast<float*>(at[0]);
      t.gradient = reinterpret_cast<const float*>(at[1]);
      t.m = at[2];
      t.v = at[3];
      t.start = has_start_ ? reinterpret_cast<const uint16_t*>(at[4]) : nullptr;
    }
  }

  bool half_, has_start_;
  std::vector<int64_t> shifts_;
};

// Keys, and first indices that are often below a multiple of 2^32.
std::vector<reserve_adamw_random> draw_random(Random& random, size_t count) {
  std::vector<reserve_adamw_random> drawn(count);
  for (reserve_adamw_random& r : drawn) {
    r.key = static_cast<uint64_t>(random.between(INT64_MIN, INT64_MAX));
    r.first = static_cast<uint64_t>(random.between(0, 3) << 32) - static_cast<uint64_t>(random.between(0, 5000));
  }
  return drawn;
}

// The first and the second moment of number i.
std::pair<double, double> moments(const reserve_adamw_tensor& t, int64_t i, bool half, bool stochastic) {
  if (!half) return {static_cast<const float*>(t.m)[i], static_cast<const float*>(t.v)[i]};
  const uint16_t v = static_cast<const uint16_t*>(t.v)[i];
  return {reserve::from_bfloat16(static_cast<const uint16_t*>(t.m)[i]),
          stochastic ? reserve::read_second(reserve::StochasticBfloat16{v}) : reserve::read_second(v)};
}

// How far the new weight of number i of `before` may be from the exact one: relative to the terms of its sums, which may
// cancel. Some instruction sets fuse the sums, and round them otherwise.
double allowed(const reserve_adamw_settings& s, const reserve_adamw_tensor& before, int64_t i, bool half,
               bool stochastic) {
  const auto [m, v] = moments(before, i, half, stochastic);
  const double largest = half ? 0x1p21 : 0x1p63, size = std::fabs(before.gradient[i]);
  const double g = std::isfinite(size) ? std::min(size, largest) : 0.0;
  const double of_m = s.beta1 * std::fabs(m) + s.rest1 * g, of_v = s.beta2 * std::fabs(v) + s.rest2 * g * g;
  const double new_v = std::fabs(s.beta2 * v + s.rest2 * g * g);
  const double cancelled = new_v > 0 ? std::max(1.0, of_v / new_v) : 1.0;
  const double step = s.m_scale * of_m / (std::sqrt(s.v_scale * new_v) + s.eps) * cancelled;
  const double weight = std::fabs(before.weight[i]);
  const double start = before.start != nullptr ? std::fabs(reserve::from_bfloat16(before.start[i])) : 0.0;
  return 1e-5 * (1.0 + weight + s.learning_rate * (step + s.weight_decay * (weight + start)));
}

bool near(float a, float b, double allowed) {
  if (std::isnan(a) || std::isnan(b) || std::isinf(a) || std::isinf(b)) return true;
  return !(std::fabs(static_cast<double>(a) - b) > allowed);
}

// Stored infinities and NaNs become NaNs of other bits.
bool same_moments(const void* a, const void* b, int64_t count) {
  const auto *x = static_cast<const uint16_t*>(a), *y = static_cast<const uint16_t*>(b);
  for (int64_t i = 0; i < count; ++i)
    if (x[i] != y[i] && ((x[i] & 0x7f80) != 0x7f80 || (y[i] & 0x7f80) != 0x7f80)) return false;
  return true;
}

int run(Random& random) {
  const bool half = random.chance(0.7);
  reserve_adamw_settings settings{1e-3f, 0.9f, 0.1f, 0.98f, 0.02f, 1e-6f, 0.1f, 1.0f, 1.0f,
                                  half ? RESERVE_BFLOAT16 : RESERVE_FLOAT32};
  const bool stochastic = half && random.chance(0.5);
  if (stochastic && random.chance(0.5)) settings.beta1 = settings.beta2 = 0.0f;
  const bool to_the_bit = stochastic && settings.beta2 == 0.0f;
  const Tensors before(random, half);
  const std::vector<reserve_adamw_random> drawn = draw_random(random, before.tensors.size());
  const reserve_adamw_random* const bits = stochastic ? drawn.data() : nullptr;
  Tensors expected(before);
  const auto count = static_cast<int64_t>(before.tensors.size());
  if (reserve_adamw_emulated(&settings, expected.tensors.data(), bits, count) != RESERVE_OK) return 1;
  for (int32_t isa : {RESERVE_ISA_BASELINE, RESERVE_ISA_AVX2, RESERVE_ISA_AVX512}) {
    if (!reserve_has_isa(isa)) continue;
    Tensors ours(before);
    const auto threads = static_cast<int32_t>(random.between(1, 4));
    if (reserve_adamw_cpu(&settings, ours.tensors.data(), bits, count, threads, isa) != RESERVE_OK) return 1;
    for (int64_t i = 0; to_the_bit && i < count; ++i) {
      const reserve_adamw_tensor &a = ours.tensors[i], &b = expected.tensors[i];
      if (!same_moments(a.m, b.m, a.count) || !same_moments(a.v, b.v, a.count)) {
        std::fprintf(stderr, "tensor %lld, instruction set %d: moments differ\n", static_cast<long long>(i), isa);
        return 1;
      }
    }
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < ours.tensors[i].count; ++j)
        if (!near(ours.tensors[i].weight[j], expected.tensors[i].weight[j],
                  allowed(settings, before.tensors[i], j, half, stochastic))) {
          std::fprintf(stderr, "tensor %lld, number %lld, instruction set %d: %g, not %g\n", static_cast<long long>(i),
                       static_cast<long long>(j), isa, ours.tensors[i].weight[j], expected.tensors[i].weight[j]);
          return 1;
        }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return fuzz(argc, argv, run); }
