// How much shared memory a CUDA block needs; also in builds without CUDA.
#include "log_mel_block.h"
#include "problem.h"
#include "reserve_native.h"

namespace reserve {
namespace {

template <typename Plan>
int64_t shared_bytes(int32_t hop_length, int32_t n_mels) noexcept {
  return BlockLayout<Plan>::shared_floats(hop_length, n_mels) * static_cast<int64_t>(sizeof(float));
}

}  // namespace
}  // namespace reserve

extern "C" int32_t reserve_log_mel_cuda_shared_bytes(int32_t n_fft, int32_t hop_length, int32_t n_mels,
                                                     int64_t* bytes) {
  using namespace reserve;
  if (bytes == nullptr || hop_length < 1 || n_mels < 1) return RESERVE_INVALID_ARGUMENT;
  if (!has_plan(n_fft) || !fits_block(n_fft, hop_length, n_mels)) return RESERVE_UNSUPPORTED;
  switch (n_fft) {
    case Plan1536::n_fft: *bytes = shared_bytes<Plan1536>(hop_length, n_mels); break;
    case Plan3072::n_fft: *bytes = shared_bytes<Plan3072>(hop_length, n_mels); break;
    default: *bytes = shared_bytes<Plan4608>(hop_length, n_mels);
  }
  return RESERVE_OK;
}
