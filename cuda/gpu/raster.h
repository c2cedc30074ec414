// The CUDA rasterizer of one view. Kernels take raw pointers into memory that the caller gives; a stream is a number.
//
// Forward:  project every Gaussian to a Splat, count the tiles that its alpha = 1/255 ellipse reaches -> sort the visible
//           ones by depth -> list their (tile, Gaussian) pairs in that order -> sort the pairs by tile, which keeps the
//           order within a tile -> blend. Sorting N depths and then narrow tile numbers moves about a third of the bytes
//           of one sort of 64-bit (tile, depth) keys over all pairs.
// Backward: each warp walks front to back over the splats that reach its 8x4 pixels, with the gradient-weighted colour
//           that is still to come, so that forward leaves nothing but its images. A splat's sums over the warp's pixels
//           are added to its row by atomics; or, in the ordered mode, collected per (tile, Gaussian) pair and added up
//           in a fixed order.
// Where the lists of all tiles would take more memory than allowed, bands of tile rows are done one after the other.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/raster_call.h"
#include "gpu/platform.h"
#include "math/tiles.h"

namespace scene3d {
namespace gpu {

// One visible Gaussian as the tiles see it: half a cache line of geometry, half of colour.
struct alignas(64) Splat {
  float4 place;   // x, y, l11, l21
  float4 shape;   // l22, log2 of opacity, slope_x, slope_y (see cpu/raster.h)
  float4 color;   // red, green, blue, depth
  float4 normal;  // x, y, z, factor on alpha
};

// Sums of one Gaussian over pixels: a row of kSumFloats.
// Masks come without depth and take its place.
enum SumSlot { kSumS, kSumU, kSumV, kSumUU, kSumUV, kSumVV, kSumRed, kSumDepth = 9, kSumAbsX, kSumAbsY, kSumNormal, kSumMask = kSumDepth };
constexpr int kSumFloats = 16;

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

// What projection leaves.
struct Projected {
  Splat* splats;       // [N], by Gaussian; those not visible are not written
  uint32_t* tiles_of;  // [N], tiles reached; 0 = not visible
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

struct RasterState {
  Grid grid;
  Projected projected;
  int64_t n_visible, n_pairs, n_unsound;
  std::vector<Band> bands;
  Lists lists;        // of the only band
  bool has_lists;     // else backward lists again, band after band
};

// Writes all of `out`, and radii [N] if given.
void raster_forward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& out,
                    float* radii, const Memory& memory, Stream stream, RasterState& state);

// The first half of the way back: rows of kSumFloats by Gaussian, written for the visible ones.
const float* raster_sums(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                         const RasterUpstream<float>& upstream, const Memory& memory, Stream stream, const RasterState& state);

// All of it. Writes all of `out`.
void raster_backward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                     const RasterUpstream<float>& upstream, const RasterGrads<float>& out, const Memory& memory,
                     Stream stream, const RasterState& state);

// Bytes per pair of the lists, and of what ordered sums take on top.
constexpr int64_t kBytesPerPair = 20, kOrderedBytesPerPair = 4 * kSumFloats + 12;

// Splits the rows of tiles into bands of at most max_pairs. Throws std::length_error where one row has more.
std::vector<Band> plan_bands(const std::vector<uint32_t>& pairs_of_row, int64_t max_pairs, int64_t bytes_per_pair);

// Parts of raster.cu, each in the file of its name.
void project_all(const RasterCall<float>& call, Grid grid, const Projected& out, float* radii, uint32_t* is_visible,
                 Counters* counters, Stream stream);
void sort_by_depth(int64_t n, int64_t n_visible, const Projected& projected, uint32_t* ranks, const Memory& memory,
                   Stream stream);
std::vector<uint32_t> count_rows(const Projected& projected, int64_t n_visible, Grid grid, const Memory& memory,
                                 Stream stream);
Lists list_band(const Projected& projected, int64_t n_visible, Grid grid, const Band& band, bool is_ordered,
                bool is_kept, bool is_whole, const Memory& memory, Stream stream);
void blend_forward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                   const RasterImages<float>& out, Stream stream);
void blend_backward(const RasterCall<float>& call, Grid grid, const Splat* splats, const Lists& lists,
                    const RasterImages<float>& images, const RasterUpstream<float>& upstream, float* sums, float* rows,
                    uint8_t* touched, Stream stream);
void add_rows(int64_t n_visible, const Projected& projected, const Lists& lists, const float* rows,
              const uint8_t* touched, float* sums, Stream stream);
void clear_sums(int64_t n_visible, const uint32_t* order, float* sums, Stream stream);
void gaussian_gradients(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums,
                        const RasterGrads<float>& out, float* view_partials, Stream stream);
int64_t view_partial_floats(int64_t n);

}  // namespace gpu
}  // namespace scene3d
