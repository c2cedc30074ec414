// The tiles of an image and what reaches into each: counted, sorted, listed in bands of rows that fit into memory. What is
// listed is a kind of shape: the ellipses of projected Gaussians, or the boxes of discs.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "gpu/platform.h"
#include "math/tiles.h"

namespace scene3d {
namespace gpu {

struct Grid {
  int tiles_x, tiles_y;
};

// Rows of tiles [begin, end).
struct Band {
  int begin, end;
  int64_t n_pairs;
};

struct Counters {
  unsigned long long n_pairs;
  unsigned int n_visible, n_unsound;
};

// By item of a scene, and which of them are seen.
struct Seen {
  uint32_t* tiles_of;  // [N], tiles reached; 0 = not seen
  uint32_t* order;     // [n_visible], front to back, equal depths by index
};

// Lists of one band.
struct Lists {
  Band band;
  uint32_t* ids;       // [n_pairs], Gaussian by tile, front to back
  uint2* bounds;       // [tiles of the band], begin and end in ids
  // Ordered mode only, else null.
  uint32_t* pairs;    // [n_pairs], place of the entry's row
  uint32_t* offsets;  // [n_visible] by rank of depth, place of the Gaussian's first row; the others follow
};

// Memory of the device, which the caller owns.
struct Memory {
  std::function<void*(int64_t n_bytes, bool is_kept)> allocate;  // kept until backward is through, or temporary
  std::function<void()> release;                                 // of all that is temporary
  std::function<int64_t()> available;                            // bytes

  template <class T>
  T* take(int64_t n, bool is_kept) const {
    return static_cast<T*>(allocate((n > 0 ? n : 1) * static_cast<int64_t>(sizeof(T)), is_kept));
  }
};

struct RasterOptions {
  bool is_ordered;       // sums in a fixed order: same input, same bytes
  int64_t memory_limit;  // bytes for the lists of a band; 0 = as many as are available; below: ask also for few
};

struct TileState {
  Grid grid;
  Seen seen;
  int64_t n_visible, n_pairs, n_unsound;
  std::vector<Band> bands;
  Lists lists;     // of the only band
  bool has_lists;  // else backward lists again, band after band
};

inline Grid grid_of(int width, int height) {
  return {(width + kTileSize - 1) / kTileSize, (height + kTileSize - 1) / kTileSize};
}

// What projection counts, and what it leaves for sorting: whether an item is seen [n].
struct Tally {
  Counters* counters;
  uint32_t* is_visible;
};

// Room for what projection of n items writes; state.seen.tiles_of too.
Tally begin_tiles(int64_t n, Grid grid, const Memory& memory, Stream stream, TileState& state);

// Waits for the counts, sorts what is seen by depth and chooses the bands. Shapes: see shapes.h.
template <class Shapes>
void plan_tiles(const Shapes& shapes, int64_t n, const Tally& tally, const RasterOptions& options, const Memory& memory,
                Stream stream, TileState& state);

// The lists of a band; with is_kept they outlive memory.release().
template <class Shapes>
Lists list_tiles(const Shapes& shapes, const TileState& state, const RasterOptions& options, const Band& band, bool is_kept,
                 const Memory& memory, Stream stream);

// Bytes per pair of the lists, and of what ordered sums of n_floats numbers take on top.
constexpr int64_t kBytesPerPair = 20;
constexpr int64_t ordered_bytes_per_pair(int n_floats) { return 4 * n_floats + 12; }

// Splits the rows of tiles into bands of at most max_pairs. Throws std::length_error where one row has more.
std::vector<Band> plan_bands(const std::vector<uint32_t>& pairs_of_row, int64_t max_pairs, int64_t bytes_per_pair);

}  // namespace gpu
}  // namespace scene3d
