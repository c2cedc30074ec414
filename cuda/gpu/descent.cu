#include "gpu/descent.h"

#include <cmath>
#include <type_traits>

#include "gpu/adam_value.h"
#include "gpu/gaussian_rows.h"

namespace scene3d {
namespace gpu {
namespace {

enum DescentArray { kMeans, kQuats, kLogScales, kOpacityLogits, kSh0, kShN };

__device__ inline float usable(float grad) { return is_finite(grad) ? grad : 0.f; }

// Adds the gradients of opacity_reg Σ opacity + scale_reg Σ scale, of what is shown.
__device__ inline void regularize(const RasterCall<float>& call, const DescentArgs& a, int64_t i, RowGrads& v) {
  if (a.opacity_reg > 0.f) {
    const float opacity = 1.f / (1.f + expf(-call.opacity_logits[i]));
    v.row.opacity_logit = fmaf(a.opacity_reg, opacity * (1.f - opacity), v.row.opacity_logit);
  }
  for (int k = 0; a.scale_reg > 0.f && k < 3; k++)
    v.row.log_scale[k] = fmaf(a.scale_reg, expf(call.log_scales[3 * i + k]), v.row.log_scale[k]);
}

// Moves value i of an array, by its gradient and what a method adds to it.
__device__ inline void move_value(const DescentArgs& a, DescentArray array, int64_t i, float grad) {
  const float* const added = a.added[array];
  adam_value(a.arrays[array], a.rule, i, usable(added ? grad + added[i] : grad));
}

// Everything of one Gaussian but shN.
__device__ inline void move_row(const DescentArgs& a, int64_t i, const RowGrads& v) {
  for (int k = 0; k < 3; k++) {
    move_value(a, kMeans, 3 * i + k, v.row.mean[k]);
    move_value(a, kLogScales, 3 * i + k, v.row.log_scale[k]);
    move_value(a, kSh0, 3 * i + k, v.sh0[k]);
  }
  for (int k = 0; k < 4; k++) move_value(a, kQuats, 4 * i + k, v.row.quat[k]);
  move_value(a, kOpacityLogits, i, v.row.opacity_logit);
}

// shN of the Gaussians first .. first + 31 whose bit is set, by all lanes side by side. Coefficients beyond the degree
// have no gradient, and their moments fade.
template <int DEGREE>
__device__ inline void move_sh_rows(const DescentArgs& a, int stride, int64_t first, unsigned wanted, unsigned lane, const float* rows) {
  using Rows = ShRows<DEGREE>;
  __syncwarp();
  for (int k = static_cast<int>(lane); k < 32 * stride; k += 32) {
    const int row = k / stride, column = k - row * stride;
    if (!((wanted >> row) & 1)) continue;
    move_value(a, kShN, first * stride + k, column < Rows::kUsed ? rows[row * Rows::kStride + column] : 0.f);
  }
}

template <int DEGREE, bool WITH_VIEW>
__global__ void __launch_bounds__(kGroupThreads)
    descent_kernel(RasterCall<float> call, const uint32_t* tiles_of, const float* sums, const float* loss, DescentArgs a, float* view_partials) {
  using Rows = ShRows<DEGREE>;
  __shared__ float staged[kGroupWarps * Rows::kWarpFloats];
  if (!is_finite(*loss)) return;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kGroupThreads) + threadIdx.x;
  const bool is_visible = i < call.n && tiles_of[i] > 0;
  const unsigned wanted = __ballot_sync(kAllLanes, is_visible);
  float* const rows = staged + warp * Rows::kWarpFloats;
  ViewGrad<float> v_view = {};
  if (wanted) {
    load_sh_rows<DEGREE>(call.shN, call.shN_stride, i - lane, wanted, lane, rows);
    if (is_visible) {
      RowGrads v = {};
      row_gradients<DEGREE>(call, sums, i, rows + lane * Rows::kStride, v, WITH_VIEW ? &v_view : nullptr);
      regularize(call, a, i, v);
      if (a.v_masks) a.v_masks[i] = sums[i * kSumFloats + kSumMask];
      if (a.grad_sums) a.grad_sums[i] = fmaf(v.screen, a.half_size, a.grad_sums[i]), a.counts[i] += 1.f;
      move_row(a, i, v);
    }
    move_sh_rows<DEGREE>(a, static_cast<int>(call.shN_stride), i - lane, wanted, lane, rows);
  }
  if constexpr (WITH_VIEW) store_view_sums(v_view, view_partials);
}

}  // namespace

void descend_gaussians(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums, const float* loss,
                       const DescentArgs& descent, float* view_partials, float* v_viewmat, Stream stream) {
  const int64_t n_blocks = blocks_for(call.n, kGroupThreads);
  if (n_blocks > 0)
    with_degree(call.sh_degree, [&](auto degree) {
      constexpr int n = decltype(degree)::value;
      if (v_viewmat)
        S3D_LAUNCH((descent_kernel<n, true>), n_blocks, kGroupThreads, stream, call, tiles_of, sums, loss, descent, view_partials);
      else
        S3D_LAUNCH((descent_kernel<n, false>), n_blocks, kGroupThreads, stream, call, tiles_of, sums, loss, descent, view_partials);
    });
  if (v_viewmat) sum_columns(n_blocks, view_partials, loss, 16, v_viewmat, stream);
}

float descend(const RasterCall<float>& call, const RasterOptions& options, const DescentTarget& target,
              const DescentArgs& descent, const DescentGrads& grads, const Memory& memory, Mailbox& mailbox, Stream stream) {
  const int64_t n_pixels = static_cast<int64_t>(call.width) * call.height;
  const auto image = [&](int n_channels) { return memory.take<float>(n_pixels * n_channels, true); };
  const RasterImages<float> out = {image(3), image(1), nullptr, nullptr, nullptr, nullptr};
  RasterState state;
  raster_forward(call, options, out, nullptr, memory, stream, state);

  float *const v_rgb = image(3), *const parts = memory.take<float>(3, true);
  float* const scratch = memory.take<float>(loss_scratch_floats(call.height, call.width), false);
  LossInput input = target.photo;
  input.rgb = out.rgb;
  if (target.transform) {
    float* const shown = memory.take<float>(3 * n_pixels, false);
    show_colors(target.transform, out.rgb, n_pixels, shown, stream);
    input.rgb = shown;
  }
  l1_ssim(input, scratch, v_rgb, parts, stream);
  mailbox.send(parts, stream);
  if (target.transform) {
    float* const partials = memory.take<float>(color_partial_floats(n_pixels), false);
    show_colors_vjp(target.transform, out.rgb, v_rgb, n_pixels, parts, partials, v_rgb, grads.transform, stream);
  }
  memory.release();

  const RasterUpstream<float> upstream = {v_rgb, nullptr, nullptr, nullptr, nullptr};
  const float* const sums = raster_sums(call, options, out, upstream, memory, stream, state);
  float* const view_partials = grads.viewmat ? memory.take<float>(view_partial_floats(call.n), false) : nullptr;
  descend_gaussians(call, state.tiles.seen.tiles_of, sums, parts, descent, view_partials, grads.viewmat, stream);
  return mailbox.wait();
}

}  // namespace gpu
}  // namespace scene3d
