// The limit to a range below each clip's largest value, for any part of the rows.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>

#include "frame_source.h"
#include "log_mel_cpu.h"

namespace reserve {

// Calls call(clip, block) for the values of rows [begin, end), without those beyond the end of a clip and the appended.
template <typename Call>
void each_block(const reserve_log_mel& p, int64_t begin, int64_t end, const Call& call) {
  const int64_t bands = p.n_mels, columns = bands + p.append;
  float* out = static_cast<float*>(p.out);
  for (int64_t row = begin; row < end;) {
    const int64_t clip = row / p.frames, frame = row % p.frames;
    const int64_t all = p.frames - frame < end - row ? p.frames - frame : end - row;
    const int64_t left = clip_at(p, clip).frames - frame, own = left < all ? left : all;
    if (own > 0 && p.bands_first) {
      call(clip, Block{out + clip * bands * p.frames + frame, bands, own, p.frames});
    } else if (own > 0) {
      float* first = out + row * columns;
      call(clip, p.append ? Block{first, own, bands, columns} : Block{first, 1, own * bands, 0});
    }
    row += all;
  }
}

// Values are at least the largest of their clip less `below`, or if that is negative at most the smallest less `below`.
class Range {
 public:
  explicit Range(float below) noexcept : below_(below), larger_(!std::signbit(below)) {}

  // False if there is no memory.
  bool prepare(int64_t clips) noexcept {
    extremes_.reset(new (std::nothrow) std::atomic<float>[static_cast<size_t>(clips)]);
    if (extremes_ == nullptr) return false;
    for (int64_t clip = 0; clip < clips; ++clip) extremes_[clip] = none();
    return true;
  }

  // First for all rows, in any threads and order.
  void note(const reserve_log_mel& p, const CpuRange& cpu, int64_t begin, int64_t end) noexcept {
    each_block(p, begin, end, [&](int64_t clip, const Block& block) {
      const float found = cpu.extreme[larger_](block, none());
      std::atomic<float>& extreme = extremes_[clip];
      float held = extreme;
      // NaN is more extreme than any number, and stays.
      while (held == held && !(larger_ ? held >= found : held <= found)) {
        if (extreme.compare_exchange_weak(held, found)) break;
      }
    });
  }

  // Then for all rows.
  void limit(const reserve_log_mel& p, const CpuRange& cpu, int64_t begin, int64_t end) const noexcept {
    each_block(p, begin, end,
               [&](int64_t clip, const Block& block) { cpu.limit[larger_](block, extremes_[clip] - below_); });
  }

 private:
  float none() const noexcept { return larger_ ? -HUGE_VALF : HUGE_VALF; }

  const float below_;
  const bool larger_;
  std::unique_ptr<std::atomic<float>[]> extremes_;
};

}  // namespace reserve
