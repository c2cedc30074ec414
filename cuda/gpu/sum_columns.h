// Sums of twelve numbers, a 3x4 matrix, over all threads of a launch in a fixed order: blocks leave their sums, which one
// more block adds up.
#pragma once
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {

constexpr int kColumns = 12;

// Writes the block's sums of the threads' terms.
template <int n_warps>
__device__ inline void store_column_sums(float* terms, float* partials) {
  __shared__ float part[n_warps][kColumns];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  sum_lanes<kColumns>(terms, lane);
  const int slot = slot_of_lane<kColumns>(lane);
  if (slot >= 0) part[warp][slot] = terms[0];
  __syncthreads();
  if (threadIdx.x >= kColumns) return;
  float sum = 0.f;
  for (int w = 0; w < n_warps; w++) sum += part[w][threadIdx.x];
  partials[blockIdx.x * static_cast<int64_t>(kColumns) + threadIdx.x] = sum;
}

// Adds up the sums of n_blocks, and writes zeros after them up to n_out numbers. Nothing is written where *loss, if
// given, is not finite.
void sum_columns(int64_t n_blocks, const float* partials, const float* loss, int n_out, float* out, Stream stream);

}  // namespace gpu
}  // namespace scene3d
