// Counts of what is seen, added up by every warp of a projection.
#pragma once
#include "gpu/tile_state.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {

// By whole warps, every lane for its item: the tiles that it reaches, and whether its numbers are finite.
__device__ inline void add_to_tally(const Tally& tally, unsigned n_tiles, bool is_sound) {
  Counters* const to = tally.counters;
  const unsigned n_pairs = warp_sum(n_tiles), n_visible = __popc(__ballot_sync(kAllLanes, n_tiles > 0));
  const unsigned n_unsound = __popc(__ballot_sync(kAllLanes, !is_sound));
  if (threadIdx.x % 32 > 0) return;
  if (n_pairs) atomicAdd(&to->n_pairs, static_cast<unsigned long long>(n_pairs)), atomicAdd(&to->n_visible, n_visible);
  if (n_unsound) atomicAdd(&to->n_unsound, n_unsound);
}

}  // namespace gpu
}  // namespace scene3d
