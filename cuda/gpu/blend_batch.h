// What forward and backward blending share: a tile's splats in shared memory, a thread's pixel, the alpha of a pair.
//
// A block is a 16x16 tile, a warp 8x4 pixels of it. The block loads splats in batches; each warp tests 32 of them at a
// time against its own pixels and walks over those that reach.
#pragma once
#include "gpu/raster.h"

namespace scene3d {
namespace gpu {

constexpr int kBlockWidth = 8, kBlockHeight = 4;  // pixels of a warp

// EXTRA: with depth and normals; MASKED: with factors on alpha.
template <bool EXTRA, bool MASKED>
struct Batch {
  static constexpr bool is_masked = MASKED;
  float4 place[kTileThreads];  // u and v at the tile's corner, l11, l21
  float4 shape[kTileThreads];  // l22, log2 of opacity, slope_x, slope_y
  float4 color[kTileThreads];  // red, green, blue, depth
  float2 center[kTileThreads];  // relative to the tile's corner
  float4 normal[EXTRA ? kTileThreads : 1];
  float mask[MASKED ? kTileThreads : 1];
};

struct TilePixel {
  int tile;             // of the band
  int64_t index;        // in the image
  bool is_inside;
  float x, y;           // pixel centre, relative to the tile's corner
  float left, top;      // first pixel centre of the warp's block
  float corner_x, corner_y;
};

__device__ inline TilePixel tile_pixel(int width, int height, int tiles_x, int first_row) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int tile = static_cast<int>(blockIdx.x), tile_x = tile % tiles_x * kTileSize, tile_y = (first_row + tile / tiles_x) * kTileSize;
  const int left = warp % 2 * kBlockWidth, top = warp / 2 * kBlockHeight;
  const int x = left + lane % kBlockWidth, y = top + lane / kBlockWidth;
  TilePixel p;
  p.tile = tile;
  p.is_inside = tile_x + x < width && tile_y + y < height;
  p.index = static_cast<int64_t>(tile_y + y) * width + tile_x + x;
  p.x = static_cast<float>(x) + 0.5f, p.y = static_cast<float>(y) + 0.5f;
  p.left = static_cast<float>(left) + 0.5f, p.top = static_cast<float>(top) + 0.5f;
  p.corner_x = static_cast<float>(tile_x), p.corner_y = static_cast<float>(tile_y);
  return p;
}

template <bool EXTRA, bool MASKED>
__device__ inline void load_splat(Batch<EXTRA, MASKED>& batch, const Splat* splats, uint32_t id, const TilePixel& p) {
  const Splat* const s = splats + id;
  const float4 place = s->place, shape = s->shape;
  const float x = place.x - p.corner_x, y = place.y - p.corner_y;
  const unsigned t = threadIdx.x;
  batch.place[t] = make_float4(-(place.z * x + place.w * y), -(shape.x * y), place.z, place.w);
  batch.shape[t] = shape;
  batch.color[t] = s->color;
  batch.center[t] = make_float2(x, y);
  if constexpr (EXTRA) batch.normal[t] = s->normal;
  if constexpr (MASKED) batch.mask[t] = s->normal.w;
}

// Whether splat k of the batch reaches the warp's block of pixels.
template <class B>
__device__ inline bool reaches_warp(const B& batch, unsigned k, const TilePixel& p) {
  const float4 place = batch.place[k], shape = batch.shape[k];
  const float2 center = batch.center[k];
  const BlockTest test = {center.x, center.y, place.z, place.w, shape.x, shape.y, shape.z, shape.w};
  return reaches_block(test, p.left, p.top, p.left + (kBlockWidth - 1), p.top + (kBlockHeight - 1));
}

// Alpha before it is held below one, 0 below 1/255; forward and backward must agree to the bit.
__device__ inline float raw_alpha(const float4& place, const float4& shape, const TilePixel& p, float& u, float& v) {
  u = fmaf(place.z, p.x, fmaf(place.w, p.y, place.x));
  v = fmaf(shape.x, p.y, place.y);
  const float power = fmaf(-u, u, fmaf(-v, v, shape.y));
  return power >= static_cast<float>(kLog2MinAlpha) ? exp2_of(power) : 0.f;
}

}  // namespace gpu
}  // namespace scene3d
