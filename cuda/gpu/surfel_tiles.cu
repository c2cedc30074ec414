// Blending of the tiles of flat Gaussians, front to back, and the way back: a block is a tile, a warp 8x4 of its pixels.
#include "gpu/blend_batch.h"
#include "gpu/surfels.h"
#include "gpu/warp.h"
#include "gpu/warp_sums.h"

namespace scene3d {
namespace gpu {
namespace {

struct DiscArgs {
  SurfelView<float> view;
  int width, height, tiles_x, first_row;
  float unit;
  const Disc* discs;
  const uint32_t* ids;
  const uint2* bounds;
  SurfelImages<float> images;
};

struct DiscBackwardArgs {
  DiscArgs forward;
  SurfelUpstream<float> up;
  float* sums;            // [N, kDiscFloats], added to by atomics; unused in the ordered mode
  const uint32_t* pairs;  // ordered mode: places of rows
  PairRows rows;
};

struct Ray {
  float x, y;
};

__device__ inline Ray ray_of(const SurfelView<float>& view, const TilePixel& p) {
  return {(p.corner_x + p.x - view.cx) / view.fx, (p.corner_y + p.y - view.cy) / view.fy};
}

__device__ inline void load_disc(Disc& to, const Disc& from) {
  const float4* const source = reinterpret_cast<const float4*>(&from);
  float4* const target = reinterpret_cast<float4*>(&to);
#pragma unroll
  for (unsigned k = 0; k < sizeof(Disc) / sizeof(float4); k++) target[k] = source[k];
}

// Whether a disc's box holds a pixel centre of the warp's block.
__device__ inline bool meets_warp(const Disc& disc, const TilePixel& p) {
  const float left = p.corner_x + p.left, top = p.corner_y + p.top;
  return disc.box[0] <= left + (kBlockWidth - 1) && disc.box[2] >= left && disc.box[1] <= top + (kBlockHeight - 1) && disc.box[3] >= top;
}

// Alpha of a disc, 0 below 1/255, and the exponential before the opacity and the clamp.
__device__ inline float disc_alpha(const SurfelView<float>& view, const Surfel<float>& g, const Ray& ray, SurfelHit<float>& hit, float& bell) {
  meet(view, g, ray.x - g.x, ray.y - g.y, hit);
  bell = exp2_of(static_cast<float>(-0.5 * kLog2e) * hit.power);
  const float alpha = least(g.opacity * bell, static_cast<float>(kMaxAlpha));
  return alpha >= static_cast<float>(kMinAlpha) ? alpha : 0.f;
}

struct BlendedDiscs {
  float light, rgb[3], normal[3], depth, median, first, second, anchor, gathered, distortion;
};

__device__ inline void blend_disc(const DiscArgs& a, const Surfel<float>& g, const Ray& ray, BlendedDiscs& b) {
  SurfelHit<float> hit;
  float bell;
  const float alpha = disc_alpha(a.view, g, ray, hit, bell);
  if (!(alpha > 0.f && b.light >= static_cast<float>(kMinTransmittance))) return;
  const float weight = alpha * b.light, after = b.light - weight;
  for (int c = 0; c < 3; c++) b.rgb[c] = fmaf(weight, g.rgb[c], b.rgb[c]), b.normal[c] = fmaf(weight, g.normal[c], b.normal[c]);
  b.depth = fmaf(weight, hit.z, b.depth);
  if (b.light >= 0.5f && after < 0.5f) b.median = hit.z;
  // Sums of m and m^2 about the first m: differences of large numbers would leave nothing of thin surfaces.
  const float m = -a.unit / hit.z;
  if (!(b.gathered > 0.f)) b.anchor = m;
  const float from = m - b.anchor;
  b.distortion += weight * (from * (from * b.gathered - 2.f * b.first) + b.second);
  b.first = fmaf(weight, from, b.first), b.second = fmaf(weight * from, from, b.second);
  b.gathered += weight;
  b.light = after;
}

__device__ inline void write_discs(const SurfelImages<float>& out, const TilePixel& p, const BlendedDiscs& b) {
  if (!p.is_inside) return;
  for (int c = 0; c < 3; c++) out.rgb[3 * p.index + c] = b.rgb[c], out.normals[3 * p.index + c] = b.normal[c];
  out.alpha[p.index] = b.gathered, out.depth[p.index] = b.depth, out.median[p.index] = b.median;
  out.distortion[p.index] = b.distortion, out.first[p.index] = b.first, out.second[p.index] = b.second;
  out.anchor[p.index] = b.anchor;
}

__global__ void __launch_bounds__(kTileThreads) surfel_forward_kernel(DiscArgs a) {
  __shared__ Disc batch[kTileThreads];
  const unsigned lane = threadIdx.x % 32;
  const TilePixel p = tile_pixel(a.width, a.height, a.tiles_x, a.first_row);
  const Ray ray = ray_of(a.view, p);
  const uint2 bounds = a.bounds[p.tile];
  BlendedDiscs b = {};
  b.light = p.is_inside ? 1.f : 0.f;
  bool is_warp_done = false;
  for (uint32_t begin = bounds.x; begin < bounds.y; begin += kTileThreads) {
    // The barrier also keeps the batch until every warp has used it.
    if (__syncthreads_count(!is_warp_done) == 0) break;
    const unsigned n = bounds.y - begin < kTileThreads ? bounds.y - begin : kTileThreads;
    if (threadIdx.x < n) load_disc(batch[threadIdx.x], a.discs[a.ids[begin + threadIdx.x]]);
    __syncthreads();
    for (unsigned group = 0; group < n && !is_warp_done; group += 32) {
      const bool is_met = group + lane < n && meets_warp(batch[group + lane], p);
      for (unsigned rest = __ballot_sync(kAllLanes, is_met); rest; rest &= rest - 1)
        blend_disc(a, batch[group + static_cast<unsigned>(__ffs(static_cast<int>(rest)) - 1)].surfel, ray, b);
      is_warp_done = __all_sync(kAllLanes, b.light < static_cast<float>(kMinTransmittance));
    }
  }
  write_discs(a.images, p, b);
}

// What comes from above for a pixel, and what of it is still to come from behind.
struct DiscUpstream {
  float rgb[3], normal[3], alpha, depth, distortion, first, second, anchor, gathered, behind, light;
};

__device__ inline DiscUpstream begin_pixel(const DiscBackwardArgs& a, const TilePixel& p) {
  DiscUpstream up = {};
  if (!p.is_inside) return up;
  const SurfelImages<float>& images = a.forward.images;
  const int64_t i = p.index;
  up.light = 1.f;
  up.alpha = a.up.alpha[i], up.depth = a.up.depth[i], up.distortion = a.up.distortion[i];
  up.first = images.first[i], up.second = images.second[i], up.anchor = images.anchor[i], up.gathered = images.alpha[i];
  // The distortion is quadratic in the weights: twice itself.
  up.behind = up.alpha * up.gathered + up.depth * images.depth[i] + 2.f * up.distortion * images.distortion[i];
  for (int c = 0; c < 3; c++) {
    up.rgb[c] = a.up.rgb[3 * i + c], up.normal[c] = a.up.normals[3 * i + c];
    up.behind += up.rgb[c] * images.rgb[3 * i + c] + up.normal[c] * images.normals[3 * i + c];
  }
  return up;
}

// What a pixel adds to the sums of a disc, which are 0 before; false where that is nothing.
__device__ inline bool disc_terms(const DiscArgs& a, const Surfel<float>& g, const Ray& ray, DiscUpstream& up, float* terms) {
  SurfelHit<float> hit;
  float bell;
  const float alpha = disc_alpha(a.view, g, ray, hit, bell);
  if (!(alpha > 0.f && up.light >= static_cast<float>(kMinTransmittance))) return false;
  const float weight = alpha * up.light, m = -a.unit / hit.z, from = m - up.anchor;
  float v_weight = fmaf(up.depth, hit.z, up.alpha);
  for (int c = 0; c < 3; c++) {
    v_weight = fmaf(up.rgb[c], g.rgb[c], fmaf(up.normal[c], g.normal[c], v_weight));
    terms[kDiscRgb + c] = weight * up.rgb[c], terms[kDiscNormal + c] = weight * up.normal[c];
  }
  v_weight += up.distortion * (from * (from * up.gathered - 2.f * up.first) + up.second);
  up.behind = fmaf(-weight, v_weight, up.behind);
  // dL/dalpha = T v_weight - behind / (1 - alpha), and none where alpha was held
  const float v_alpha = alpha < static_cast<float>(kMaxAlpha) ? fmaf(up.light, v_weight, -quotient_of(up.behind, 1.f - alpha)) : 0.f;
  const float v_m = 2.f * up.distortion * weight * (from * up.gathered - up.first);
  const float v_z = weight * up.depth - v_m * m / hit.z;  // dm/dz = unit / z^2 = -m / z
  terms[kDiscOpacity] = v_alpha * bell;
  meet_vjp(a.view, g, hit, ray.x, ray.y, -0.5f * v_alpha * g.opacity * bell, v_z, terms);
  up.light -= weight;
  return true;
}

template <bool ORDERED>
__global__ void __launch_bounds__(kTileThreads) surfel_backward_kernel(DiscBackwardArgs args) {
  __shared__ Disc batch[kTileThreads];
  __shared__ uint32_t ids[kTileThreads];
  __shared__ WarpSums<ORDERED, kDiscFloats> part;
  const DiscArgs& a = args.forward;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int slot = slot_of_lane<kDiscFloats>(lane);
  const TilePixel p = tile_pixel(a.width, a.height, a.tiles_x, a.first_row);
  const Ray ray = ray_of(a.view, p);
  const uint2 bounds = a.bounds[p.tile];
  DiscUpstream up = begin_pixel(args, p);
  bool is_warp_done = false;
  for (uint32_t begin = bounds.x; begin < bounds.y; begin += kTileThreads) {
    if (__syncthreads_count(!is_warp_done) == 0) break;
    const unsigned n = bounds.y - begin < kTileThreads ? bounds.y - begin : kTileThreads;
    if (threadIdx.x < n) {
      ids[threadIdx.x] = a.ids[begin + threadIdx.x];
      load_disc(batch[threadIdx.x], a.discs[ids[threadIdx.x]]);
    }
    __syncthreads();
    for (unsigned group = 0; group < n && (ORDERED || !is_warp_done); group += 32) {
      const bool is_met = !is_warp_done && group + lane < n && meets_warp(batch[group + lane], p);
      uint32_t hits = 0;
      for (unsigned rest = __ballot_sync(kAllLanes, is_met); rest; rest &= rest - 1) {
        const unsigned k = static_cast<unsigned>(__ffs(static_cast<int>(rest)) - 1);
        float terms[kDiscFloats] = {};
        if (!__any_sync(kAllLanes, disc_terms(a, batch[group + k].surfel, ray, up, terms))) continue;
        sum_lanes<kDiscFloats>(terms, lane);
        hits |= 1u << k;
        if (slot < 0) continue;
        if constexpr (ORDERED) part.values[warp][k][slot] = terms[0];
        else atomicAdd(&args.sums[static_cast<int64_t>(ids[group + k]) * kDiscFloats + slot], terms[0]);
      }
      is_warp_done = __all_sync(kAllLanes, up.light < static_cast<float>(kMinTransmittance));
      if constexpr (ORDERED) {
        if (lane == 0) part.hits[warp] = hits;
        __syncthreads();
        write_rows<kDiscFloats>(args.rows, part, args.pairs + begin + group, n - group < 32 ? n - group : 32);
        __syncthreads();
      }
    }
  }
}

DiscArgs disc_args(const SurfelCall<float>& call, Grid grid, const Disc* discs, const Lists& lists, const SurfelImages<float>& images) {
  return {call.view, call.width, call.height, grid.tiles_x, lists.band.begin, call.unit, discs, lists.ids, lists.bounds, images};
}

int64_t tile_count(Grid grid, const Lists& lists) { return static_cast<int64_t>(lists.band.end - lists.band.begin) * grid.tiles_x; }

}  // namespace

void surfel_forward_tiles(const SurfelCall<float>& call, Grid grid, const Disc* discs, const Lists& lists,
                          const SurfelImages<float>& out, Stream stream) {
  const DiscArgs args = disc_args(call, grid, discs, lists, out);
  S3D_LAUNCH(surfel_forward_kernel, tile_count(grid, lists), kTileThreads, stream, args);
}

void surfel_backward_tiles(const SurfelCall<float>& call, Grid grid, const Disc* discs, const Lists& lists,
                           const SurfelImages<float>& images, const SurfelUpstream<float>& upstream, float* sums,
                           const PairRows& rows, Stream stream) {
  const DiscBackwardArgs args = {disc_args(call, grid, discs, lists, images), upstream, sums, lists.pairs, rows};
  if (rows.rows) S3D_LAUNCH((surfel_backward_kernel<true>), tile_count(grid, lists), kTileThreads, stream, args);
  else S3D_LAUNCH((surfel_backward_kernel<false>), tile_count(grid, lists), kTileThreads, stream, args);
}

}  // namespace gpu
}  // namespace scene3d
