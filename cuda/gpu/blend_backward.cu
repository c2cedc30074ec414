// The way back from images to the sums of each Gaussian over its pixels.
#include "gpu/blend_batch.h"
#include "gpu/warp.h"
#include "gpu/warp_sums.h"

namespace scene3d {
namespace gpu {
namespace {

struct BackwardArgs {
  int width, height, tiles_x, first_row;
  const Splat* splats;
  const uint32_t* ids;
  const uint2* bounds;
  float background[3];
  RasterImages<float> images;
  RasterUpstream<float> up;
  float* sums;            // [N, kSumFloats], added to by atomics; unused in the ordered mode
  const uint32_t* pairs;  // ordered mode: places of rows
  PairRows rows;
};

// Of one pixel.
struct Upstream {
  float rgb[3], alpha, depth, median, normal[3];
  float transmittance, behind;  // behind: gradient-weighted colour of what is still to come
};

// The background enters through transmittance: dL/dalpha loses v_rgb . background.
template <bool EXTRA>
__device__ inline Upstream begin_pixel(const BackwardArgs& a, const TilePixel& p) {
  Upstream up = {};
  if (!p.is_inside) return up;
  const float alpha = a.images.alpha[p.index];
  up.transmittance = 1.f;
  up.alpha = a.up.alpha ? a.up.alpha[p.index] : 0.f;
  for (int c = 0; c < 3; c++) {
    up.rgb[c] = a.up.rgb[3 * p.index + c];
    up.alpha -= up.rgb[c] * a.background[c];
    up.behind += up.rgb[c] * (a.images.rgb[3 * p.index + c] - (1.f - alpha) * a.background[c]);
  }
  up.behind += up.alpha * alpha;
  if constexpr (EXTRA) {
    if (a.up.median) up.median = a.up.median[p.index];
    if (a.up.depth) up.depth = a.up.depth[p.index], up.behind += up.depth * a.images.depth[p.index];
    for (int c = 0; a.up.normals && c < 3; c++) {
      up.normal[c] = a.up.normals[3 * p.index + c];
      up.behind += up.normal[c] * a.images.normals[3 * p.index + c];
    }
  }
  return up;
}

// What a pixel adds to the sums of splat k; false where that is nothing.
template <bool ABS, bool EXTRA, bool MASKED>
__device__ inline bool pixel_terms(const Batch<EXTRA, MASKED>& batch, unsigned k, const TilePixel& p, Upstream& up, float* terms) {
  const float4 place = batch.place[k], shape = batch.shape[k], color = batch.color[k];
  float u, v;
  float raw = raw_alpha(place, shape, p, u, v);
  if (!(up.transmittance >= static_cast<float>(kMinTransmittance))) raw = 0.f;
  const float unmasked = least(raw, static_cast<float>(kMaxAlpha));
  float alpha = unmasked;
  if constexpr (MASKED) alpha *= batch.mask[k];
  const float weight = alpha * up.transmittance;
  float gain = fmaf(up.rgb[0], color.x, fmaf(up.rgb[1], color.y, fmaf(up.rgb[2], color.z, up.alpha)));
  if constexpr (EXTRA) {
    const float4 normal = batch.normal[k];
    gain = fmaf(up.depth, color.w, gain);
    gain = fmaf(up.normal[0], normal.x, fmaf(up.normal[1], normal.y, fmaf(up.normal[2], normal.z, gain)));
  }
  up.behind = fmaf(-weight, gain, up.behind);
  // dL/dalpha = T gain - behind / (1 - alpha), and none where alpha was held
  const float v_alpha = fmaf(up.transmittance, gain, -quotient_of(up.behind, 1.f - alpha));
  const float v_power = raw < static_cast<float>(kMaxAlpha) ? v_alpha * alpha : 0.f;
  const float vu = v_power * u, vv = v_power * v, after = up.transmittance - weight;
  terms[kSumS] = v_power, terms[kSumU] = vu, terms[kSumV] = vv;
  terms[kSumUU] = vu * u, terms[kSumUV] = vu * v, terms[kSumVV] = vv * v;
  for (int c = 0; c < 3; c++) terms[kSumRed + c] = weight * up.rgb[c];
  if constexpr (ABS || EXTRA) {
    terms[kSumDepth] = MASKED ? v_alpha * unmasked : 0.f;  // also where the mask is 0 and nothing was blended
    terms[kSumAbsX] = fabsf(vu * place.z), terms[kSumAbsY] = fabsf(fmaf(vu, place.w, vv * shape.x));
  }
  if constexpr (EXTRA) {
    const bool is_median = up.transmittance >= 0.5f && after < 0.5f;
    terms[kSumDepth] = fmaf(weight, up.depth, is_median ? up.median : 0.f);
    for (int c = 0; c < 3; c++) terms[kSumNormal + c] = weight * up.normal[c];
  }
  up.transmittance = after;
  return MASKED ? unmasked > 0.f : weight > 0.f;
}

template <bool EXTRA, bool ABS, bool MASKED, bool ORDERED>
__global__ void __launch_bounds__(kTileThreads) backward_kernel(BackwardArgs a) {
  constexpr int n_terms = EXTRA ? 15 : ABS ? 12 : 9;
  __shared__ Batch<EXTRA, MASKED> batch;
  __shared__ uint32_t ids[kTileThreads];
  __shared__ WarpSums<ORDERED, kSumFloats> part;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int slot = slot_of_lane<n_terms>(lane);
  const TilePixel p = tile_pixel(a.width, a.height, a.tiles_x, a.first_row);
  const uint2 bounds = a.bounds[p.tile];
  Upstream up = begin_pixel<EXTRA>(a, p);
  bool is_warp_done = false;
  for (uint32_t begin = bounds.x; begin < bounds.y; begin += kTileThreads) {
    if (__syncthreads_count(!is_warp_done) == 0) break;
    const unsigned n = bounds.y - begin < kTileThreads ? bounds.y - begin : kTileThreads;
    if (threadIdx.x < n) {
      ids[threadIdx.x] = a.ids[begin + threadIdx.x];
      load_splat(batch, a.splats, ids[threadIdx.x], p);
    }
    __syncthreads();
    for (unsigned group = 0; group < n && (ORDERED || !is_warp_done); group += 32) {
      const bool is_reached = !is_warp_done && group + lane < n && reaches_warp(batch, group + lane, p);
      uint32_t hits = 0;
      for (unsigned rest = __ballot_sync(kAllLanes, is_reached); rest; rest &= rest - 1) {
        const unsigned k = static_cast<unsigned>(__ffs(static_cast<int>(rest)) - 1);
        float terms[n_terms];
        if (!__any_sync(kAllLanes, pixel_terms<ABS>(batch, group + k, p, up, terms))) continue;
        sum_lanes<n_terms>(terms, lane);
        hits |= 1u << k;
        if (slot < 0) continue;
        if constexpr (ORDERED) part.values[warp][k][slot] = terms[0];
        else atomicAdd(&a.sums[static_cast<int64_t>(ids[group + k]) * kSumFloats + slot], terms[0]);
      }
      is_warp_done = __all_sync(kAllLanes, up.transmittance < static_cast<float>(kMinTransmittance));
      if constexpr (ORDERED) {
        if (lane == 0) part.hits[warp] = hits;
        __syncthreads();
        write_rows<n_terms>(a.rows, part, a.pairs + begin + group, n - group < 32 ? n - group : 32);
        __syncthreads();
      }
    }
  }
}

template <bool EXTRA, bool ABS, bool MASKED>
void launch_backward(const BackwardArgs& a, int64_t n_tiles, Stream stream) {
  if (a.rows.rows) S3D_LAUNCH((backward_kernel<EXTRA, ABS, MASKED, true>), n_tiles, kTileThreads, stream, a);
  else S3D_LAUNCH((backward_kernel<EXTRA, ABS, MASKED, false>), n_tiles, kTileThreads, stream, a);
}

}  // namespace

void blend_backward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                    const RasterImages<float>& images, const RasterUpstream<float>& upstream, float* sums, const PairRows& rows,
                    Stream stream) {
  BackwardArgs a = {call.width, call.height, grid.tiles_x, lists.band.begin, splats, lists.ids, lists.bounds, {},
                    images, upstream, sums, lists.pairs, rows};
  for (int c = 0; c < 3; c++) a.background[c] = call.background[c];
  const int64_t n_tiles = static_cast<int64_t>(lists.band.end - lists.band.begin) * grid.tiles_x;
  if (call.masks) launch_backward<false, true, true>(a, n_tiles, stream);
  else if (call.with_extra) launch_backward<true, true, false>(a, n_tiles, stream);
  else if (call.absgrad) launch_backward<false, true, false>(a, n_tiles, stream);
  else launch_backward<false, false, false>(a, n_tiles, stream);
}

}  // namespace gpu
}  // namespace scene3d
