#include "mixed_plan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

namespace reserve {
namespace {

// Radix and cost of a point in a pass of it, so that the cheapest splits are those that were fastest. Larger radices spill
// registers on the CPU, and take more of them than a CUDA thread has to spare.
constexpr int cpu_radices[] = {10, 165, 8, 148, 6, 130, 5, 120, 4, 100, 3, 95, 2, 70, 0};
constexpr int block_radices[] = {8, 190, 5, 200, 4, 160, 3, 170, 2, 140, 0};

// Locks would stay locked in a process forked during a call.
std::atomic<const MixedPlan*> plans[most_points + 1];

// The passes of `n_fft`, for which is_mixed_size holds, with radices that are listed with their costs and end with 0.
MixedPasses passes_of(int n_fft, const int* radices) {
  MixedPasses passes{};
  passes.n_fft = n_fft;
  passes.size = passes.even() ? n_fft / 2 : n_fft;
  // The cheapest split of each divisor of the size, and the radix of its first pass.
  int cost[most_points + 1], first[most_points + 1];
  cost[1] = 0;
  for (int n = 2; n <= passes.size; ++n) {
    if (passes.size % n != 0) continue;
    cost[n] = INT32_MAX;
    for (const int* r = radices; *r != 0; r += 2)
      if (n % *r == 0 && cost[n / *r] + r[1] < cost[n]) {
        cost[n] = cost[n / *r] + r[1];
        first[n] = *r;
      }
  }
  for (int left = passes.size; left > 1; left /= first[left]) passes.radix[passes.count++] = first[left];
  // Few streams of memory while blocks are large.
  std::sort(passes.radix, passes.radix + passes.count);
  for (int p = 0, left = passes.size; p < passes.count; ++p) {
    left /= passes.radix[p];
    passes.block[p] = left;
    passes.twiddle[p] = passes.twiddles;
    passes.twiddles += left * (passes.radix[p] - 1);
  }
  passes.turns = passes.twiddles;
  if (passes.even()) passes.twiddles += n_fft / 4 + 1;
  return passes;
}

const MixedPlan* make_plan(int n_fft) {
  auto plan = std::make_unique<MixedPlan>();
  plan->passes = passes_of(n_fft, cpu_radices);
  plan->block_passes = passes_of(n_fft, block_radices);
  plan->twiddles.resize(static_cast<size_t>(plan->passes.twiddles));
  fill_twiddles(plan->passes, TwiddleOrder::by_butterfly, plan->twiddles.data());
  for (int k = 0; k < plan->passes.size; ++k) plan->places.push_back(place_of(plan->passes, k, MixedPlan::gap));
  return plan.release();
}

}  // namespace

bool is_mixed_size(int n_fft) noexcept {
  if (n_fft < 2 || n_fft > most_points) return false;
  for (const int factor : {2, 3, 5})
    while (n_fft % factor == 0) n_fft /= factor;
  return n_fft == 1;
}

void fill_twiddles(const MixedPasses& passes, TwiddleOrder order, Complex<float>* out) noexcept {
  const auto turn = [](int numerator, int denominator) -> Complex<float> {
    const double angle = 2.0 * 3.14159265358979323846 / denominator * (numerator % denominator);
    return {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
  };
  for (int p = 0; p < passes.count; ++p) {
    const int radix = passes.radix[p], block = passes.block[p];
    for (int j = 0; j < block; ++j)
      for (int q = 1; q < radix; ++q) {
        const int at = order == TwiddleOrder::by_butterfly ? j * (radix - 1) + q - 1 : (q - 1) * block + j;
        out[passes.twiddle[p] + at] = turn(j * q, radix * block);
      }
  }
  if (passes.even())
    for (int k = 0; k <= passes.n_fft / 4; ++k) out[passes.turns + k] = turn(k, passes.n_fft);
}

const MixedPlan* mixed_plan(int n_fft) noexcept {
  std::atomic<const MixedPlan*>& slot = plans[n_fft];
  const MixedPlan* found = slot.load(std::memory_order_acquire);
  if (found != nullptr) return found;
  try {
    const MixedPlan* made = make_plan(n_fft);
    // If several threads make it at once, all use the one that was stored first.
    if (slot.compare_exchange_strong(found, made)) return made;
    delete made;
    return found;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace reserve
