#include "gpu/sum_columns.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256, kSlots = 16, kParts = kThreads / kSlots;

__global__ void __launch_bounds__(kThreads) sum_columns_kernel(int64_t n_blocks, const float* partials, const float* loss, int n_out, float* out) {
  __shared__ double part[kParts][kColumns];
  if (loss && !is_finite(*loss)) return;
  const int slot = static_cast<int>(threadIdx.x % kSlots), first = static_cast<int>(threadIdx.x / kSlots);
  if (slot < kColumns) {
    double sum = 0;
    for (int64_t b = first; b < n_blocks; b += kParts) sum += partials[b * kColumns + slot];
    part[first][slot] = sum;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= n_out) return;
  double total = 0;
  for (int k = 0; slot < kColumns && k < kParts; k++) total += part[k][slot];
  out[slot] = static_cast<float>(total);
}

}  // namespace

void sum_columns(int64_t n_blocks, const float* partials, const float* loss, int n_out, float* out, Stream stream) {
  S3D_LAUNCH(sum_columns_kernel, 1, kThreads, stream, n_blocks, partials, loss, n_out, out);
}

}  // namespace gpu
}  // namespace scene3d
