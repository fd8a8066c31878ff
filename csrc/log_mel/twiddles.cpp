#include "twiddles.h"

#include <cmath>

namespace reserve {
namespace {

template <typename Plan>
struct Tables {
  alignas(64) float all[twiddle_floats<Plan>];

  Tables() noexcept {
    float* next = all;
    const auto add_turn = [&](int numerator, int denominator) {
      const double turn = 2.0 * 3.14159265358979323846 / denominator * (numerator % denominator);
      *next++ = static_cast<float>(std::cos(turn));
      *next++ = static_cast<float>(std::sin(turn));
    };
    for (int q = 1; q < Plan::first; ++q)
      for (int j = 0; j < Plan::block; ++j) add_turn(j * q, Plan::size);
    for (int q = 1; q < Plan::second; ++q)
      for (int j = 0; j < Plan::third; ++j) add_turn(j * q, Plan::block);
    for (int q = 0; q < Plan::first; ++q)
      for (int place = 0; place < Plan::block; ++place) add_turn(q + Plan::first * Plan::r_at(place), Plan::n_fft);
  }
};

template <typename Plan>
const float* tables() noexcept {
  static const Tables<Plan> made;
  return made.all;
}

}  // namespace

bool has_plan(int n_fft) noexcept {
  return n_fft == Plan1536::n_fft || n_fft == Plan3072::n_fft || n_fft == Plan4608::n_fft;
}

const float* twiddle_tables(int n_fft) noexcept {
  switch (n_fft) {
    case Plan1536::n_fft: return tables<Plan1536>();
    case Plan3072::n_fft: return tables<Plan3072>();
    default: return tables<Plan4608>();
  }
}

Twiddles twiddles_for(int n_fft) noexcept {
  switch (n_fft) {
    case Plan1536::n_fft: return twiddles_in<Plan1536>(tables<Plan1536>());
    case Plan3072::n_fft: return twiddles_in<Plan3072>(tables<Plan3072>());
    default: return twiddles_in<Plan4608>(tables<Plan4608>());
  }
}

}  // namespace reserve
