// Flat Gaussians met by rays (Huang et al. 2024), on the GPU: the maths of math/surfel.h, and the lists and the walk of the
// rasterizer with boxes around discs in the place of ellipses. Float only, and always with cut-offs.
#pragma once
#include "cpu/surfel_call.h"
#include "gpu/pair_rows.h"
#include "gpu/tile_state.h"

namespace scene3d {
namespace gpu {

constexpr int kDiscFloats = kSurfelSums;

// A disc as the tiles see it.
struct alignas(16) Disc {
  Surfel<float> surfel;
  float box[4];  // least x and y, greatest x and y, pixels
};

struct SurfelState {
  Disc* discs;  // [N]; those not seen are not written
  TileState tiles;
};

// Tiles of the image that a box of pixels touches.
__device__ inline TileBox tiles_in(const float* box, Grid grid) {
  constexpr float per_tile = 1.f / kTileSize;
  TileBox tiles;
  tiles.x.first = static_cast<int>(held(0.f, floorf(box[0] * per_tile), static_cast<float>(grid.tiles_x)));
  tiles.y.first = static_cast<int>(held(0.f, floorf(box[1] * per_tile), static_cast<float>(grid.tiles_y)));
  tiles.x.last = static_cast<int>(held(-1.f, floorf(box[2] * per_tile), static_cast<float>(grid.tiles_x - 1)));
  tiles.y.last = static_cast<int>(held(-1.f, floorf(box[3] * per_tile), static_cast<float>(grid.tiles_y - 1)));
  return tiles;
}

// Writes all of `out`, and radii [N].
void surfels_forward(const SurfelCall<float>& call, const RasterOptions& options, const SurfelImages<float>& out,
                     float* radii, const Memory& memory, Stream stream, SurfelState& state);

// Gradients by matrices, opacities, colours and normals, every element written.
struct SurfelGrads {
  float *matrices, *opacities, *rgb, *normals;  // [N, 9], [N], [N, 3], [N, 3]
};

void surfels_backward(const SurfelCall<float>& call, const RasterOptions& options, const SurfelImages<float>& images,
                      const SurfelUpstream<float>& upstream, const SurfelGrads& out, const Memory& memory, Stream stream,
                      const SurfelState& state);

// Parts of surfels.cu, each in the file of its name.
void surfel_forward_tiles(const SurfelCall<float>& call, Grid grid, const Disc* discs, const Lists& lists,
                          const SurfelImages<float>& out, Stream stream);
void surfel_backward_tiles(const SurfelCall<float>& call, Grid grid, const Disc* discs, const Lists& lists,
                           const SurfelImages<float>& images, const SurfelUpstream<float>& upstream, float* sums,
                           const PairRows& rows, Stream stream);

}  // namespace gpu
}  // namespace scene3d
