// Projection with colour, one thread a Gaussian.
#include <type_traits>

#include "gpu/raster.h"
#include "gpu/sh_rows.h"
#include "gpu/tally.h"
#include "math/sh.h"

namespace scene3d {
namespace gpu {
namespace {

__device__ inline Splat make_splat(const Ellipse<float>& e, const float* rgb, float mask) {
  Splat s;
  s.place = make_float4(e.x, e.y, e.l11, e.l21);
  s.shape = make_float4(e.l22, log2f(e.opacity), e.cov[1] / e.cov[0], e.cov[1] / e.cov[2]);
  s.color = make_float4(rgb[0], rgb[1], rgb[2], e.depth);
  s.normal = make_float4(e.normal[0], e.normal[1], e.normal[2], mask);
  return s;
}

// Colour, and whether all coefficients are finite.
template <int DEGREE>
__device__ inline bool color_of(const RasterCall<float>& call, int64_t i, const float* shN, float* rgb) {
  const float* const sh0 = call.sh0 + 3 * i;
  float d[3], sum = sh0[0] + sh0[1] + sh0[2];
#pragma unroll
  for (int k = 0; k < ShRows<DEGREE>::kUsed; k++) sum += shN[k];
  view_direction(call.means + 3 * i, call.view.center, d);
  sh_color(DEGREE, d, sh0, shN, rgb);
  return is_finite(sum);
}

template <int DEGREE>
__global__ void __launch_bounds__(kGroupThreads)
    project_kernel(RasterCall<float> call, Grid grid, Splat* splats, uint32_t* tiles_of, float* radii, Tally tally) {
  __shared__ float staged[kGroupThreads / 32 * ShRows<DEGREE>::kWarpFloats];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kGroupThreads) + threadIdx.x;
  Ellipse<float> e;
  bool is_seen = false, is_sound = true;
  if (i < call.n) {
    const GaussianRow<float> row = call.row(i);
    is_seen = project(call.view, row, static_cast<float>(kMinAlpha), call.with_extra, e);
    is_sound = is_finite_row(row) && fabsf(row.quat[0]) + fabsf(row.quat[1]) + fabsf(row.quat[2]) + fabsf(row.quat[3]) > 0.f;
  }
  float* const rows = staged + warp * ShRows<DEGREE>::kWarpFloats;
  load_sh_rows<DEGREE>(call.shN, call.shN_stride, i - lane, __ballot_sync(kAllLanes, is_seen), lane, rows);
  unsigned n_tiles = 0;
  if (is_seen) {
    float rgb[3];
    is_sound = color_of<DEGREE>(call, i, rows + lane * ShRows<DEGREE>::kStride, rgb) && is_sound;
    const Splat s = make_splat(e, rgb, call.masks ? call.masks[i] : 1.f);
    const Reach reach = make_reach(s.place.x, s.place.y, s.place.z, s.shape.x, s.shape.w, s.shape.y);
    if (is_sound && e.half_x > 0.f) n_tiles = static_cast<unsigned>(count_tiles(reach, grid.tiles_x, grid.tiles_y, 0, grid.tiles_y));
    if (n_tiles > 0) splats[i] = s;
  }
  if (i < call.n) {
    tiles_of[i] = n_tiles;
    tally.is_visible[i] = n_tiles > 0;
    if (radii) radii[i] = n_tiles > 0 ? most(e.half_x, e.half_y) : 0.f;
  }
  add_to_tally(tally, n_tiles, is_sound);
}

}  // namespace

void project_all(const RasterCall<float>& call, Grid grid, Splat* splats, uint32_t* tiles_of, float* radii, const Tally& tally,
                 Stream stream) {
  if (call.n == 0) return;
  with_degree(call.sh_degree, [&](auto degree) {
    S3D_LAUNCH((project_kernel<decltype(degree)::value>), blocks_for(call.n, kGroupThreads), kGroupThreads, stream, call,
               grid, splats, tiles_of, radii, tally);
  });
}

}  // namespace gpu
}  // namespace scene3d
