#include <algorithm>
#include <string>

#include "gpu/shapes.h"
#include "gpu/sort.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256;
// A warp lists the tiles of ellipses with more rows than this together, a lane a row.
constexpr int kRowsOfOneThread = 6;

__device__ inline int64_t thread_index() { return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; }

__device__ inline unsigned length_of(const TileSpan& span) {
  return span.first <= span.last ? static_cast<unsigned>(span.last - span.first + 1) : 0;
}

template <class Shapes>
__global__ void collect_visible(int64_t n, Shapes shapes, const uint32_t* tiles_of, const uint32_t* ranks, uint32_t* keys, uint32_t* ids) {
  const int64_t i = thread_index();
  if (i >= n || !tiles_of[i]) return;
  keys[ranks[i]] = __float_as_uint(shapes.depth(static_cast<uint32_t>(i)));  // positive floats sort as their bits
  ids[ranks[i]] = static_cast<uint32_t>(i);
}

// Tiles by rank of depth, in the rows of one band.
template <class Shapes>
__global__ void count_pairs(int64_t n_visible, Shapes shapes, Seen seen, Grid grid, Band band, bool is_whole, uint32_t* counts) {
  const int64_t r = thread_index();
  if (r >= n_visible) return;
  const uint32_t id = seen.order[r];
  uint32_t count = is_whole ? seen.tiles_of[id] : 0;
  if (!is_whole) {
    const typename Shapes::Shape shape = shapes.shape(id);
    const TileBox box = Shapes::box(shape, grid, band.begin, band.end);
    for (int row = box.y.first; row <= box.y.last; row++) count += length_of(Shapes::span(shape, box, row));
  }
  counts[r] = count;
}

template <class Shapes>
__global__ void count_pairs_of_rows(int64_t n_visible, Shapes shapes, Seen seen, Grid grid, uint32_t* pairs_of_row) {
  const int64_t r = thread_index();
  if (r >= n_visible) return;
  const typename Shapes::Shape shape = shapes.shape(seen.order[r]);
  const TileBox box = Shapes::box(shape, grid, 0, grid.tiles_y);
  for (int row = box.y.first; row <= box.y.last; row++) {
    const unsigned length = length_of(Shapes::span(shape, box, row));
    if (length) atomicAdd(&pairs_of_row[row], length);
  }
}

struct PairLists {
  const uint32_t* offsets;  // by rank
  int64_t n_visible, n_pairs;
  uint32_t *tiles, *values;
  uint32_t* owners;  // null unless ordered: values are then places of pairs, else items
};

// Writes the tiles of one row from place on, never past `end`.
__device__ inline void list_row(const PairLists& out, const TileSpan& span, int first_tile, uint32_t id, int64_t place, int64_t end) {
  for (int x = span.first; x <= span.last && place < end; x++, place++) {
    out.tiles[place] = static_cast<uint32_t>(first_tile + x);
    out.values[place] = out.owners ? static_cast<uint32_t>(place) : id;
    if (out.owners) out.owners[place] = id;
  }
}

// The whole warp lists one item.
template <class Shapes>
__device__ inline void list_together(const PairLists& out, const Shapes& shapes, Grid grid, Band band, uint32_t id, int64_t place,
                                     int64_t end, unsigned lane) {
  const typename Shapes::Shape shape = shapes.shape(id);
  const TileBox box = Shapes::box(shape, grid, band.begin, band.end);
  for (int first = box.y.first; first <= box.y.last; first += 32) {
    const int row = first + static_cast<int>(lane);
    const TileSpan span = row <= box.y.last ? Shapes::span(shape, box, row) : TileSpan{1, 0};
    const unsigned length = length_of(span);
    const unsigned up_to_here = warp_prefix(length, lane);
    list_row(out, span, (row - band.begin) * grid.tiles_x, id, place + up_to_here - length, end);
    place += __shfl_sync(kAllLanes, up_to_here, 31);
  }
}

// Counting and listing compute the same spans; should rounding ever differ, a list ends early and the places left keep
// the key that they were filled with, which belongs to no tile.
template <class Shapes>
__global__ void list_pairs(Shapes shapes, Seen seen, Grid grid, Band band, PairLists out) {
  const unsigned lane = threadIdx.x % 32;
  const int64_t r = thread_index();
  uint32_t id = 0, place = 0, end = 0;
  TileBox box = {{0, -1}, {0, -1}};
  if (r < out.n_visible) {
    id = seen.order[r];
    place = out.offsets[r];
    end = r + 1 < out.n_visible ? out.offsets[r + 1] : static_cast<uint32_t>(out.n_pairs);
    if (end > out.n_pairs) end = static_cast<uint32_t>(out.n_pairs);
    const typename Shapes::Shape shape = shapes.shape(id);
    box = Shapes::box(shape, grid, band.begin, band.end);
    if (box.y.last - box.y.first < kRowsOfOneThread) {
      int64_t at = place;
      for (int row = box.y.first; row <= box.y.last; row++) {
        const TileSpan span = Shapes::span(shape, box, row);
        list_row(out, span, (row - band.begin) * grid.tiles_x, id, at, end);
        at += length_of(span);
      }
    }
  }
  for (unsigned rest = __ballot_sync(kAllLanes, box.y.last - box.y.first >= kRowsOfOneThread); rest; rest &= rest - 1) {
    const int from = __ffs(static_cast<int>(rest)) - 1;
    const uint32_t its_id = __shfl_sync(kAllLanes, id, from);
    const uint32_t its_place = __shfl_sync(kAllLanes, place, from), its_end = __shfl_sync(kAllLanes, end, from);
    list_together(out, shapes, grid, band, its_id, its_place, its_end, lane);
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

template <class Shapes>
void sort_by_depth(const Shapes& shapes, int64_t n, const TileState& state, uint32_t* ranks, const Memory& memory, Stream stream) {
  const int64_t n_visible = state.n_visible;
  if (n_visible == 0) return;
  exclusive_sum(ranks, n, memory, stream);
  uint32_t* const keys = memory.take<uint32_t>(3 * n_visible, false);
  uint32_t *const sorted_keys = keys + n_visible, *const ids = keys + 2 * n_visible;
  S3D_LAUNCH(collect_visible<Shapes>, blocks_for(n, kThreads), kThreads, stream, n, shapes, state.seen.tiles_of, ranks, keys, ids);
  sort_pairs(keys, sorted_keys, ids, state.seen.order, n_visible, 32, memory, stream);
}

template <class Shapes>
std::vector<uint32_t> count_rows(const Shapes& shapes, const TileState& state, const Memory& memory, Stream stream) {
  const int n_rows = state.grid.tiles_y;
  uint32_t* const counts = memory.take<uint32_t>(n_rows, false);
  std::vector<uint32_t> rows(static_cast<size_t>(n_rows), 0u);
  set_zero(counts, 4 * n_rows, stream);
  S3D_LAUNCH(count_pairs_of_rows<Shapes>, blocks_for(state.n_visible, kThreads), kThreads, stream, state.n_visible, shapes,
             state.seen, state.grid, counts);
  copy_to_host(rows.data(), counts, 4 * n_rows, stream);
  return rows;
}

std::string size_text(int64_t n_bytes) {
  const bool is_small = n_bytes < (10 << 20);
  return std::to_string((n_bytes + 1023) >> (is_small ? 10 : 20)) + (is_small ? " KiB" : " MiB");
}

// Lists below this size are made without asking how much memory there is.
constexpr int64_t kSmallLists = INT64_C(256) << 20;

// One band where the limit allows it.
template <class Shapes>
std::vector<Band> choose_bands(const Shapes& shapes, const TileState& state, const RasterOptions& options, const Memory& memory,
                               Stream stream) {
  const int64_t per_pair = kBytesPerPair + (options.is_ordered ? ordered_bytes_per_pair(Shapes::kSums) : 0);
  const int64_t needed = state.n_pairs * per_pair;
  int64_t limit = options.memory_limit;
  if (limit <= 0) limit = limit == 0 && needed <= kSmallLists ? kSmallLists : memory.available();
  // Places of pairs are 32-bit numbers.
  const int64_t most_pairs = std::min<int64_t>(limit / per_pair, INT64_C(0x7fffffff));
  if (state.n_pairs <= most_pairs) return {{0, state.grid.tiles_y, state.n_pairs}};
  return plan_bands(count_rows(shapes, state, memory, stream), most_pairs, per_pair);
}

}  // namespace

std::vector<Band> plan_bands(const std::vector<uint32_t>& pairs_of_row, int64_t max_pairs, int64_t bytes_per_pair) {
  std::vector<Band> bands;
  for (int row = 0; row < static_cast<int>(pairs_of_row.size()); row++) {
    const int64_t n_pairs = pairs_of_row[static_cast<size_t>(row)];
    if (n_pairs > max_pairs)
      throw std::length_error("the lists of one row of tiles (" + std::to_string(kTileSize) + " pixels) need " +
                              size_text(n_pairs * bytes_per_pair) + ", and " + size_text(max_pairs * bytes_per_pair) +
                              " are allowed. Render smaller images, remove huge Gaussians, or free memory of the GPU");
    if (bands.empty() || bands.back().n_pairs + n_pairs > max_pairs) bands.push_back({row, row, 0});
    bands.back().end = row + 1, bands.back().n_pairs += n_pairs;
  }
  return bands;
}

Tally begin_tiles(int64_t n, Grid grid, const Memory& memory, Stream stream, TileState& state) {
  state.grid = grid;
  state.seen = {memory.take<uint32_t>(n, true), nullptr};
  const Tally tally = {memory.take<Counters>(1, false), memory.take<uint32_t>(n, false)};
  set_zero(tally.counters, sizeof(Counters), stream);
  return tally;
}

template <class Shapes>
void plan_tiles(const Shapes& shapes, int64_t n, const Tally& tally, const RasterOptions& options, const Memory& memory,
                Stream stream, TileState& state) {
  Counters counted;
  copy_to_host(&counted, tally.counters, sizeof(counted), stream);
  state.n_visible = counted.n_visible, state.n_unsound = counted.n_unsound;
  state.n_pairs = static_cast<int64_t>(counted.n_pairs);
  state.seen.order = memory.take<uint32_t>(state.n_visible, true);
  sort_by_depth(shapes, n, state, tally.is_visible, memory, stream);
  memory.release();
  state.bands = choose_bands(shapes, state, options, memory, stream);
  state.has_lists = state.bands.size() == 1;
}

template <class Shapes>
Lists list_tiles(const Shapes& shapes, const TileState& state, const RasterOptions& options, const Band& band, bool is_kept,
                 const Memory& memory, Stream stream) {
  const Grid grid = state.grid;
  const bool is_ordered = options.is_ordered;
  const int64_t n_visible = state.n_visible, n_pairs = band.n_pairs;
  const int64_t n_tiles = static_cast<int64_t>(band.end - band.begin) * grid.tiles_x, n_blocks = blocks_for(n_pairs, kThreads);
  Lists lists = {band, nullptr, memory.take<uint2>(n_tiles, is_kept), nullptr, nullptr};
  set_zero(lists.bounds, n_tiles * static_cast<int64_t>(sizeof(uint2)), stream);
  if (n_pairs == 0) return lists;
  lists.ids = memory.take<uint32_t>(n_pairs, is_kept);
  uint32_t* const offsets = memory.take<uint32_t>(n_visible, is_kept && is_ordered);
  if (is_ordered) lists.pairs = memory.take<uint32_t>(n_pairs, is_kept), lists.offsets = offsets;
  const bool is_whole = state.bands.size() == 1;
  S3D_LAUNCH(count_pairs<Shapes>, blocks_for(n_visible, kThreads), kThreads, stream, n_visible, shapes, state.seen, grid, band, is_whole, offsets);
  exclusive_sum(offsets, n_visible, memory, stream);
  uint32_t* const tiles = memory.take<uint32_t>((is_ordered ? 4 : 3) * n_pairs, false);
  uint32_t *const values = tiles + n_pairs, *const sorted_tiles = tiles + 2 * n_pairs;
  uint32_t* const owners = is_ordered ? tiles + 3 * n_pairs : nullptr;
  set_ones(tiles, 4 * n_pairs, stream);
  const PairLists out = {offsets, n_visible, n_pairs, tiles, values, owners};
  S3D_LAUNCH(list_pairs<Shapes>, blocks_for(n_visible, kThreads), kThreads, stream, shapes, state.seen, grid, band, out);
  const uint32_t n_keys = static_cast<uint32_t>(n_tiles);
  sort_pairs(tiles, sorted_tiles, values, is_ordered ? lists.pairs : lists.ids, n_pairs, tile_key_bits(n_keys), memory, stream);
  S3D_LAUNCH(find_bounds, n_blocks, kThreads, stream, n_pairs, n_keys, sorted_tiles, lists.bounds);
  if (is_ordered) S3D_LAUNCH(find_owners, n_blocks, kThreads, stream, n_pairs, n_keys, sorted_tiles, lists.pairs, owners, lists.ids);
  return lists;
}

#define S3D_INSTANTIATE(Shapes)                                                                                          \
  template void plan_tiles<Shapes>(const Shapes&, int64_t, const Tally&, const RasterOptions&, const Memory&, Stream, TileState&); \
  template Lists list_tiles<Shapes>(const Shapes&, const TileState&, const RasterOptions&, const Band&, bool, const Memory&, Stream);
S3D_INSTANTIATE(Ellipses)
S3D_INSTANTIATE(DiscBoxes)
#undef S3D_INSTANTIATE

}  // namespace gpu
}  // namespace scene3d
