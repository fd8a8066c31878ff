#include "twiddles.h"

#include <cmath>
#include <cstring>

#include "log_mel_block.h"
#include "reserve_native.h"

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

template <typename Plan>
void power_places(int32_t* out) noexcept {
  for (int bin = 0; bin < Plan::bins; ++bin) out[bin] = BlockLayout<Plan>::power_of(bin);
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

extern "C" int32_t reserve_log_mel_table_sizes(int32_t n_fft, int32_t* twiddles, int32_t* places) {
  using namespace reserve;
  if (twiddles == nullptr || places == nullptr) return RESERVE_INVALID_ARGUMENT;
  if (!has_plan(n_fft)) return RESERVE_UNSUPPORTED;
  *twiddles = n_fft == Plan1536::n_fft   ? twiddle_floats<Plan1536>
              : n_fft == Plan3072::n_fft ? twiddle_floats<Plan3072>
                                         : twiddle_floats<Plan4608>;
  *places = n_fft / 2 + 1;
  return RESERVE_OK;
}

extern "C" int32_t reserve_log_mel_tables(int32_t n_fft, float* twiddles, int32_t* places) {
  using namespace reserve;
  int32_t floats = 0, bins = 0;
  const int32_t status = reserve_log_mel_table_sizes(n_fft, &floats, &bins);
  if (status != RESERVE_OK) return status;
  if (twiddles == nullptr || places == nullptr) return RESERVE_INVALID_ARGUMENT;
  std::memcpy(twiddles, twiddle_tables(n_fft), static_cast<size_t>(floats) * sizeof(float));
  switch (n_fft) {
    case Plan1536::n_fft: power_places<Plan1536>(places); break;
    case Plan3072::n_fft: power_places<Plan3072>(places); break;
    default: power_places<Plan4608>(places);
  }
  return RESERVE_OK;
}
