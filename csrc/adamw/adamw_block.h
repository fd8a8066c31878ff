// What a block of the CUDA kernel does, written so that the CPU can execute it too: many tensors a launch.
#pragma once

#include <cstdint>

#include "adamw_number.h"

namespace reserve {

constexpr int adamw_threads = 256;
constexpr int adamw_quads = 2;  // quadruples of numbers that a thread updates
constexpr int64_t adamw_chunk = int64_t{4} * adamw_quads * adamw_threads;

// The tensors of a launch: as many as fit into a kernel's arguments, which are at most 4 KiB on devices and compilers of
// all ages.
template <typename Moment>
struct AdamwLaunch {
  static constexpr int most = 72;
  reserve_adamw_settings settings;
  int32_t tensors;
  uint32_t first_block[most + 1];  // each tensor's first block, then the number of blocks
  reserve_adamw_tensor tensor[most];
};

template <>
struct AdamwLaunch<StochasticBfloat16> {
  static constexpr int most = 59;
  reserve_adamw_settings settings;
  int32_t tensors;
  uint32_t first_block[most + 1];
  reserve_adamw_tensor tensor[most];
  reserve_adamw_random random[most];
};
static_assert(sizeof(AdamwLaunch<uint16_t>) <= 4096 && sizeof(AdamwLaunch<StochasticBfloat16>) <= 4096,
              "too many tensors for a kernel's arguments");

// Calls `launch_one` with launches that hold `count` tensors one after another, until one gives another status than
// RESERVE_OK, which is returned.
template <typename Moment, typename LaunchOne>
int32_t in_launches(const reserve_adamw_settings& settings, const reserve_adamw_tensor* tensors,
                    [[maybe_unused]] const reserve_adamw_random* random, int64_t count,
                    const LaunchOne& launch_one) noexcept {
  constexpr int64_t most_blocks = INT32_MAX;
  AdamwLaunch<Moment> launch;
  launch.settings = settings;
  for (int64_t i = 0; i < count;) {
    launch.tensors = 0;
    int64_t blocks = 0;
    for (; i < count && launch.tensors < launch.most; ++i) {
      const int64_t needed = tensors[i].count / adamw_chunk + (tensors[i].count % adamw_chunk != 0);
      if (needed > most_blocks) return RESERVE_UNSUPPORTED;
      if (needed == 0) continue;
      if (blocks + needed > most_blocks) break;
      launch.tensor[launch.tensors] = tensors[i];
      if constexpr (is_stochastic<Moment>) launch.random[launch.tensors] = random[i];
      launch.first_block[launch.tensors++] = static_cast<uint32_t>(blocks);
      blocks += needed;
    }
    launch.first_block[launch.tensors] = static_cast<uint32_t>(blocks);
    if (blocks == 0) continue;
    const int32_t status = launch_one(launch, static_cast<uint32_t>(blocks));
    if (status != RESERVE_OK) return status;
  }
  return RESERVE_OK;
}

// The random bits of number i of a launch's tensor; 0 if moments are rounded to the nearest value.
template <typename Moment>
RESERVE_HD uint32_t random_of([[maybe_unused]] const AdamwLaunch<Moment>& launch, [[maybe_unused]] int tensor,
                              [[maybe_unused]] int64_t i) {
  if constexpr (is_stochastic<Moment>) {
    const uint64_t index = launch.random[tensor].first + static_cast<uint64_t>(i);
    return random_bits(random_key(launch.random[tensor], index), static_cast<uint32_t>(index));
  } else {
    return 0;
  }
}

// Four numbers that one access moves.
template <typename Number>
struct alignas(4 * sizeof(Number)) Quad {
  Number at[4];
};

template <typename Number>
RESERVE_HD bool is_aligned(const Number* array) {
  return reinterpret_cast<uintptr_t>(array) % sizeof(Quad<Number>) == 0;
}

template <typename Moment>
RESERVE_HD void update_quad(const AdamwLaunch<Moment>& launch, int tensor, int64_t i) {
  const reserve_adamw_tensor& t = launch.tensor[tensor];
  auto* const weight_at = reinterpret_cast<Quad<float>*>(t.weight + i);
  auto* const m_at = reinterpret_cast<Quad<Moment>*>(static_cast<Moment*>(t.m) + i);
  auto* const v_at = reinterpret_cast<Quad<Moment>*>(static_cast<Moment*>(t.v) + i);
  const auto gradient = *reinterpret_cast<const Quad<float>*>(t.gradient + i);
  Quad<float> weight = *weight_at;
  Quad<Moment> m = *m_at, v = *v_at;
  Quad<uint16_t> start = {};
  if (t.start != nullptr) start = *reinterpret_cast<const Quad<uint16_t>*>(t.start + i);
  RESERVE_UNROLL
  for (int k = 0; k < 4; ++k)
    weight.at[k] = adamw_number(launch.settings, weight.at[k], gradient.at[k], from_bfloat16(start.at[k]), &m.at[k],
                                &v.at[k], random_of(launch, tensor, i + k));
  *weight_at = weight;
  *m_at = m;
  *v_at = v;
}

// The part of `thread` in a block of a launch.
template <typename Moment>
RESERVE_HD void adamw_block(const AdamwLaunch<Moment>& launch, uint32_t block, int thread) {
  int low = 0, high = launch.tensors - 1;  // the last tensor whose blocks do not begin behind this one
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (launch.first_block[middle] <= block)
      low = middle;
    else
      high = middle - 1;
  }
  const reserve_adamw_tensor& t = launch.tensor[low];
  Moment* const m = static_cast<Moment*>(t.m);
  Moment* const v = static_cast<Moment*>(t.v);
  const bool aligned =
      is_aligned(t.weight) && is_aligned(t.gradient) && is_aligned(m) && is_aligned(v) && is_aligned(t.start);
  const int64_t begin = (block - launch.first_block[low]) * adamw_chunk;
  RESERVE_UNROLL
  for (int q = 0; q < adamw_quads; ++q) {
    const int64_t i = begin + int64_t{4} * (q * adamw_threads + thread);
    if (aligned && i + 4 <= t.count) {
      update_quad(launch, low, i);
    } else {
      RESERVE_NO_UNROLL
      for (int64_t j = i; j < i + 4 && j < t.count; ++j) {
        const float start = t.start != nullptr ? from_bfloat16(t.start[j]) : 0.0f;
        t.weight[j] =
            adamw_number(launch.settings, t.weight[j], t.gradient[j], start, m + j, v + j, random_of(launch, low, j));
      }
    }
  }
}

}  // namespace reserve
