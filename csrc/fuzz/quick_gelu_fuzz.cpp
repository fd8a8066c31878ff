// Feeds bias + quick GELU random problems, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//   quick_gelu_fuzz SECONDS [SEED]
// Numbers are any bits, NaN and infinity included; every buffer is exactly as long as the interface asks for. Each
// instruction set must agree with the formula in double; a disagreement ends the run.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "fuzz_loop.h"
#include "random_input.h"
#include "reserve_native.h"

namespace {

using reserve_fuzz::exactly;
using reserve_fuzz::fuzz;
using reserve_fuzz::Random;

float widened(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Numbers in memory as the interface has them: float, or the upper halves of floats.
class Array {
 public:
  Array(Random& random, int64_t count, bool half) : half_(half), shift_(random.chance(0.7) ? 0 : random.between(1, 5)) {
    const bool any_bits = random.chance(0.3);
    std::vector<float> drawn(static_cast<size_t>(count + shift_));
    for (float& value : drawn) {
      value = 4.0f * random.normal();
      if (any_bits) {
        const auto bits = static_cast<uint32_t>(random.between(0, UINT32_MAX));
        std::memcpy(&value, &bits, sizeof value);
      }
    }
    floats_ = exactly(drawn);
    std::vector<uint16_t> upper(drawn.size());
    for (size_t i = 0; i < drawn.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &drawn[i], sizeof bits);
      upper[i] = static_cast<uint16_t>(bits >> 16);
    }
    halves_ = exactly(upper);
  }

  void* data() { return half_ ? static_cast<void*>(halves_.get() + shift_) : floats_.get() + shift_; }
  double at(int64_t i) const { return half_ ? widened(halves_[i + shift_]) : floats_[i + shift_]; }

 private:
  bool half_;
  int64_t shift_;
  std::unique_ptr<float[]> floats_;
  std::unique_ptr<uint16_t[]> halves_;
};

// `scale` bounds the sum of the sizes of what was added up to `expected`. Anything may come of numbers near the limits of
// float, and of NaN and infinity.
bool near(double found, double expected, double scale, double tolerance) {
  if (!std::isfinite(expected) || !(scale < 1e38)) return true;
  return std::fabs(found - expected) <= tolerance * scale + 1e-30;
}

int differs(const char* what, int32_t isa, int64_t i, double found, double expected) {
  std::fprintf(stderr, "%s %lld, instruction set %d: %g, not %g\n", what, static_cast<long long>(i), isa, found,
               expected);
  return 1;
}

int run(Random& random) {
  const bool half = random.chance(0.5), has_bias = random.chance(0.8), backward = random.chance(0.6);
  const int64_t features = random.chance(0.1) ? random.between(20000, 80000) : random.between(0, 700);
  const int64_t rows = features > 700 ? random.between(1, 3) : random.between(0, 300);
  const int64_t count = rows * features;
  Array x(random, count, half), grad(random, count, half), bias(random, features, false);
  for (int32_t isa : {RESERVE_ISA_BASELINE, RESERVE_ISA_AVX2, RESERVE_ISA_AVX512}) {
    if (!reserve_has_isa(isa)) continue;
    Array out(random, count, half), grad_bias(random, features, false);
    reserve_quick_gelu problem{};
    problem.x = x.data();
    problem.out = out.data();
    problem.bias = has_bias ? static_cast<float*>(bias.data()) : nullptr;
    problem.grad = backward ? grad.data() : nullptr;
    problem.grad_bias = backward && has_bias ? static_cast<float*>(grad_bias.data()) : nullptr;
    problem.rows = rows;
    problem.features = features;
    problem.dtype = half ? RESERVE_BFLOAT16 : RESERVE_FLOAT32;
    if (reserve_quick_gelu_cpu(&problem, static_cast<int32_t>(random.between(1, 4)), isa) != RESERVE_OK) return 1;
    std::vector<double> sums(static_cast<size_t>(features)), sizes(static_cast<size_t>(features));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t column = i % features;
      // In float, where it may become infinite.
      const float z = static_cast<float>(x.at(i)) + (has_bias ? static_cast<float>(bias.at(column)) : 0.0f);
      const double s = 1 / (1 + std::exp(-1.702 * static_cast<double>(z)));
      const double expected = backward ? grad.at(i) * (s + s * (1 - s) * 1.702 * z) : z * s;
      const double scale = backward ? std::fabs(1.2 * grad.at(i)) : std::fabs(expected);
      if (!near(out.at(i), expected, scale, half ? 4.1e-3 : 1e-5)) return differs("number", isa, i, out.at(i), expected);
      sums[column] += expected;
      sizes[column] += scale;
    }
    for (int64_t i = 0; problem.grad_bias != nullptr && i < features; ++i)
      if (!near(grad_bias.at(i), sums[i], sizes[i], 1e-5))
        return differs("gradient of the bias", isa, i, grad_bias.at(i), sums[i]);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return fuzz(argc, argv, run); }
