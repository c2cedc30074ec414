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

// Of 32 items, by warp.
template <bool ORDERED, int WIDTH>
struct WarpSums {
  float values[ORDERED ? kTileWarps : 1][ORDERED ? 32 : 1][WIDTH];
  uint32_t hits[kTileWarps];  // items that the warp blended
};

// Adds the warps' sums in their order and writes the rows of the n <= 32 items from `pairs` on, by the whole block.
template <int n_terms, int WIDTH>
__device__ inline void write_rows(const PairRows& out, const WarpSums<true, WIDTH>& part, const uint32_t* pairs, unsigned n) {
  for (unsigned k = threadIdx.x; k < 32 * WIDTH; k += kTileThreads) {
    const unsigned item = k / WIDTH, slot = k % WIDTH;
    if (item >= n) continue;
    float sum = 0.f;
    bool is_hit = false;
    for (int warp = 0; warp < kTileWarps; warp++) {
      if (!((part.hits[warp] >> item) & 1)) continue;
      is_hit = true;
      if (slot < n_terms) sum += part.values[warp][item][slot];
    }
    if (!is_hit) continue;
    out.rows[static_cast<int64_t>(pairs[item]) * WIDTH + slot] = sum;
    if (slot == 0) out.touched[pairs[item]] = 1;
  }
}

}  // namespace gpu
}  // namespace scene3d
