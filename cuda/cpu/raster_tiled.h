// The tiled rasterizer of one view in float. See raster.h for the flow.
#pragma once
#include <memory>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/raster.h"
#include "cpu/raster_call.h"

namespace scene3d {

// What the forward pass leaves for the backward pass, and working memory that is kept between calls.
struct TiledState {
  int tiles_x = 0, tiles_y = 0;
  int64_t n_pairs = 0, n_visible = 0, n_unsound = 0;
  Buffer<Splat> splats;          // by Gaussian
  Buffer<uint32_t> pair_begin;   // [N + 1]: rows of Gaussian i are [pair_begin[i], pair_begin[i+1])
  std::vector<Buffer<uint32_t>> chunk_tiles;  // tiles reached, by chunk of Gaussians, in the order of pair_begin
  Buffer<uint64_t> keys, keys_swap;           // depth bits and index of the visible ones
  Buffer<uint32_t> histogram;
  Buffer<uint32_t> offsets;  // [n_tiles + 1]
  Buffer<TileEntry> entries;
  Buffer<uint16_t> masks;
  Buffer<float> rows;
  Buffer<uint8_t> touched;
};

// Borrows a state from a small pool, gives it back when the pointer dies.
std::shared_ptr<TiledState> borrow_state();

// Bytes that one (Gaussian, tile) pair takes, backward included.
constexpr int64_t kBytesPerPair = sizeof(TileEntry) + 2 + 4 + 4 * kRowFloats + 1;

// Writes all of `out` and radii [N].
void tiled_forward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& out, float* radii);

void tiled_backward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                    const RasterUpstream<float>& upstream, RasterGrads<float>& out);

// Milliseconds of the last forward and backward on this thread: project, sort, bin, blend, blend backward, reduce.
const double* tiled_times();

}  // namespace scene3d
