// How functions are marked that the CPU and the CUDA code share.
#pragma once

#if defined(__CUDACC__)
#define RESERVE_HD __host__ __device__ __forceinline__
#define RESERVE_UNROLL _Pragma("unroll")
#define RESERVE_NO_UNROLL _Pragma("unroll 1")
#else
#define RESERVE_HD inline __attribute__((always_inline))
#define RESERVE_UNROLL _Pragma("GCC unroll 16")
#define RESERVE_NO_UNROLL
#endif
