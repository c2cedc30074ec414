// Sums of a tile's pixels by warp, and their way into the rows of pairs. Device code: include it from kernels alone.
#pragma once
#include "gpu/pair_rows.h"

namespace scene3d {
namespace gpu {

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
