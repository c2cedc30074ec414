#include "gpu/raster.h"

#include <algorithm>

namespace scene3d {
namespace gpu {
namespace {

std::string size_text(int64_t n_bytes) {
  const bool is_small = n_bytes < (10 << 20);
  return std::to_string((n_bytes + 1023) >> (is_small ? 10 : 20)) + (is_small ? " KiB" : " MiB");
}

// Lists below this size are made without asking how much memory there is.
constexpr int64_t kSmallLists = INT64_C(256) << 20;

// One band where the limit allows it.
std::vector<Band> choose_bands(const RasterState& state, const RasterOptions& options, const Memory& memory, Stream stream) {
  const int64_t per_pair = kBytesPerPair + (options.is_ordered ? kOrderedBytesPerPair : 0), needed = state.n_pairs * per_pair;
  int64_t limit = options.memory_limit;
  if (limit <= 0) limit = limit == 0 && needed <= kSmallLists ? kSmallLists : memory.available();
  // Places of pairs are 32-bit numbers.
  const int64_t most_pairs = std::min<int64_t>(limit / per_pair, INT64_C(0x7fffffff));
  if (state.n_pairs <= most_pairs) return {{0, state.grid.tiles_y, state.n_pairs}};
  return plan_bands(count_rows(state.projected, state.n_visible, state.grid, memory, stream), most_pairs, per_pair);
}

Lists make_lists(const RasterState& state, const RasterOptions& options, const Band& band, bool is_kept,
                 const Memory& memory, Stream stream) {
  return list_band(state.projected, state.n_visible, state.grid, band, options.is_ordered, is_kept, state.bands.size() == 1, memory, stream);
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

void raster_forward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& out,
                    float* radii, const Memory& memory, Stream stream, RasterState& state) {
  state.grid = {(call.width + kTileSize - 1) / kTileSize, (call.height + kTileSize - 1) / kTileSize};
  state.projected = {memory.take<Splat>(call.n, true), memory.take<uint32_t>(call.n, true), nullptr};
  uint32_t* const ranks = memory.take<uint32_t>(call.n, false);
  Counters* const counters = memory.take<Counters>(1, false);
  project_all(call, state.grid, state.projected, radii, ranks, counters, stream);
  Counters counted;
  copy_to_host(&counted, counters, sizeof(counted), stream);
  state.n_visible = counted.n_visible, state.n_unsound = counted.n_unsound;
  state.n_pairs = static_cast<int64_t>(counted.n_pairs);
  state.projected.order = memory.take<uint32_t>(state.n_visible, true);
  sort_by_depth(call.n, state.n_visible, state.projected, ranks, memory, stream);
  memory.release();
  state.bands = choose_bands(state, options, memory, stream);
  state.has_lists = state.bands.size() == 1;
  for (const Band& band : state.bands) {
    const Lists lists = make_lists(state, options, band, state.has_lists, memory, stream);
    blend_forward(call, state.grid, state.projected.splats, lists, out, stream);
    if (state.has_lists) state.lists = lists;
    memory.release();
  }
}

const float* raster_sums(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                         const RasterUpstream<float>& upstream, const Memory& memory, Stream stream, const RasterState& state) {
  float* const sums = memory.take<float>(call.n * kSumFloats, true);
  if (state.n_visible > 0) clear_sums(state.n_visible, state.projected.order, sums, stream);
  for (const Band& band : state.bands) {
    if (band.n_pairs == 0) continue;
    const Lists lists = state.has_lists ? state.lists : make_lists(state, options, band, false, memory, stream);
    float* const rows = options.is_ordered ? memory.take<float>(band.n_pairs * kSumFloats, false) : nullptr;
    uint8_t* const touched = options.is_ordered ? memory.take<uint8_t>(band.n_pairs, false) : nullptr;
    if (touched) set_zero(touched, band.n_pairs, stream);
    blend_backward(call, state.grid, state.projected.splats, lists, images, upstream, sums, rows, touched, stream);
    if (rows) add_rows(state.n_visible, state.projected, lists, rows, touched, sums, stream);
    memory.release();
  }
  return sums;
}

void raster_backward(const RasterCall<float>& call, const RasterOptions& options, const RasterImages<float>& images,
                     const RasterUpstream<float>& upstream, const RasterGrads<float>& out, const Memory& memory,
                     Stream stream, const RasterState& state) {
  float* const view_partials = out.viewmat ? memory.take<float>(view_partial_floats(call.n), true) : nullptr;
  const float* const sums = raster_sums(call, options, images, upstream, memory, stream, state);
  gaussian_gradients(call, state.projected.tiles_of, sums, out, view_partials, stream);
}

}  // namespace gpu
}  // namespace scene3d
