// The CUDA rasterizer of one view. Kernels take raw pointers into memory that the caller gives; a stream is a number.
//
// Forward:  project every Gaussian to a Splat, count the tiles that its alpha = 1/255 ellipse reaches -> sort the visible
//           ones by depth -> list their (tile, Gaussian) pairs in that order -> sort the pairs by tile, which keeps the
//           order within a tile -> blend. Sorting N depths and then narrow tile numbers moves about a third of the bytes
//           of one sort of 64-bit (tile, depth) keys over all pairs.
// Backward: each warp walks front to back over the splats that reach its 8x4 pixels, with the gradient-weighted colour
//           that is still to come, so that forward leaves nothing but its images. A splat's sums over the warp's pixels
//           are added to its row by atomics; or, in the ordered mode, collected per (tile, Gaussian) pair and added up
//           in a fixed order.
// Where the lists of all tiles would take more memory than allowed, bands of tile rows are done one after the other.
#pragma once
#include "cpu/raster_call.h"
#include "gpu/pair_rows.h"
#include "gpu/tile_state.h"

namespace scene3d {
namespace gpu {

// One visible Gaussian as the tiles see it: half a cache line of geometry, half of colour.
struct alignas(64) Splat {
  float4 place;   // x, y, l11, l21
  float4 shape;   // l22, log2 of opacity, slope_x, slope_y (see cpu/raster.h)
  float4 color;   // red, green, blue, depth
  float4 normal;  // x, y, z, factor on alpha
};

// Sums of one Gaussian over pixels: a row of kSumFloats.
// Masks come without depth and take its place.
enum SumSlot { kSumS, kSumU, kSumV, kSumUU, kSumUV, kSumVV, kSumRed, kSumDepth = 9, kSumAbsX, kSumAbsY, kSumNormal, kSumMask = kSumDepth };
constexpr int kSumFloats = 16;

struct RasterState {
  Splat* splats;  // [N], by Gaussian; those not visible are not written
  TileState tiles;
};

// Writes all of `out`, and radii [N] if given.
void raster_forward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& out,
                    float* radii, const Memory& memory, Stream stream, RasterState& state);

// The first half of the way back: rows of kSumFloats by Gaussian, written for the visible ones.
const float* raster_sums(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                         const RasterUpstream<float>& upstream, const Memory& memory, Stream stream, const RasterState& state);

// All of it. Writes all of `out`.
void raster_backward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                     const RasterUpstream<float>& upstream, const RasterGrads<float>& out, const Memory& memory,
                     Stream stream, const RasterState& state);

// Parts of raster.cu, each in the file of its name.
void project_all(const RasterCall<float>& call, Grid grid, Splat* splats, uint32_t* tiles_of, float* radii, const Tally& tally,
                 Stream stream);
void blend_forward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                   const RasterImages<float>& out, Stream stream);
void blend_backward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                    const RasterImages<float>& images, const RasterUpstream<float>& upstream, float* sums, const PairRows& rows,
                    Stream stream);
void gaussian_gradients(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums,
                        const RasterGrads<float>& out, float* view_partials, Stream stream);
int64_t view_partial_floats(int64_t n);

}  // namespace gpu
}  // namespace scene3d
