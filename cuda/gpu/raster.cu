#include "gpu/raster.h"

#include "gpu/shapes.h"

namespace scene3d {
namespace gpu {

void raster_forward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& out,
                    float* radii, const Memory& memory, Stream stream, RasterState& state) {
  TileState& tiles = state.tiles;
  state.splats = memory.take<Splat>(call.n, true);
  const Tally tally = begin_tiles(call.n, grid_of(call.width, call.height), memory, stream, tiles);
  project_all(call, tiles.grid, state.splats, tiles.seen.tiles_of, radii, tally, stream);
  const Ellipses shapes = {state.splats};
  plan_tiles(shapes, call.n, tally, options, memory, stream, tiles);
  for (const Band& band : tiles.bands) {
    const Lists lists = list_tiles(shapes, tiles, options, band, tiles.has_lists, memory, stream);
    blend_forward(call, tiles.grid, state.splats, lists, out, stream);
    if (tiles.has_lists) tiles.lists = lists;
    memory.release();
  }
}

const float* raster_sums(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                         const RasterUpstream<float>& upstream, const Memory& memory, Stream stream, const RasterState& state) {
  const TileState& tiles = state.tiles;
  float* const sums = memory.take<float>(call.n * kSumFloats, true);
  clear_sums<kSumFloats>(tiles, sums, stream);
  for (const Band& band : tiles.bands) {
    if (band.n_pairs == 0) continue;
    const Lists lists = tiles.has_lists ? tiles.lists : list_tiles(Ellipses{state.splats}, tiles, options, band, false, memory, stream);
    const PairRows rows = take_pair_rows<kSumFloats>(options, band, memory, stream);
    blend_backward(call, tiles.grid, state.splats, lists, images, upstream, sums, rows, stream);
    add_rows<kSumFloats>(tiles, lists, rows, sums, stream);
    memory.release();
  }
  return sums;
}

void raster_backward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                     const RasterUpstream<float>& upstream, const RasterGrads<float>& out, const Memory& memory,
                     Stream stream, const RasterState& state) {
  float* const view_partials = out.viewmat ? memory.take<float>(view_partial_floats(call.n), true) : nullptr;
  const float* const sums = raster_sums(call, options, images, upstream, memory, stream, state);
  gaussian_gradients(call, state.tiles.seen.tiles_of, sums, out, view_partials, stream);
}

}  // namespace gpu
}  // namespace scene3d
