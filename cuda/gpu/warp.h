// Sums over a warp, of several values at once.
#pragma once
#include "gpu/platform.h"

namespace scene3d {
namespace gpu {

// Lanes exchange halves of their values instead of each summing all of them: n values take about n + 4 shuffles where
// n sums one after the other take 5 n. On return v[0] of lane l is the warp's sum of value slot_of_lane<n>(l).
template <int n, int step = 16>
__device__ inline void sum_lanes(float* v, unsigned lane) {
  if constexpr (step > 0) {
    constexpr int half = (n + 1) / 2;
    const bool is_upper = lane & step;
#pragma unroll
    for (int i = 0; i < half; i++) {
      if constexpr (n == 1) {
        v[i] += __shfl_xor_sync(kAllLanes, v[i], step);
      } else {
        const float other = half + i < n ? v[half + i] : 0.f;
        const float sent = is_upper ? v[i] : other;
        v[i] = (is_upper ? other : v[i]) + __shfl_xor_sync(kAllLanes, sent, step);
      }
    }
    sum_lanes<half, step / 2>(v, lane);
  }
}

// Which of the n sums a lane holds after sum_lanes; -1 for lanes that hold none or a copy.
template <int n>
__device__ inline int slot_of_lane(unsigned lane) {
  int slot = 0, size = n, left = n;
  for (unsigned step = 16; step > 0; step /= 2) {
    if (size == 1) {
      if (lane & step) return -1;
      continue;
    }
    const int half = (size + 1) / 2;
    if (lane & step) slot += half, left -= half;
    else left = left < half ? left : half;
    size = half;
    if (left < 1) return -1;
  }
  return slot;
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline unsigned warp_sum(unsigned x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Adds up over the lanes up to and with this one.
__device__ inline unsigned warp_prefix(unsigned x, unsigned lane) {
#pragma unroll
  for (unsigned step = 1; step < 32; step *= 2) {
    const unsigned before = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += before;
  }
  return x;
}

}  // namespace gpu
}  // namespace scene3d
