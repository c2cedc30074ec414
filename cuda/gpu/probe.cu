// Small kernels that tests call to check the emulation itself, and sums over a warp. Not part of scene3d._cuda.
#include "gpu/probe.h"

#include "gpu/warp.h"

#if defined(S3D_EMULATE)

namespace scene3d {
namespace gpu {
namespace {

template <int n>
__global__ void sum_kernel(const float* values, float* sums) {
  const unsigned lane = threadIdx.x;
  float terms[n];
  for (int k = 0; k < n; k++) terms[k] = values[lane * n + k];
  sum_lanes<n>(terms, lane);
  const int slot = slot_of_lane<n>(lane);
  if (slot >= 0) sums[slot] += terms[0];
}

// Each thread reads its neighbour's number.
__global__ void neighbor_kernel(bool has_barrier, const float* values, float* out) {
  __shared__ float shared[64];
  shared[threadIdx.x] = values[threadIdx.x];
  if (has_barrier) __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
  __syncthreads();
  shared[threadIdx.x] = -1.f;
}

__global__ void divergent_kernel(int fault) {
  if (fault == 0 && threadIdx.x == 5) return;
  if (fault == 1 && threadIdx.x == 5) __syncwarp();
  if (fault == 2) __syncwarp(0xffff);
  if (fault == 3) __shfl_sync(kAllLanes, threadIdx.x < 7 ? 1 : static_cast<int>(__ballot_sync(kAllLanes, 1)), 0);
  __syncthreads();
}

template <int n>
bool launch_sum(int n_terms, const float* values, float* sums) {
  if constexpr (n > 0) {
    if (n_terms != n) return launch_sum<n - 1>(n_terms, values, sums);
    S3D_LAUNCH((sum_kernel<n>), 1, 32, nullptr, values, sums);
    return true;
  }
  return false;
}

}  // namespace

bool probe_sum(int n_terms, const float* values, float* sums) { return launch_sum<20>(n_terms, values, sums); }

void probe_neighbors(bool has_barrier, const float* values, float* out) {
  S3D_LAUNCH(neighbor_kernel, 1, 64, nullptr, has_barrier, values, out);
}

void probe_fault(int fault) { S3D_LAUNCH(divergent_kernel, 1, 64, nullptr, fault); }

}  // namespace gpu
}  // namespace scene3d

#endif
