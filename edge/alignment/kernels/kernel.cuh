// What all kernels share. nvcc, NVRTC and the tests' emulation on the CPU (EMULATED) read it; no other header is
// needed.
//
// Compiled with -fmad=false: sums and products round one by one, as numpy's do, so a kernel, its emulation and its
// reference agree bit for bit. Where a fused operation pays and is exact, fmaf says so.
#pragma once

typedef unsigned char uint8;
typedef unsigned int uint32;
typedef unsigned long long uint64;
typedef long long int64;

#define INFINITE __int_as_float(0x7f800000)
constexpr uint32 WHOLE_WARP = 0xffffffffu;

#ifndef EMULATED

// The block's dynamic shared memory: the only kind in use, so that the launcher knows every byte.
template <typename T>
__device__ __forceinline__ T* block_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

// The bits of the nearest half, ties to even. Inline, since NVRTC comes without cuda_fp16.h.
__device__ __forceinline__ unsigned short half_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

#endif
