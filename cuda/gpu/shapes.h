// What is listed by tile: where on the screen item `id` reaches, and how far away it is.
#pragma once
#include "gpu/raster.h"
#include "gpu/surfels.h"

namespace scene3d {
namespace gpu {

// Ellipses of projected Gaussians, exactly.
struct Ellipses {
  using Shape = Reach;
  static constexpr int kSums = kSumFloats;  // numbers of an item's row of sums
  const Splat* splats;

  __device__ Reach shape(uint32_t id) const {
    const Splat& s = splats[id];
    return make_reach(s.place.x, s.place.y, s.place.z, s.shape.x, s.shape.w, s.shape.y);
  }
  __device__ float depth(uint32_t id) const { return splats[id].color.w; }
  __device__ static TileBox box(const Reach& reach, Grid grid, int row_begin, int row_end) {
    return tile_box(reach, grid.tiles_x, grid.tiles_y, row_begin, row_end);
  }
  // Tiles of a row of the box.
  __device__ static TileSpan span(const Reach& reach, const TileBox& box, int row) { return tile_span(reach, box.x, row); }
};

// Boxes around discs.
struct DiscBoxes {
  using Shape = TileBox;
  static constexpr int kSums = kDiscFloats;
  const Disc* discs;
  Grid grid;

  __device__ TileBox shape(uint32_t id) const { return tiles_in(discs[id].box, grid); }
  __device__ float depth(uint32_t id) const { return discs[id].surfel.z; }
  __device__ static TileBox box(const TileBox& all, Grid, int row_begin, int row_end) {
    TileBox cut = all;
    if (cut.y.first < row_begin) cut.y.first = row_begin;
    if (cut.y.last >= row_end) cut.y.last = row_end - 1;
    if (cut.x.first > cut.x.last) cut.y.last = cut.y.first - 1;
    return cut;
  }
  __device__ static TileSpan span(const TileBox&, const TileBox& box, int) { return box.x; }
};

}  // namespace gpu
}  // namespace scene3d
