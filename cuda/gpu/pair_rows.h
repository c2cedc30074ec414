// Sums of pixels by item in a fixed order: every (tile, item) pair has a row, a block writes the rows of its tile, and the
// rows of an item are added up in their order.
#pragma once
#include "gpu/tile_state.h"

namespace scene3d {
namespace gpu {

constexpr int kTileThreads = kTileSize * kTileSize;
constexpr int kTileWarps = kTileThreads / 32;

// Rows of WIDTH numbers; null in the fast mode, where sums are added by atomics.
struct PairRows {
  float* rows;       // [n_pairs, WIDTH]
  uint8_t* touched;  // [n_pairs], 1 where a row was written
};

template <int WIDTH>
PairRows take_pair_rows(const RasterOptions& options, const Band& band, const Memory& memory, Stream stream);
template <int WIDTH>
void add_rows(const TileState& state, const Lists& lists, const PairRows& rows, float* sums, Stream stream);
// Zeros in the sums of what is seen.
template <int WIDTH>
void clear_sums(const TileState& state, float* sums, Stream stream);

}  // namespace gpu
}  // namespace scene3d
