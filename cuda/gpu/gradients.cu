// From the sums of each Gaussian to the gradients of its parameters and of the view, one thread a Gaussian.
#include <type_traits>

#include "gpu/gaussian_rows.h"

namespace scene3d {
namespace gpu {
namespace {

__device__ inline void store_row(const RasterGrads<float>& out, int64_t i, const RowGrads& v) {
  for (int k = 0; k < 3; k++) out.means[3 * i + k] = v.row.mean[k], out.log_scales[3 * i + k] = v.row.log_scale[k];
  for (int k = 0; k < 4; k++) out.quats[4 * i + k] = v.row.quat[k];
  for (int k = 0; k < 3; k++) out.sh0[3 * i + k] = v.sh0[k];
  out.opacity_logits[i] = v.row.opacity_logit;
  out.grad2d[i] = v.screen;
}

template <int DEGREE>
__global__ void __launch_bounds__(kGroupThreads)
    gradient_kernel(RasterCall<float> call, const uint32_t* tiles_of, const float* sums, RasterGrads<float> out, float* view_partials) {
  using Rows = ShRows<DEGREE>;
  __shared__ float staged[kGroupWarps * Rows::kWarpFloats];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kGroupThreads) + threadIdx.x;
  const bool is_visible = i < call.n && tiles_of[i] > 0;
  const unsigned wanted = __ballot_sync(kAllLanes, is_visible);
  float* const rows = staged + warp * Rows::kWarpFloats;
  load_sh_rows<DEGREE>(call.shN, call.shN_stride, i - lane, wanted, lane, rows);
  RowGrads v = {};
  ViewGrad<float> v_view = {};
  if (is_visible) row_gradients<DEGREE>(call, sums, i, rows + lane * Rows::kStride, v, &v_view);
  if (i < call.n) store_row(out, i, v);
  if (i < call.n && out.masks) out.masks[i] = is_visible ? sums[i * kSumFloats + kSumMask] : 0.f;
  const int64_t n_left = call.n - (i - lane);
  if (out.shN && n_left > 0)
    store_sh_rows<DEGREE>(out.shN, static_cast<int>(call.shN_stride), i - lane, n_left < 32 ? static_cast<int>(n_left) : 32, wanted, lane, rows);
  if (view_partials) store_view_sums(v_view, view_partials);
}

}  // namespace

int64_t view_partial_floats(int64_t n) { return blocks_for(n, kGroupThreads) * kColumns; }

void gaussian_gradients(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums,
                        const RasterGrads<float>& out, float* view_partials, Stream stream) {
  const int64_t n_blocks = blocks_for(call.n, kGroupThreads);
  if (n_blocks > 0)
    with_degree(call.sh_degree, [&](auto degree) {
      S3D_LAUNCH((gradient_kernel<decltype(degree)::value>), n_blocks, kGroupThreads, stream, call, tiles_of, sums, out, view_partials);
    });
  if (out.viewmat) sum_columns(n_blocks, view_partials, nullptr, 16, out.viewmat, stream);
}

}  // namespace gpu
}  // namespace scene3d
