// Types of the tiled CPU rasterizer: what the projection leaves for the tiles, and what the tiles leave for the reduction.
//
// Forward:  project every Gaussian to a Splat and to the list of tiles its alpha = 1/255 ellipse reaches
//           -> radix sort by depth -> scatter to tiles -> blend.
// Backward: each (Gaussian, tile) pair writes its own row of sums, rows of one Gaussian are neighbours in memory,
//           and one pass adds them in their order and goes back through the projection. No thread ever adds into
//           another's memory, so the result does not depend on how many there are.
#pragma once
#include <cstdint>

namespace scene3d {

constexpr int kBlocks = 16;    // 4x4 pixel blocks of a 16x16 tile; a block is one f32x16
constexpr int kRowFloats = 16;  // sums per pair, one cache line

// One visible Gaussian as the tiles see it: one cache line.
struct alignas(64) Splat {
  float x, y, l11, l21, l22;
  float log2_opacity;
  float rgb[3];
  float depth;
  float slope_x, slope_y;  // on the ellipse's axes: dy = slope_x dx minimises the exponent at fixed dx, and so on
  float normal[3];
  float opacity;
};

struct TileEntry {
  uint32_t id;    // of the Gaussian
  uint32_t pair;  // row of this (Gaussian, tile)
};

// Layout of a row.
enum RowSlot { kS, kSu, kSv, kSuu, kSuv, kSvv, kRed, kGreen, kBlue, kDepth, kAbsX, kAbsY, kNormal, kMask = 15 };

struct RasterTileArgs {
  int width, height, tiles_x;
  const Splat* splats;       // by Gaussian
  const float* alpha_masks;  // by Gaussian, see RasterCall; null = all 1
  const TileEntry* entries;  // by tile, front to back
  const uint32_t* offsets;   // [n_tiles + 1] into entries
  uint16_t* masks;           // by entry: blocks of the tile that the Gaussian is blended into
  float background[3];
  bool with_extra;  // depth, median and normals too
  bool absgrad;
  // Images, forward: written; backward: read. Depth is sum w z.
  float *rgb, *alpha, *depth, *normals, *median;
  int32_t* median_id;
  // Backward.
  const float *v_rgb, *v_alpha, *v_depth, *v_normals;
  float* rows;       // [n_pairs, kRowFloats]
  uint8_t* touched;  // [n_pairs]
};

// Gaussians per task of projection and reduction.
constexpr int kGrain = 1024;
// Rows of tiles whose spans are computed for sixteen Gaussians at a time; taller ones are finished one by one.
constexpr int kSpanRows = 8;
// An ellipse is widened by this many pixels when its tiles are listed: rounding must not lose a contribution.
constexpr float kSlack = 0.01f;

// Sixteen projected ellipses and the tiles that they reach; extents are 0 for those not seen.
struct ProjectedRows {
  float x[16], y[16], half_x[16], half_y[16], cov[3][16], det[16];
  float tile_x0[16], tile_x1[16], tile_y0[16], tile_y1[16];  // range of tiles, cut to the image; empty when x0 > x1
  float first[kSpanRows][16], last[kSpanRows][16];           // tiles in the rows from tile_y0 on
  int n_unsound;                                             // not finite, or without rotation
};

// What the backward pass of the tiles left.
struct PairRows {
  const uint32_t* begin;   // [N + 1]: rows of Gaussian i are [begin[i], begin[i+1])
  const float* rows;       // [n_pairs, kRowFloats]
  const uint8_t* touched;  // [n_pairs]: 0 = row not written, stands for zeros
  const float* v_median;   // [N], gradient of median depth, or null
};

// Working memory of a task of projection or of the reduction.
struct ChunkScratch {
  ProjectedRows projected[kGrain / 16];
  alignas(64) float sums[kGrain * kRowFloats];  // rows of pairs added up, by Gaussian
};

}  // namespace scene3d
