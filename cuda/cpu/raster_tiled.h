// The tiled rasterizer of one view in float. See raster.h for the flow.
#pragma once
#include <chrono>
#include <memory>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/raster.h"
#include "cpu/raster_call.h"

namespace scene3d {

struct DescentArgs;  // cpu/descent.h

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

// Backward, and a step of Adam instead of writing gradients. v_viewmat [4, 4] may be null.
void tiled_descend(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                   const RasterUpstream<float>& upstream, const DescentArgs& descent, float* v_viewmat);

// Where the time of the last forward and backward on this thread went. Projection and the listing of tiles, and the
// sums of pairs and what is made of them, share one pass each: its time is split in proportion to the work of all threads.
enum TimeSlot {
  kTimeProject,
  kTimeList,
  kTimeSort,
  kTimeBin,
  kTimeBlend,
  kTimeLoss,
  kTimeBlendBackward,
  kTimeSumPairs,
  kTimeReduce,
  kTimeSlots
};
double* tiled_times();  // milliseconds

// Writes the time since its last lap into a slot.
class Stopwatch {
 public:
  void lap(TimeSlot slot) { tiled_times()[slot] = lap(); }

  // Splits the time between two slots in proportion to a and b.
  void lap(TimeSlot slot_a, TimeSlot slot_b, double a, double b) {
    const double time = lap(), share = a + b > 0 ? a / (a + b) : 0;
    tiled_times()[slot_a] = time * share, tiled_times()[slot_b] = time * (1 - share);
  }

  double lap() {
    const auto now = std::chrono::steady_clock::now(), before = start_;
    start_ = now;
    return std::chrono::duration<double, std::milli>(now - before).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace scene3d
