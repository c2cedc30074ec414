// From the sums of each Gaussian to the gradients of its parameters and of the view, one thread a Gaussian.
#include <type_traits>

#include "gpu/raster.h"
#include "gpu/sh_rows.h"
#include "gpu/warp.h"
#include "math/gaussian_vjp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kViewSums = 12;  // of the rotation, then of the translation
constexpr int kGroupWarps = kGroupThreads / 32;
constexpr int kFinalThreads = 256, kFinalParts = kFinalThreads / 16;

__device__ inline PixelSums<float> load_sums(const float* s) {
  PixelSums<float> sums;
  sums.moments = {s[kSumS], s[kSumU], s[kSumV], s[kSumUU], s[kSumUV], s[kSumVV]};
  for (int c = 0; c < 3; c++) sums.rgb[c] = s[kSumRed + c], sums.normal[c] = s[kSumNormal + c];
  sums.depth = s[kSumDepth];
  return sums;
}

struct RowGrads {
  GaussianRow<float> row;
  float sh0[3], screen;
};

__device__ inline void store_row(const RasterGrads<float>& out, int64_t i, const RowGrads& v) {
  for (int k = 0; k < 3; k++) out.means[3 * i + k] = v.row.mean[k], out.log_scales[3 * i + k] = v.row.log_scale[k];
  for (int k = 0; k < 4; k++) out.quats[4 * i + k] = v.row.quat[k];
  for (int k = 0; k < 3; k++) out.sh0[3 * i + k] = v.sh0[k];
  out.opacity_logits[i] = v.row.opacity_logit;
  out.grad2d[i] = v.screen;
}

// Sums over the block's Gaussians, in a fixed order.
__device__ inline void store_view_sums(const ViewGrad<float>& v_view, unsigned lane, unsigned warp, float (*part)[kViewSums],
                                       float* partials) {
  float terms[kViewSums];
  for (int k = 0; k < 9; k++) terms[k] = v_view.R[k];
  for (int k = 0; k < 3; k++) terms[9 + k] = v_view.t[k];
  sum_lanes<kViewSums>(terms, lane);
  const int slot = slot_of_lane<kViewSums>(lane);
  if (slot >= 0) part[warp][slot] = terms[0];
  __syncthreads();
  if (threadIdx.x >= kViewSums) return;
  float sum = 0.f;
  for (int w = 0; w < kGroupWarps; w++) sum += part[w][threadIdx.x];
  partials[blockIdx.x * static_cast<int64_t>(kViewSums) + threadIdx.x] = sum;
}

template <int DEGREE>
__global__ void __launch_bounds__(kGroupThreads)
    gradient_kernel(RasterCall<float> call, const uint32_t* tiles_of, const float* sums, RasterGrads<float> out, float* view_partials) {
  using Rows = ShRows<DEGREE>;
  __shared__ float staged[kGroupWarps * Rows::kWarpFloats];
  __shared__ float part[kGroupWarps][kViewSums];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kGroupThreads) + threadIdx.x;
  const bool is_visible = i < call.n && tiles_of[i] > 0;
  const unsigned wanted = __ballot_sync(kAllLanes, is_visible);
  float* const rows = staged + warp * Rows::kWarpFloats;
  load_sh_rows<DEGREE>(call.shN, call.shN_stride, i - lane, wanted, lane, rows);
  RowGrads v = {};
  ViewGrad<float> v_view = {};
  if (is_visible) {
    const float* const s = sums + i * kSumFloats;
    float* const shN = rows + lane * Rows::kStride;
    gaussian_vjp(call.view, DEGREE, call.row(i), call.sh0 + 3 * i, shN, load_sums(s), call.with_extra, v.row, v.screen, v.sh0, shN, &v_view);
    if (call.absgrad) v.screen = static_cast<float>(2 * kLn2) * sqrtf(s[kSumAbsX] * s[kSumAbsX] + s[kSumAbsY] * s[kSumAbsY]);
  }
  if (i < call.n) store_row(out, i, v);
  const int64_t n_left = call.n - (i - lane);
  if (out.shN && n_left > 0)
    store_sh_rows<DEGREE>(out.shN, static_cast<int>(call.shN_stride), i - lane, n_left < 32 ? static_cast<int>(n_left) : 32, wanted, lane, rows);
  if (view_partials) store_view_sums(v_view, lane, warp, part, view_partials);
}

__global__ void sum_views(int64_t n_blocks, const float* partials, float* viewmat) {
  __shared__ double part[kFinalParts][kViewSums];
  const int slot = static_cast<int>(threadIdx.x % 16), first = static_cast<int>(threadIdx.x / 16);
  double sum = 0;
  if (slot < kViewSums) {
    for (int64_t b = first; b < n_blocks; b += kFinalParts) sum += partials[b * kViewSums + slot];
    part[first][slot] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= 16) return;
  const int row = slot / 4, column = slot % 4, from = column < 3 ? 3 * row + column : 9 + row;
  double total = 0;
  for (int k = 0; row < 3 && k < kFinalParts; k++) total += part[k][from];
  viewmat[slot] = static_cast<float>(total);
}

}  // namespace

int64_t view_partial_floats(int64_t n) { return blocks_for(n, kGroupThreads) * kViewSums; }

void gaussian_gradients(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums,
                        const RasterGrads<float>& out, float* view_partials, Stream stream) {
  const int64_t n_blocks = blocks_for(call.n, kGroupThreads);
  if (n_blocks > 0)
    with_degree(call.sh_degree, [&](auto degree) {
      S3D_LAUNCH((gradient_kernel<decltype(degree)::value>), n_blocks, kGroupThreads, stream, call, tiles_of, sums, out, view_partials);
    });
  if (out.viewmat) S3D_LAUNCH(sum_views, 1, kFinalThreads, stream, n_blocks, view_partials, out.viewmat);
}

}  // namespace gpu
}  // namespace scene3d
