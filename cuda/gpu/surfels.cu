#include "gpu/surfels.h"

#include "gpu/shapes.h"
#include "gpu/tally.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 128;

// One thread a disc.
__global__ void __launch_bounds__(kThreads)
    see_kernel(SurfelCall<float> call, Grid grid, Disc* discs, uint32_t* tiles_of, float* radii, Tally tally) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  unsigned n_tiles = 0;
  float radius = 0.f;
  if (i < call.n) {
    Disc disc;
    Surfel<float>& g = disc.surfel;
    g.opacity = call.opacities[i];
    for (int c = 0; c < 3; c++) g.rgb[c] = call.rgb[3 * i + c], g.normal[c] = call.normals[3 * i + c];
    float matrix[9];
    for (int k = 0; k < 9; k++) matrix[k] = call.matrices[9 * i + k];
    if (make_surfel(call.view, matrix, g) && is_finite(g.opacity) && surfel_bounds(call.view, matrix, g, disc.box, disc.box + 2)) {
      const TileBox box = tiles_in(disc.box, grid);
      if (box.x.first <= box.x.last && box.y.first <= box.y.last)
        n_tiles = static_cast<unsigned>((box.x.last - box.x.first + 1) * (box.y.last - box.y.first + 1));
    }
    if (n_tiles > 0) discs[i] = disc, radius = most(disc.box[2] - disc.box[0], disc.box[3] - disc.box[1]) * 0.5f;
    radii[i] = radius, tiles_of[i] = n_tiles, tally.is_visible[i] = n_tiles > 0;
  }
  add_to_tally(tally, n_tiles, true);
}

__global__ void __launch_bounds__(kThreads)
    surfel_gradient_kernel(SurfelCall<float> call, const Disc* discs, const uint32_t* tiles_of, const float* sums, SurfelGrads out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= call.n) return;
  float mine[kDiscFloats] = {}, matrix[9], v_matrix[9] = {};
  if (tiles_of[i] > 0) {
    for (int k = 0; k < kDiscFloats; k++) mine[k] = sums[i * kDiscFloats + k];
    for (int k = 0; k < 9; k++) matrix[k] = call.matrices[9 * i + k];
    make_surfel_vjp(matrix, discs[i].surfel, mine, v_matrix);
  }
  for (int k = 0; k < 9; k++) out.matrices[9 * i + k] = v_matrix[k];
  out.opacities[i] = mine[kDiscOpacity];
  for (int c = 0; c < 3; c++) out.rgb[3 * i + c] = mine[kDiscRgb + c], out.normals[3 * i + c] = mine[kDiscNormal + c];
}

}  // namespace

void surfels_forward(const SurfelCall<float>& call, const RasterOptions& options, const SurfelImages<float>& out,
                     float* radii, const Memory& memory, Stream stream, SurfelState& state) {
  TileState& tiles = state.tiles;
  state.discs = memory.take<Disc>(call.n, true);
  const Tally tally = begin_tiles(call.n, grid_of(call.width, call.height), memory, stream, tiles);
  if (call.n > 0)
    S3D_LAUNCH(see_kernel, blocks_for(call.n, kThreads), kThreads, stream, call, tiles.grid, state.discs, tiles.seen.tiles_of, radii, tally);
  const DiscBoxes shapes = {state.discs, tiles.grid};
  plan_tiles(shapes, call.n, tally, options, memory, stream, tiles);
  for (const Band& band : tiles.bands) {
    const Lists lists = list_tiles(shapes, tiles, options, band, tiles.has_lists, memory, stream);
    surfel_forward_tiles(call, tiles.grid, state.discs, lists, out, stream);
    if (tiles.has_lists) tiles.lists = lists;
    memory.release();
  }
}

void surfels_backward(const SurfelCall<float>& call, const RasterOptions& options, const SurfelImages<float>& images,
                      const SurfelUpstream<float>& upstream, const SurfelGrads& out, const Memory& memory, Stream stream,
                      const SurfelState& state) {
  const TileState& tiles = state.tiles;
  const DiscBoxes shapes = {state.discs, tiles.grid};
  float* const sums = memory.take<float>(call.n * kDiscFloats, true);
  clear_sums<kDiscFloats>(tiles, sums, stream);
  for (const Band& band : tiles.bands) {
    if (band.n_pairs == 0) continue;
    const Lists lists = tiles.has_lists ? tiles.lists : list_tiles(shapes, tiles, options, band, false, memory, stream);
    const PairRows rows = take_pair_rows<kDiscFloats>(options, band, memory, stream);
    surfel_backward_tiles(call, tiles.grid, state.discs, lists, images, upstream, sums, rows, stream);
    add_rows<kDiscFloats>(tiles, lists, rows, sums, stream);
    memory.release();
  }
  if (call.n > 0)
    S3D_LAUNCH(surfel_gradient_kernel, blocks_for(call.n, kThreads), kThreads, stream, call, state.discs, tiles.seen.tiles_of, sums, out);
}

}  // namespace gpu
}  // namespace scene3d
