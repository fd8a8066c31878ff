// What a CUDA call's result is to the library's callers. For .cu files alone.
#pragma once

#include <cuda_runtime.h>

#include "cuda_error.h"
#include "reserve_native.h"

namespace reserve {

inline int32_t status_of(cudaError_t error) {
  if (error == cudaSuccess) return RESERVE_OK;
  cudaGetLastError();  // Forgets it: it was reported.
  switch (error) {
    // The library has no code for the device, or none that its driver can compile.
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion: return RESERVE_UNSUPPORTED;
    case cudaErrorMemoryAllocation: return RESERVE_OUT_OF_MEMORY;
    default: keep_cuda_error(cudaGetErrorName(error), cudaGetErrorString(error)); return RESERVE_CUDA_ERROR;
  }
}

}  // namespace reserve
