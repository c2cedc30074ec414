// CUDA's execution model on the host, for tests: a block's threads are fibers that meet at barriers and in warps.
//
// Blocks run one after the other. Between two meetings the fibers run in an order that set_schedule() picks: a kernel
// whose result depends on it lacks a barrier. Fibers that meet at different operations, that leave while others wait, or
// that use part of a warp are errors here, also where some GPU would let them pass.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define threadIdx (::scene3d::emulation::here.thread)
#define blockIdx (::scene3d::emulation::here.block)
#define blockDim (::scene3d::emulation::here.block_dim)
#define gridDim (::scene3d::emulation::here.grid_dim)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

namespace scene3d {
namespace emulation {

struct Index {
  unsigned x, y, z;
};

struct Place {
  Index thread, block, block_dim, grid_dim;
};

// Of the running fiber.
extern Place here;

// Runs a kernel; n_threads a multiple of 32, at most 1024. Throws std::runtime_error where the fibers go astray.
void launch(const char* name, unsigned n_blocks, unsigned n_threads, const std::function<void()>& kernel);

// Order of fibers and blocks: 0 ascending, 1 descending, others mixed by that seed.
void set_schedule(unsigned seed);

// Waits for the whole block. Gives the sum of `value` over it.
unsigned meet_block(unsigned value, const char* what);
// Waits for the warp. Gives the 32 values, which stay until its next but one meeting.
const uint32_t* meet_warp(unsigned mask, uint32_t value, const char* what);

template <class T>
uint32_t bits_of(T value) {
  static_assert(sizeof(T) == 4, "shuffles move four bytes");
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

template <class T>
T value_of(uint32_t bits) {
  T value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline unsigned lane() { return here.thread.x & 31; }

}  // namespace emulation
}  // namespace scene3d

static inline void __syncthreads() { scene3d::emulation::meet_block(0, "__syncthreads"); }
static inline int __syncthreads_count(int x) {
  return static_cast<int>(scene3d::emulation::meet_block(x != 0, "__syncthreads_count"));
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { scene3d::emulation::meet_warp(mask, 0, "__syncwarp"); }
static inline unsigned __ballot_sync(unsigned mask, int x) {
  const uint32_t* values = scene3d::emulation::meet_warp(mask, x != 0, "__ballot_sync");
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; i++) bits |= values[i] << i;
  return bits;
}
static inline int __any_sync(unsigned mask, int x) { return __ballot_sync(mask, x) != 0; }
static inline int __all_sync(unsigned mask, int x) { return __ballot_sync(mask, x) == 0xffffffffu; }
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int from) {
  using namespace scene3d::emulation;
  return value_of<T>(meet_warp(mask, bits_of(value), "__shfl_sync")[from & 31]);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int by) {
  using namespace scene3d::emulation;
  return value_of<T>(meet_warp(mask, bits_of(value), "__shfl_xor_sync")[lane() ^ static_cast<unsigned>(by)]);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  using namespace scene3d::emulation;
  const uint32_t* values = meet_warp(mask, bits_of(value), "__shfl_up_sync");
  return lane() >= by ? value_of<T>(values[lane() - by]) : value;
}
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline float __uint_as_float(unsigned x) { return scene3d::emulation::value_of<float>(x); }
static inline unsigned __float_as_uint(float x) { return scene3d::emulation::bits_of(x); }
template <class T, class U>
static inline T atomicAdd(T* p, U value) {
  const T old = *p;
  *p += static_cast<T>(value);
  return old;
}
