#include "twiddles.h"

#include <cmath>

namespace reserve {
namespace {

void write_turn(float* out, int numerator, int denominator) {
  const double turn = 2.0 * 3.14159265358979323846 / denominator * (numerator % denominator);
  out[0] = static_cast<float>(std::cos(turn));
  out[1] = static_cast<float>(std::sin(turn));
}

template <typename Plan>
struct Tables {
  float first[Plan::block][Plan::first - 1][2];
  float second[Plan::third][Plan::second - 1][2];
  float real[Plan::first][Plan::block][2];

  Tables() noexcept {
    for (int j = 0; j < Plan::block; ++j)
      for (int q = 1; q < Plan::first; ++q) write_turn(first[j][q - 1], j * q, Plan::size);
    for (int j = 0; j < Plan::third; ++j)
      for (int q = 1; q < Plan::second; ++q) write_turn(second[j][q - 1], j * q, Plan::block);
    for (int q = 0; q < Plan::first; ++q)
      for (int r = 0; r < Plan::block; ++r) write_turn(real[q][r], q + Plan::first * r, Plan::n_fft);
  }
};

template <typename Plan>
Twiddles tables() noexcept {
  static const Tables<Plan> made;
  return {&made.first[0][0][0], &made.second[0][0][0], &made.real[0][0][0]};
}

}  // namespace

Twiddles twiddles_for(int n_fft) noexcept {
  switch (n_fft) {
    case Plan1536::n_fft: return tables<Plan1536>();
    case Plan3072::n_fft: return tables<Plan3072>();
    default: return tables<Plan4608>();
  }
}

}  // namespace reserve
