// What the library says about itself.
#include "reserve_native.h"

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
    case RESERVE_CUDA_ERROR: return "CUDA error";
    default: return "unknown status";
  }
}
