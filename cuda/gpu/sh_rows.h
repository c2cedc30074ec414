// Rows of spherical-harmonics coefficients of a warp's 32 Gaussians, moved through shared memory: read one row a thread
// they would cost 32 cache lines per coefficient.
#pragma once
#include "gpu/platform.h"

namespace scene3d {
namespace gpu {

constexpr int kGroupThreads = 128;  // Gaussians of a block of the per-Gaussian kernels

template <int DEGREE>
struct ShRows {
  static constexpr int kUsed = 3 * ((DEGREE + 1) * (DEGREE + 1) - 1);
  static constexpr int kStride = kUsed | 1;  // odd: threads that read their own rows meet different banks
  static constexpr int kWarpFloats = 32 * kStride;
};

// Loads the rows of the Gaussians first .. first + 31 whose bit is set.
template <int DEGREE>
__device__ inline void load_sh_rows(const float* shN, int64_t stride, int64_t first, unsigned wanted, unsigned lane,
                                    float* rows) {
  using Rows = ShRows<DEGREE>;
  for (int k = static_cast<int>(lane); k < 32 * Rows::kUsed; k += 32) {
    const int row = k / (Rows::kUsed > 0 ? Rows::kUsed : 1), column = k - row * Rows::kUsed;
    if ((wanted >> row) & 1) rows[row * Rows::kStride + column] = shN[(first + row) * stride + column];
  }
  __syncwarp();
}

// Writes all `stride` columns of the first n rows: those of the degree where the bit is set, zeros elsewhere.
template <int DEGREE>
__device__ inline void store_sh_rows(float* shN, int stride, int64_t first, int n, unsigned wanted, unsigned lane,
                                     const float* rows) {
  using Rows = ShRows<DEGREE>;
  __syncwarp();
  for (int k = static_cast<int>(lane); k < n * stride; k += 32) {
    const int row = k / stride, column = k - row * stride;
    const bool has_value = ((wanted >> row) & 1) && column < Rows::kUsed;
    shN[(first + row) * stride + column] = has_value ? rows[row * Rows::kStride + column] : 0.f;
  }
}

// Calls f with the degree as a compile-time number.
template <class F>
void with_degree(int degree, F f) {
  if (degree == 0) return f(std::integral_constant<int, 0>());
  if (degree == 1) return f(std::integral_constant<int, 1>());
  if (degree == 2) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 3>());
}

}  // namespace gpu
}  // namespace scene3d
