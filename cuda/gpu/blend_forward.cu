// Blending of the tiles, front to back.
#include "gpu/blend_batch.h"

namespace scene3d {
namespace gpu {
namespace {

struct ForwardArgs {
  int width, height, tiles_x, first_row;
  const Splat* splats;
  const uint32_t* ids;
  const uint2* bounds;
  float background[3];
  RasterImages<float> images;
};

struct Blended {
  float transmittance, rgb[3], depth, normal[3], median;
};

template <bool EXTRA, bool MASKED>
__device__ inline void blend(const Batch<EXTRA, MASKED>& batch, unsigned k, const TilePixel& p, Blended& b) {
  float u, v;
  const float raw = raw_alpha(batch.place[k], batch.shape[k], p, u, v);
  float alpha = b.transmittance >= static_cast<float>(kMinTransmittance) ? least(raw, static_cast<float>(kMaxAlpha)) : 0.f;
  if constexpr (MASKED) alpha *= batch.mask[k];
  const float weight = alpha * b.transmittance, after = b.transmittance - weight;
  const float4 color = batch.color[k];
  b.rgb[0] = fmaf(weight, color.x, b.rgb[0]), b.rgb[1] = fmaf(weight, color.y, b.rgb[1]), b.rgb[2] = fmaf(weight, color.z, b.rgb[2]);
  if constexpr (EXTRA) {
    const float4 normal = batch.normal[k];
    b.depth = fmaf(weight, color.w, b.depth);
    b.normal[0] = fmaf(weight, normal.x, b.normal[0]), b.normal[1] = fmaf(weight, normal.y, b.normal[1]);
    b.normal[2] = fmaf(weight, normal.z, b.normal[2]);
    if (b.transmittance >= 0.5f && after < 0.5f) b.median = color.w;
  }
  b.transmittance = after;
}

template <bool EXTRA>
__device__ inline void write_pixel(const ForwardArgs& a, const TilePixel& p, const Blended& b) {
  if (!p.is_inside) return;
  for (int c = 0; c < 3; c++) a.images.rgb[3 * p.index + c] = fmaf(b.transmittance, a.background[c], b.rgb[c]);
  a.images.alpha[p.index] = 1.f - b.transmittance;
  if constexpr (EXTRA) {
    a.images.depth[p.index] = b.depth;
    a.images.median[p.index] = b.median;
    for (int c = 0; c < 3; c++) a.images.normals[3 * p.index + c] = b.normal[c];
  }
}

template <bool EXTRA, bool MASKED>
__global__ void __launch_bounds__(kTileThreads) forward_kernel(ForwardArgs a) {
  __shared__ Batch<EXTRA, MASKED> batch;
  const unsigned lane = threadIdx.x % 32;
  const TilePixel p = tile_pixel(a.width, a.height, a.tiles_x, a.first_row);
  const uint2 bounds = a.bounds[p.tile];
  Blended b = {};
  b.transmittance = p.is_inside ? 1.f : 0.f;
  bool is_warp_done = false;
  for (uint32_t begin = bounds.x; begin < bounds.y; begin += kTileThreads) {
    // The barrier also keeps the batch until every warp has used it.
    if (__syncthreads_count(!is_warp_done) == 0) break;
    const unsigned n = bounds.y - begin < kTileThreads ? bounds.y - begin : kTileThreads;
    if (threadIdx.x < n) load_splat(batch, a.splats, a.ids[begin + threadIdx.x], p);
    __syncthreads();
    for (unsigned group = 0; group < n && !is_warp_done; group += 32) {
      const bool is_reached = group + lane < n && reaches_warp(batch, group + lane, p);
      for (unsigned rest = __ballot_sync(kAllLanes, is_reached); rest; rest &= rest - 1)
        blend(batch, group + static_cast<unsigned>(__ffs(static_cast<int>(rest)) - 1), p, b);
      is_warp_done = __all_sync(kAllLanes, b.transmittance < static_cast<float>(kMinTransmittance));
    }
  }
  write_pixel<EXTRA>(a, p, b);
}

}  // namespace

void blend_forward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                   const RasterImages<float>& out, Stream stream) {
  ForwardArgs a = {call.width, call.height, grid.tiles_x, lists.band.begin, splats, lists.ids, lists.bounds, {}, out};
  for (int c = 0; c < 3; c++) a.background[c] = call.background[c];
  const int64_t n_tiles = static_cast<int64_t>(lists.band.end - lists.band.begin) * grid.tiles_x;
  if (call.masks) S3D_LAUNCH((forward_kernel<false, true>), n_tiles, kTileThreads, stream, a);
  else if (call.with_extra) S3D_LAUNCH((forward_kernel<true, false>), n_tiles, kTileThreads, stream, a);
  else S3D_LAUNCH((forward_kernel<false, false>), n_tiles, kTileThreads, stream, a);
}

}  // namespace gpu
}  // namespace scene3d
