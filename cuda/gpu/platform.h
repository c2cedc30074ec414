// What kernels and their callers use of CUDA. With S3D_EMULATE the same sources compile against gpu/emulation.h and run
// on the host: slow, but every index, barrier and shuffle is the real one. Tests compare that with the CPU backend.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "math/config.h"

#if !defined(S3D_EMULATE)
#include <cuda_runtime.h>
#define S3D_LAUNCH(kernel, n_blocks, n_threads, stream, ...)                                                \
  do {                                                                                                     \
    (kernel)<<<static_cast<unsigned>(n_blocks), n_threads, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    ::scene3d::gpu::check(cudaGetLastError(), #kernel);                                                     \
  } while (0)
#else
#include "gpu/emulation.h"
#define S3D_LAUNCH(kernel, n_blocks, n_threads, stream, ...) \
  (static_cast<void>(stream),                                \
   ::scene3d::emulation::launch(#kernel, static_cast<unsigned>(n_blocks), n_threads, [&] { (kernel)(__VA_ARGS__); }))
#endif

namespace scene3d {
namespace gpu {

// A CUDA stream as Python passes it.
using Stream = void*;

constexpr unsigned kAllLanes = 0xffffffffu;

// Blocks of n_threads that cover n items.
inline int64_t blocks_for(int64_t n, int n_threads) { return (n + n_threads - 1) / n_threads; }

#if !defined(S3D_EMULATE)

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

inline void set_zero(void* p, int64_t n_bytes, Stream stream) {
  if (n_bytes) check(cudaMemsetAsync(p, 0, static_cast<size_t>(n_bytes), static_cast<cudaStream_t>(stream)), "memset");
}

// All bits.
inline void set_ones(void* p, int64_t n_bytes, Stream stream) {
  if (n_bytes) check(cudaMemsetAsync(p, 0xff, static_cast<size_t>(n_bytes), static_cast<cudaStream_t>(stream)), "memset");
}

inline void copy_on_device(void* to, const void* from, int64_t n_bytes, Stream stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  if (n_bytes) check(cudaMemcpyAsync(to, from, static_cast<size_t>(n_bytes), cudaMemcpyDeviceToDevice, s), "copy");
}

// Waits for everything before it in the stream.
inline void copy_to_host(void* to, const void* from, int64_t n_bytes, Stream stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(n_bytes), cudaMemcpyDeviceToHost, s), "copy to host");
  check(cudaStreamSynchronize(s), "synchronize");
}

#if defined(__CUDACC__)
// 2^x and a / b of the special function unit: 2 units in the last place, denormals count as 0.
__device__ inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float quotient_of(float a, float b) { return __fdividef(a, b); }
#endif

#else

inline void set_zero(void* p, int64_t n_bytes, Stream) { std::memset(p, 0, static_cast<size_t>(n_bytes)); }
inline void set_ones(void* p, int64_t n_bytes, Stream) { std::memset(p, 0xff, static_cast<size_t>(n_bytes)); }
inline void copy_on_device(void* to, const void* from, int64_t n_bytes, Stream) {
  std::memcpy(to, from, static_cast<size_t>(n_bytes));
}
inline void copy_to_host(void* to, const void* from, int64_t n_bytes, Stream) {
  std::memcpy(to, from, static_cast<size_t>(n_bytes));
}
inline float exp2_of(float x) { return std::exp2(x); }
inline float quotient_of(float a, float b) { return a / b; }

#endif

}  // namespace gpu
}  // namespace scene3d
