#include "cpu/raster_tiled.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int kRadixBits = 11, kBins = 1 << kRadixBits;

// Tiles [first, last] of one row of tiles that an ellipse reaches, as in reach_tiles: for the rows past kSpanRows.
void span_of_row(const ProjectedRows& e, int i, int ty, int& first, int& last) {
  const float x = e.x[i], y = e.y[i], half_x = e.half_x[i], half_y = e.half_y[i];
  const float low = std::max(ty * kTileSize + 0.5f - kSlack - y, -half_y);
  const float high = std::min(ty * kTileSize + kTileSize - 0.5f + kSlack - y, half_y);
  first = 1, last = 0;
  if (low > high) return;
  const float slope = e.cov[1][i] / e.cov[2][i], widest = half_y * e.cov[1][i] / std::sqrt(e.cov[0][i] * e.cov[2][i]);
  const float inv = 1.f / (half_y * half_y), spread = e.det[i] * half_y * half_y / (e.cov[2][i] * e.cov[2][i]);
  const auto root = [&](float dy) { return std::sqrt(std::max(0.f, spread * (1.f - dy * dy * inv))); };
  const bool widest_right = widest >= low && widest <= high, widest_left = -widest >= low && -widest <= high;
  const float right = widest_right ? half_x : std::max(slope * low + root(low), slope * high + root(high));
  const float left = widest_left ? -half_x : std::min(slope * low - root(low), slope * high - root(high));
  const float from = -std::floor((kTileSize - 0.5f + kSlack - x - left) / kTileSize), to = std::floor((x + right + kSlack - 0.5f) / kTileSize);
  first = static_cast<int>(std::max(e.tile_x0[i], from)), last = static_cast<int>(std::min(e.tile_x1[i], to));
}

// Appends the tiles that ellipse i of sixteen reaches, row by row; gives their number.
int64_t list_tiles(const ProjectedRows& e, int i, int tiles_x, Buffer<uint32_t>& list, int64_t used) {
  if (!(e.tile_x0[i] <= e.tile_x1[i] && e.tile_y0[i] <= e.tile_y1[i])) return 0;
  const int x0 = static_cast<int>(e.tile_x0[i]), x1 = static_cast<int>(e.tile_x1[i]);
  const int y0 = static_cast<int>(e.tile_y0[i]), y1 = static_cast<int>(e.tile_y1[i]);
  uint32_t* tiles = list.extend(static_cast<size_t>(used + static_cast<int64_t>(y1 - y0 + 1) * (x1 - x0 + 1)), static_cast<size_t>(used));
  const int64_t before = used;
  for (int ty = y0; ty <= y1; ty++) {
    int first, last;
    if (ty - y0 < kSpanRows) first = static_cast<int>(e.first[ty - y0][i]), last = static_cast<int>(e.last[ty - y0][i]);
    else span_of_row(e, i, ty, first, last);
    for (int tx = first; tx <= last; tx++) tiles[used++] = static_cast<uint32_t>(ty * tiles_x + tx);
  }
  return used - before;
}

struct ChunkCounts {
  int64_t n_visible = 0, n_pairs = 0, n_unsound = 0;
};

// Seconds of work in the two halves of a pass, by chunk.
struct Halves {
  double first = 0, second = 0;
};

Halves total(const std::vector<Halves>& chunks) {
  Halves sum;
  for (const Halves& chunk : chunks) sum.first += chunk.first, sum.second += chunk.second;
  return sum;
}

ChunkScratch& scratch() {
  static thread_local Buffer<ChunkScratch> buffer;
  return *buffer.reserve(1);
}

// Projects Gaussians [begin, end): splats, counts of tiles (into pair_begin[i + 1]) and the tiles.
ChunkCounts project_chunk(const RasterCall<float>& call, TiledState& state, int64_t begin, int64_t end, float* radii,
                          Halves& times) {
  Stopwatch watch;
  Buffer<uint32_t>& tiles = state.chunk_tiles[static_cast<size_t>(begin / kGrain)];
  ProjectedRows* const projected = scratch().projected;
  ChunkCounts counts;
  const Kernels& table = kernels();
  for (int64_t from = begin; from < end; from += 16) {
    ProjectedRows& rows = projected[(from - begin) / 16];
    table.project_rows(call, from, static_cast<int>(std::min<int64_t>(16, end - from)), state.splats.data(), rows);
    counts.n_unsound += rows.n_unsound;
  }
  times.first = watch.lap();
  for (int64_t i = begin; i < end; i++) {
    const ProjectedRows& rows = projected[(i - begin) / 16];
    const int k = static_cast<int>((i - begin) % 16);
    const int64_t count = rows.half_x[k] > 0.f ? list_tiles(rows, k, state.tiles_x, tiles, counts.n_pairs) : 0;
    state.pair_begin[static_cast<size_t>(i + 1)] = static_cast<uint32_t>(count);
    radii[i] = count ? std::max(rows.half_x[k], rows.half_y[k]) : 0.f;
    counts.n_pairs += count;
    counts.n_visible += count > 0;
  }
  times.second = watch.lap();
  return counts;
}

void project_all(const RasterCall<float>& call, TiledState& state, float* radii) {
  Stopwatch watch;
  const int64_t n_chunks = (call.n + kGrain - 1) / kGrain;
  if (static_cast<int64_t>(state.chunk_tiles.size()) < n_chunks) state.chunk_tiles.resize(static_cast<size_t>(n_chunks));
  state.splats.reserve(static_cast<size_t>(call.n));
  state.pair_begin.reserve(static_cast<size_t>(call.n + 1));
  std::vector<ChunkCounts> before(static_cast<size_t>(n_chunks + 1));  // counts of a chunk, then of all before it
  std::vector<Halves> times(static_cast<size_t>(n_chunks));
  parallel_ranges(call.n, kGrain, [&](int64_t begin, int64_t end) {
    const size_t chunk = static_cast<size_t>(begin / kGrain);
    before[chunk + 1] = project_chunk(call, state, begin, end, radii, times[chunk]);
  });
  for (size_t c = 1; c < before.size(); c++) {
    before[c].n_visible += before[c - 1].n_visible;
    before[c].n_pairs += before[c - 1].n_pairs;
    before[c].n_unsound += before[c - 1].n_unsound;
  }
  state.n_visible = before.back().n_visible;
  state.n_pairs = before.back().n_pairs;
  state.n_unsound = before.back().n_unsound;
  if (state.n_pairs > INT64_C(0x7fffffff)) throw std::runtime_error("more than 2^31 (Gaussian, tile) pairs: render in smaller tiles or remove huge Gaussians");
  state.keys.reserve(static_cast<size_t>(state.n_visible));
  state.pair_begin[0] = 0;
  parallel_ranges(call.n, kGrain, [&](int64_t begin, int64_t end) {
    const size_t chunk = static_cast<size_t>(begin / kGrain);
    uint64_t* key = state.keys.data() + before[chunk].n_visible;
    uint32_t pair = static_cast<uint32_t>(before[chunk].n_pairs);
    for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); i++) {
      const uint32_t count = state.pair_begin[i + 1];
      state.pair_begin[i + 1] = pair += count;
      if (!count) continue;
      uint32_t bits;
      std::memcpy(&bits, &state.splats[i].depth, 4);  // positive floats sort as their bits
      *key++ = (static_cast<uint64_t>(bits) << 32) | i;
    }
  });
  const Halves work = total(times);
  watch.lap(kTimeProject, kTimeList, work.first, work.second);
}

// Stable radix sort of the keys by depth. The number of slices changes nothing in the result.
void sort_by_depth(TiledState& state) {
  const int64_t n = state.n_visible;
  if (n < 2) return;
  state.keys_swap.reserve(static_cast<size_t>(n));
  const int64_t n_slices = std::min<int64_t>(thread_count(), (n + 4095) / 4096), grain = (n + n_slices - 1) / n_slices;
  uint64_t low = ~UINT64_C(0), high = 0;
  for (int64_t i = 0; i < n; i++) low = std::min(low, state.keys[i] >> 32), high = std::max(high, state.keys[i] >> 32);
  const uint64_t range = high - low;
  uint32_t* counts = state.histogram.reserve(static_cast<size_t>(n_slices * kBins));
  uint64_t *from = state.keys.data(), *to = state.keys_swap.data();
  for (int shift = 0; shift < 32 && (range >> shift); shift += kRadixBits) {
    const auto bin = [&](uint64_t key) { return (((key >> 32) - low) >> shift) & (kBins - 1); };
    parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
      uint32_t* mine = counts + begin / grain * kBins;
      std::memset(mine, 0, kBins * sizeof(uint32_t));
      for (int64_t i = begin; i < end; i++) mine[bin(from[i])]++;
    });
    uint32_t total = 0;
    for (int b = 0; b < kBins; b++)
      for (int64_t s = 0; s < n_slices; s++) {
        const uint32_t count = counts[s * kBins + b];
        counts[s * kBins + b] = total;
        total += count;
      }
    parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
      uint32_t* mine = counts + begin / grain * kBins;
      for (int64_t i = begin; i < end; i++) to[mine[bin(from[i])]++] = from[i];
    });
    std::swap(from, to);
  }
  if (from != state.keys.data()) std::swap(state.keys, state.keys_swap);
}

// Calls f(id, pair, tile) for every pair of the sorted Gaussians [begin, end).
template <class F>
void each_pair(const TiledState& state, int64_t begin, int64_t end, F f) {
  constexpr int64_t kAhead = 16;
  for (int64_t k = begin; k < end; k++) {
    if (k + kAhead < end) __builtin_prefetch(&state.pair_begin[static_cast<uint32_t>(state.keys[k + kAhead])]);
    if (k + kAhead / 2 < end) {
      const uint32_t next = static_cast<uint32_t>(state.keys[k + kAhead / 2]);
      const uint32_t chunk = next / kGrain;
      __builtin_prefetch(state.chunk_tiles[chunk].data() + (state.pair_begin[next] - state.pair_begin[chunk * kGrain]));
    }
    const uint32_t id = static_cast<uint32_t>(state.keys[k]), chunk = id / kGrain;
    const uint32_t first = state.pair_begin[id], last = state.pair_begin[id + 1];
    const uint32_t* tiles = state.chunk_tiles[chunk].data() + (first - state.pair_begin[chunk * kGrain]);
    for (uint32_t p = first; p < last; p++) f(id, p, *tiles++);
  }
}

// Scatters the pairs to their tiles, front to back.
void bin_pairs(TiledState& state) {
  const int64_t n_tiles = static_cast<int64_t>(state.tiles_x) * state.tiles_y, n = state.n_visible;
  const int64_t n_slices = std::max<int64_t>(1, std::min<int64_t>(thread_count(), n / 1024));
  const int64_t grain = std::max<int64_t>(1, (n + n_slices - 1) / n_slices);
  uint32_t* counts = state.histogram.reserve(static_cast<size_t>(n_slices * n_tiles));
  std::memset(counts, 0, static_cast<size_t>(n_slices * n_tiles) * sizeof(uint32_t));
  parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
    uint32_t* mine = counts + begin / grain * n_tiles;
    each_pair(state, begin, end, [&](uint32_t, uint32_t, uint32_t tile) { mine[tile]++; });
  });
  uint32_t* offsets = state.offsets.reserve(static_cast<size_t>(n_tiles + 1));
  uint32_t total = 0;
  for (int64_t t = 0; t < n_tiles; t++) {
    offsets[t] = total;
    for (int64_t s = 0; s < n_slices; s++) {
      const uint32_t count = counts[s * n_tiles + t];
      counts[s * n_tiles + t] = total;
      total += count;
    }
  }
  offsets[n_tiles] = total;
  TileEntry* entries = state.entries.reserve(static_cast<size_t>(state.n_pairs));
  parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
    uint32_t* mine = counts + begin / grain * n_tiles;
    each_pair(state, begin, end, [&](uint32_t id, uint32_t pair, uint32_t tile) { entries[mine[tile]++] = {id, pair}; });
  });
}

RasterTileArgs tile_args(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images) {
  RasterTileArgs a = {};
  a.width = call.width, a.height = call.height, a.tiles_x = state.tiles_x;
  a.alpha_masks = call.masks;
  a.splats = state.splats.data(), a.entries = state.entries.data(), a.offsets = state.offsets.data();
  a.masks = state.masks.reserve(static_cast<size_t>(state.n_pairs));
  for (int c = 0; c < 3; c++) a.background[c] = call.background[c];
  a.with_extra = call.with_extra, a.absgrad = call.absgrad;
  a.rgb = images.rgb, a.alpha = images.alpha, a.depth = images.depth, a.normals = images.normals;
  a.median = images.median, a.median_id = images.median_id;
  return a;
}

// Adds the gradients of median depth, pixel after pixel, to the depth sums of their Gaussians.
std::vector<float> median_grads(const RasterCall<float>& call, const RasterImages<float>& images, const float* v_median) {
  std::vector<float> sums(static_cast<size_t>(call.n), 0.f);
  for (int64_t p = 0; p < static_cast<int64_t>(call.width) * call.height; p++)
    if (images.median_id[p] >= 0) sums[static_cast<size_t>(images.median_id[p])] += v_median[p];
  return sums;
}

// Adds up the pairs of each Gaussian and hands the sums of a chunk to f(begin, end, sums, v_view); adds up v_view.
template <class F>
void reduce_pairs(const RasterCall<float>& call, const PairRows& pairs, float* v_viewmat, F f) {
  Stopwatch watch;
  const size_t n_chunks = static_cast<size_t>((call.n + kGrain - 1) / kGrain);
  std::vector<ViewGrad<float>> v_views(v_viewmat ? n_chunks : 0, ViewGrad<float>{});
  std::vector<Halves> times(n_chunks);
  const Kernels& table = kernels();
  parallel_ranges(call.n, kGrain, [&](int64_t begin, int64_t end) {
    Stopwatch mine;
    const size_t chunk = static_cast<size_t>(begin / kGrain);
    float* const sums = scratch().sums;
    table.sum_pair_rows(pairs, begin, end, sums);
    times[chunk].first = mine.lap();
    f(begin, end, sums, v_viewmat ? &v_views[chunk] : nullptr);
    times[chunk].second = mine.lap();
  });
  const Halves work = total(times);
  watch.lap(kTimeSumPairs, kTimeReduce, work.first, work.second);
  if (!v_viewmat) return;
  double sums[16] = {};
  for (const ViewGrad<float>& v : v_views)
    for (int i = 0; i < 3; i++) {
      sums[4 * i + 3] += v.t[i];
      for (int j = 0; j < 3; j++) sums[4 * i + j] += v.R[3 * i + j];
    }
  for (int k = 0; k < 16; k++) v_viewmat[k] = static_cast<float>(sums[k]);
}

// The rows of sums of every (Gaussian, tile) pair.
PairRows blend_backward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                        const RasterUpstream<float>& upstream) {
  Stopwatch watch;
  RasterTileArgs args = tile_args(call, state, images);
  args.v_rgb = upstream.rgb, args.v_alpha = upstream.alpha, args.v_depth = upstream.depth, args.v_normals = upstream.normals;
  args.rows = state.rows.reserve(static_cast<size_t>(state.n_pairs) * kRowFloats);
  args.touched = state.touched.reserve(static_cast<size_t>(state.n_pairs));
  std::memset(args.touched, 0, static_cast<size_t>(state.n_pairs));
  const Kernels& table = kernels();
  parallel_for(static_cast<int64_t>(state.tiles_x) * state.tiles_y, [&](int64_t tile) { table.raster_backward_tile(args, tile); });
  watch.lap(kTimeBlendBackward);
  return {state.pair_begin.data(), state.rows.data(), state.touched.data(), nullptr};
}

}  // namespace

std::shared_ptr<TiledState> borrow_state() {
  static std::mutex* mutex = new std::mutex;
  static auto* free_states = new std::vector<TiledState*>;
  TiledState* state = nullptr;
  {
    std::lock_guard<std::mutex> lock(*mutex);
    if (!free_states->empty()) state = free_states->back(), free_states->pop_back();
  }
  if (!state) state = new TiledState;
  return {state, [](TiledState* s) {
            std::lock_guard<std::mutex> lock(*mutex);
            if (free_states->size() < 2) free_states->push_back(s);
            else delete s;
          }};
}

void tiled_forward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& out, float* radii) {
  state.tiles_x = (call.width + kTileSize - 1) / kTileSize, state.tiles_y = (call.height + kTileSize - 1) / kTileSize;
  project_all(call, state, radii);
  Stopwatch watch;
  sort_by_depth(state);
  watch.lap(kTimeSort);
  bin_pairs(state);
  watch.lap(kTimeBin);
  const RasterTileArgs args = tile_args(call, state, out);
  const Kernels& table = kernels();
  parallel_for(static_cast<int64_t>(state.tiles_x) * state.tiles_y, [&](int64_t tile) { table.raster_forward_tile(args, tile); });
  watch.lap(kTimeBlend);
}

void tiled_backward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                    const RasterUpstream<float>& upstream, RasterGrads<float>& out) {
  PairRows pairs = blend_backward(call, state, images, upstream);
  std::vector<float> v_median;
  if (upstream.median) v_median = median_grads(call, images, upstream.median);
  if (!v_median.empty()) pairs.v_median = v_median.data();
  const auto gradient_rows = kernels().gradient_rows;
  reduce_pairs(call, pairs, out.viewmat, [&](int64_t begin, int64_t end, const float* sums, ViewGrad<float>* v_view) {
    gradient_rows(call, pairs, sums, begin, end, out, v_view);
    for (int64_t i = begin; out.masks && i < end; i++) out.masks[i] = sums[kRowFloats * (i - begin) + kMask];
  });
}

void tiled_descend(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                   const RasterUpstream<float>& upstream, const DescentArgs& descent, float* v_viewmat) {
  const PairRows pairs = blend_backward(call, state, images, upstream);
  const auto descend_rows = kernels().descend_rows;
  reduce_pairs(call, pairs, v_viewmat, [&](int64_t begin, int64_t end, const float* sums, ViewGrad<float>* v_view) {
    descend_rows(call, pairs, sums, begin, end, descent, v_view);
  });
}

double* tiled_times() {
  static thread_local double times[kTimeSlots];
  return times;
}

}  // namespace scene3d
