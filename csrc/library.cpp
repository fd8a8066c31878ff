// What the library says about itself.
#include <cstdio>

#include "cuda_error.h"
#include "reserve_native.h"

namespace reserve {
namespace {

thread_local char cuda_error[256] = "CUDA error: none in this thread";

}  // namespace

void keep_cuda_error(const char* name, const char* meaning) noexcept {
  std::snprintf(cuda_error, sizeof cuda_error, "CUDA error: %s: %s", name, meaning);
}

}  // namespace reserve

#if !defined(RESERVE_HAVE_CUDA)
extern "C" int32_t reserve_has_cuda(void) { return 0; }
#endif

extern "C" int32_t reserve_abi_version(void) { return RESERVE_ABI_VERSION; }

extern "C" const char* reserve_status_message(int32_t status) {
  switch (status) {
    case RESERVE_OK: return "no error";
    case RESERVE_INVALID_ARGUMENT: return "invalid argument";
    case RESERVE_UNSUPPORTED: return "not supported by this build or processor";
    case RESERVE_OUT_OF_MEMORY: return "out of memory";
    case RESERVE_CUDA_ERROR: return reserve::cuda_error;
    default: return "unknown status";
  }
}
