#include "cpu/raster_tiled.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int kRadixBits = 11, kBins = 1 << kRadixBits;

thread_local double times_ms[6];

class Stopwatch {
 public:
  void lap(int slot) {
    const auto now = std::chrono::steady_clock::now();
    times_ms[slot] = std::chrono::duration<double, std::milli>(now - start_).count();
    start_ = now;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

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

// Projects Gaussians [begin, end): splats, counts of tiles (into pair_begin[i + 1]) and the tiles.
ChunkCounts project_chunk(const RasterCall<float>& call, TiledState& state, int64_t begin, int64_t end, float* radii) {
  Buffer<uint32_t>& tiles = state.chunk_tiles[static_cast<size_t>(begin / kGrain)];
  ProjectedRows rows;
  ChunkCounts counts;
  const Kernels& table = kernels();
  for (int64_t from = begin; from < end; from += 16) {
    const int n = static_cast<int>(std::min<int64_t>(16, end - from));
    table.project_rows(call, from, n, state.splats.data(), rows);
    counts.n_unsound += rows.n_unsound;
    for (int k = 0; k < n; k++) {
      const int64_t i = from + k, count = rows.half_x[k] > 0.f ? list_tiles(rows, k, state.tiles_x, tiles, counts.n_pairs) : 0;
      state.pair_begin[static_cast<size_t>(i + 1)] = static_cast<uint32_t>(count);
      radii[i] = count ? std::max(rows.half_x[k], rows.half_y[k]) : 0.f;
      counts.n_pairs += count;
      counts.n_visible += count > 0;
    }
  }
  return counts;
}

void project_all(const RasterCall<float>& call, TiledState& state, float* radii) {
  const int64_t n_chunks = (call.n + kGrain - 1) / kGrain;
  if (static_cast<int64_t>(state.chunk_tiles.size()) < n_chunks) state.chunk_tiles.resize(static_cast<size_t>(n_chunks));
  state.splats.reserve(static_cast<size_t>(call.n));
  state.pair_begin.reserve(static_cast<size_t>(call.n + 1));
  std::vector<ChunkCounts> before(static_cast<size_t>(n_chunks + 1));  // counts of a chunk, then of all before it
  parallel_ranges(call.n, kGrain, [&](int64_t begin, int64_t end) {
    before[static_cast<size_t>(begin / kGrain) + 1] = project_chunk(call, state, begin, end, radii);
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

void reduce_to_parameters(const RasterCall<float>& call, const TiledState& state, const RasterImages<float>& images,
                          const RasterUpstream<float>& upstream, RasterGrads<float>& out) {
  const int64_t n_chunks = (call.n + kGrain - 1) / kGrain;
  std::vector<ViewGrad<float>> v_views(out.viewmat ? static_cast<size_t>(n_chunks) : 0, ViewGrad<float>{});
  std::vector<float> v_median;
  if (upstream.median) v_median = median_grads(call, images, upstream.median);
  const PairRows pairs = {state.pair_begin.data(), state.rows.data(), state.touched.data(),
                          v_median.empty() ? nullptr : v_median.data()};
  const Kernels& table = kernels();
  parallel_ranges(call.n, kGrain, [&](int64_t begin, int64_t end) {
    table.gradient_rows(call, pairs, begin, end, out, out.viewmat ? &v_views[static_cast<size_t>(begin / kGrain)] : nullptr);
  });
  if (!out.viewmat) return;
  double total[16] = {};
  for (const ViewGrad<float>& v : v_views)
    for (int i = 0; i < 3; i++) {
      total[4 * i + 3] += v.t[i];
      for (int j = 0; j < 3; j++) total[4 * i + j] += v.R[3 * i + j];
    }
  for (int k = 0; k < 16; k++) out.viewmat[k] = static_cast<float>(total[k]);
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
  Stopwatch watch;
  state.tiles_x = (call.width + kTileSize - 1) / kTileSize, state.tiles_y = (call.height + kTileSize - 1) / kTileSize;
  project_all(call, state, radii);
  watch.lap(0);
  sort_by_depth(state);
  watch.lap(1);
  bin_pairs(state);
  watch.lap(2);
  const RasterTileArgs args = tile_args(call, state, out);
  const Kernels& table = kernels();
  parallel_for(static_cast<int64_t>(state.tiles_x) * state.tiles_y, [&](int64_t tile) { table.raster_forward_tile(args, tile); });
  watch.lap(3);
}

void tiled_backward(const RasterCall<float>& call, TiledState& state, const RasterImages<float>& images,
                    const RasterUpstream<float>& upstream, RasterGrads<float>& out) {
  Stopwatch watch;
  RasterTileArgs args = tile_args(call, state, images);
  args.v_rgb = upstream.rgb, args.v_alpha = upstream.alpha, args.v_depth = upstream.depth, args.v_normals = upstream.normals;
  args.rows = state.rows.reserve(static_cast<size_t>(state.n_pairs) * kRowFloats);
  args.touched = state.touched.reserve(static_cast<size_t>(state.n_pairs));
  std::memset(args.touched, 0, static_cast<size_t>(state.n_pairs));
  const Kernels& table = kernels();
  parallel_for(static_cast<int64_t>(state.tiles_x) * state.tiles_y, [&](int64_t tile) { table.raster_backward_tile(args, tile); });
  watch.lap(4);
  reduce_to_parameters(call, state, images, upstream, out);
  watch.lap(5);
}

const double* tiled_times() { return times_ms; }

}  // namespace scene3d
