// From projected Gaussians to the lists of the tiles.
#include "gpu/raster.h"
#include "gpu/sort.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256;
// A warp lists the tiles of ellipses with more rows than this together, a lane a row.
constexpr int kRowsOfOneThread = 6;

__device__ inline int64_t thread_index() { return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; }

__device__ inline Reach reach_of(const Splat& s) {
  return make_reach(s.place.x, s.place.y, s.place.z, s.shape.x, s.shape.w, s.shape.y);
}

__global__ void collect_visible(int64_t n, Projected projected, const uint32_t* ranks, uint32_t* keys, uint32_t* ids) {
  const int64_t i = thread_index();
  if (i >= n || !projected.tiles_of[i]) return;
  keys[ranks[i]] = __float_as_uint(projected.splats[i].color.w);  // positive floats sort as their bits
  ids[ranks[i]] = static_cast<uint32_t>(i);
}

// Tiles by rank of depth, in the rows of one band.
__global__ void count_pairs(int64_t n_visible, Projected projected, Grid grid, Band band, bool is_whole, uint32_t* counts) {
  const int64_t r = thread_index();
  if (r >= n_visible) return;
  const uint32_t id = projected.order[r];
  counts[r] = is_whole ? projected.tiles_of[id]
                       : static_cast<uint32_t>(count_tiles(reach_of(projected.splats[id]), grid.tiles_x, grid.tiles_y, band.begin, band.end));
}

__global__ void count_pairs_of_rows(int64_t n_visible, Projected projected, Grid grid, uint32_t* pairs_of_row) {
  const int64_t r = thread_index();
  if (r >= n_visible) return;
  const Reach reach = reach_of(projected.splats[projected.order[r]]);
  const TileBox box = tile_box(reach, grid.tiles_x, grid.tiles_y, 0, grid.tiles_y);
  for (int row = box.y.first; row <= box.y.last; row++) {
    const TileSpan span = tile_span(reach, box.x, row);
    if (span.first <= span.last) atomicAdd(&pairs_of_row[row], static_cast<uint32_t>(span.last - span.first + 1));
  }
}

struct PairLists {
  const uint32_t* offsets;  // by rank
  int64_t n_visible, n_pairs;
  uint32_t *tiles, *values;
  uint32_t* owners;  // null unless ordered: values are then places of pairs, else Gaussians
};

// Writes the tiles of one row from place on, never past `end`.
__device__ inline void list_row(const PairLists& out, const TileSpan& span, int first_tile, uint32_t id, int64_t place, int64_t end) {
  for (int x = span.first; x <= span.last && place < end; x++, place++) {
    out.tiles[place] = static_cast<uint32_t>(first_tile + x);
    out.values[place] = out.owners ? static_cast<uint32_t>(place) : id;
    if (out.owners) out.owners[place] = id;
  }
}

// The whole warp lists one ellipse.
__device__ inline void list_together(const PairLists& out, Grid grid, Band band, const Reach& reach, const TileBox& box,
                                     uint32_t id, int64_t place, int64_t end, unsigned lane) {
  for (int first = box.y.first; first <= box.y.last; first += 32) {
    const int row = first + static_cast<int>(lane);
    const TileSpan span = row <= box.y.last ? tile_span(reach, box.x, row) : TileSpan{1, 0};
    const unsigned length = span.first <= span.last ? static_cast<unsigned>(span.last - span.first + 1) : 0;
    const unsigned up_to_here = warp_prefix(length, lane);
    list_row(out, span, (row - band.begin) * grid.tiles_x, id, place + up_to_here - length, end);
    place += __shfl_sync(kAllLanes, up_to_here, 31);
  }
}

// Counting and listing compute the same spans; should rounding ever differ, a list ends early and the places left keep
// the key that they were filled with, which belongs to no tile.
__global__ void list_pairs(Projected projected, Grid grid, Band band, PairLists out) {
  const unsigned lane = threadIdx.x % 32;
  const int64_t r = thread_index();
  uint32_t id = 0, place = 0, end = 0;
  TileBox box = {{0, -1}, {0, -1}};
  if (r < out.n_visible) {
    id = projected.order[r];
    place = out.offsets[r];
    end = r + 1 < out.n_visible ? out.offsets[r + 1] : static_cast<uint32_t>(out.n_pairs);
    if (end > out.n_pairs) end = static_cast<uint32_t>(out.n_pairs);
    const Reach reach = reach_of(projected.splats[id]);
    box = tile_box(reach, grid.tiles_x, grid.tiles_y, band.begin, band.end);
    if (box.y.last - box.y.first < kRowsOfOneThread) {
      int64_t at = place;
      for (int row = box.y.first; row <= box.y.last; row++) {
        const TileSpan span = tile_span(reach, box.x, row);
        list_row(out, span, (row - band.begin) * grid.tiles_x, id, at, end);
        if (span.first <= span.last) at += span.last - span.first + 1;
      }
    }
  }
  for (unsigned rest = __ballot_sync(kAllLanes, box.y.last - box.y.first >= kRowsOfOneThread); rest; rest &= rest - 1) {
    const int from = __ffs(static_cast<int>(rest)) - 1;
    const uint32_t its_id = __shfl_sync(kAllLanes, id, from);
    const uint32_t its_place = __shfl_sync(kAllLanes, place, from), its_end = __shfl_sync(kAllLanes, end, from);
    const Reach reach = reach_of(projected.splats[its_id]);
    list_together(out, grid, band, reach, tile_box(reach, grid.tiles_x, grid.tiles_y, band.begin, band.end), its_id,
                  its_place, its_end, lane);
  }
}

// Where each tile begins and ends in the sorted list.
__global__ void find_bounds(int64_t n_pairs, uint32_t n_tiles, const uint32_t* tiles, uint2* bounds) {
  const int64_t i = thread_index();
  if (i >= n_pairs || tiles[i] >= n_tiles) return;
  const uint32_t tile = tiles[i];
  if (i == 0 || tiles[i - 1] != tile) bounds[tile].x = static_cast<uint32_t>(i);
  if (i + 1 == n_pairs || tiles[i + 1] != tile) bounds[tile].y = static_cast<uint32_t>(i + 1);
}

__global__ void find_owners(int64_t n_pairs, uint32_t n_tiles, const uint32_t* tiles, const uint32_t* pairs,
                            const uint32_t* owners, uint32_t* ids) {
  const int64_t i = thread_index();
  if (i < n_pairs && tiles[i] < n_tiles) ids[i] = owners[pairs[i]];
}

}  // namespace

void sort_by_depth(int64_t n, int64_t n_visible, const Projected& projected, uint32_t* ranks, const Memory& memory,
                   Stream stream) {
  if (n_visible == 0) return;
  exclusive_sum(ranks, n, memory, stream);
  uint32_t* const keys = memory.take<uint32_t>(3 * n_visible, false);
  uint32_t *const sorted_keys = keys + n_visible, *const ids = keys + 2 * n_visible;
  S3D_LAUNCH(collect_visible, blocks_for(n, kThreads), kThreads, stream, n, projected, ranks, keys, ids);
  sort_pairs(keys, sorted_keys, ids, projected.order, n_visible, 32, memory, stream);
}

std::vector<uint32_t> count_rows(const Projected& projected, int64_t n_visible, Grid grid, const Memory& memory,
                                 Stream stream) {
  uint32_t* const counts = memory.take<uint32_t>(grid.tiles_y, false);
  std::vector<uint32_t> rows(static_cast<size_t>(grid.tiles_y), 0u);
  set_zero(counts, 4 * grid.tiles_y, stream);
  S3D_LAUNCH(count_pairs_of_rows, blocks_for(n_visible, kThreads), kThreads, stream, n_visible, projected, grid, counts);
  copy_to_host(rows.data(), counts, 4 * grid.tiles_y, stream);
  return rows;
}

Lists list_band(const Projected& projected, int64_t n_visible, Grid grid, const Band& band, bool is_ordered,
                bool is_kept, bool is_whole, const Memory& memory, Stream stream) {
  const int64_t n_pairs = band.n_pairs, n_tiles = static_cast<int64_t>(band.end - band.begin) * grid.tiles_x;
  Lists lists = {band, nullptr, memory.take<uint2>(n_tiles, is_kept), nullptr, nullptr};
  set_zero(lists.bounds, n_tiles * static_cast<int64_t>(sizeof(uint2)), stream);
  if (n_pairs == 0) return lists;
  lists.ids = memory.take<uint32_t>(n_pairs, is_kept);
  uint32_t* const offsets = memory.take<uint32_t>(n_visible, is_kept && is_ordered);
  if (is_ordered) lists.pairs = memory.take<uint32_t>(n_pairs, is_kept), lists.offsets = offsets;
  S3D_LAUNCH(count_pairs, blocks_for(n_visible, kThreads), kThreads, stream, n_visible, projected, grid, band, is_whole, offsets);
  exclusive_sum(offsets, n_visible, memory, stream);
  uint32_t* const tiles = memory.take<uint32_t>((is_ordered ? 4 : 3) * n_pairs, false);
  uint32_t *const values = tiles + n_pairs, *const sorted_tiles = tiles + 2 * n_pairs;
  uint32_t* const owners = is_ordered ? tiles + 3 * n_pairs : nullptr;
  set_ones(tiles, 4 * n_pairs, stream);
  const PairLists out = {offsets, n_visible, n_pairs, tiles, values, owners};
  S3D_LAUNCH(list_pairs, blocks_for(n_visible, kThreads), kThreads, stream, projected, grid, band, out);
  const uint32_t n_keys = static_cast<uint32_t>(n_tiles);
  sort_pairs(tiles, sorted_tiles, values, is_ordered ? lists.pairs : lists.ids, n_pairs, tile_key_bits(n_keys), memory, stream);
  S3D_LAUNCH(find_bounds, blocks_for(n_pairs, kThreads), kThreads, stream, n_pairs, n_keys, sorted_tiles, lists.bounds);
  if (is_ordered)
    S3D_LAUNCH(find_owners, blocks_for(n_pairs, kThreads), kThreads, stream, n_pairs, n_keys, sorted_tiles, lists.pairs, owners, lists.ids);
  return lists;
}

}  // namespace gpu
}  // namespace scene3d
