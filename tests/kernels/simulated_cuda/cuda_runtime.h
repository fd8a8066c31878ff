// As much of the CUDA runtime as log_mel_cuda.cu needs, on the CPU: every thread of a block is a thread of the host,
// and the barriers are barriers. ThreadSanitizer then sees what two threads touch without a barrier between them.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__
#define __align__(n)

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorIllegalAddress = 700,
};
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;

struct dim3 {
  unsigned x, y = 1, z = 1;
  explicit dim3(unsigned x_) : x(x_) {}
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaLaunchKernel(const void* kernel, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t stream);
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

struct Position {
  unsigned x;
};
inline thread_local Position blockIdx, threadIdx;
inline pthread_barrier_t block_barrier, warp_barriers[32];

inline void __syncthreads() { pthread_barrier_wait(&block_barrier); }
inline void __syncwarp() {
#if !defined(WITHOUT_SYNCWARP)
  pthread_barrier_wait(&warp_barriers[threadIdx.x / 32]);
#endif
}
