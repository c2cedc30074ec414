// Flat Gaussians over threads: discs to tiles, tiles to images, and sums of tiles to gradients in a fixed order.
#include "cpu/surfels.h"

#include "cpu/parallel.h"
#include "cpu/surface.h"

namespace scene3d {
namespace {

constexpr int kPackBytes = 64;

template <class T>
const SurfelTable<T>& table();
template <>
const SurfelTable<float>& table() {
  return surface_kernels().f32;
}
template <>
const SurfelTable<double>& table() {
  return scalar_surface_kernels().f64;
}

template <class T>
SurfelTile<T> tile_of(const SurfelCall<T>& call, const SurfelState<T>& state, int64_t t) {
  const TileLists& lists = state.lists;
  const int64_t begin = lists.begin[static_cast<size_t>(t)], end = lists.begin[static_cast<size_t>(t) + 1];
  return {&call,
          state.surfels.data(),
          state.rows.data(),
          lists.items.data() + begin,
          end - begin,
          static_cast<int>(t % lists.tiles_x) * kTileSize,
          static_cast<int>(t / lists.tiles_x) * kTileSize};
}

// The box in pixels, of the disc or of its blur, whichever is larger.
template <class T>
bool find_box(const SurfelCall<T>& call, int64_t i, const Surfel<T>& g, T* low, T* high) {
  if (!call.cutoff) {
    low[0] = low[1] = T(0), high[0] = static_cast<T>(call.width), high[1] = static_cast<T>(call.height);
    return true;
  }
  if (!surfel_bounds(call.view, call.matrices + 9 * i, g, low, high)) return false;
  return high[0] > 0 && high[1] > 0 && low[0] < static_cast<T>(call.width) && low[1] < static_cast<T>(call.height);
}

}  // namespace

template <class T>
void surfels_forward(const SurfelCall<T>& call, SurfelState<T>& state, const SurfelImages<T>& out, T* radii) {
  const int tiles_x = tiles_of(call.width), tiles_y = tiles_of(call.height);
  const size_t n = static_cast<size_t>(call.n);
  Surfel<T>* surfels = state.surfels.reserve(n);
  T* rows = state.rows.reserve(2 * n);
  std::vector<TileRect> rects(n, TileRect{0, 0, 0, 0});
  parallel_ranges(call.n, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Surfel<T>& g = surfels[i];
      radii[i] = 0;
      if (!make_surfel(call.view, call.matrices + 9 * i, g)) continue;
      g.opacity = call.opacities[i];
      for (int c = 0; c < 3; c++) g.rgb[c] = call.rgb[3 * i + c], g.normal[c] = call.normals[3 * i + c];
      T low[2], high[2];
      if (!is_finite(g.opacity) || !find_box(call, i, g, low, high)) continue;
      rows[2 * i] = low[1], rows[2 * i + 1] = high[1];
      rects[static_cast<size_t>(i)] = tiles_within(static_cast<double>(low[0]), static_cast<double>(low[1]),
                                                   static_cast<double>(high[0]), static_cast<double>(high[1]), tiles_x,
                                                   tiles_y);
      radii[i] = std::max(high[0] - low[0], high[1] - low[1]) / 2;
    }
  });
  std::vector<int32_t> order;
  for (size_t i = 0; i < n; i++)
    if (!rects[i].empty()) order.push_back(static_cast<int32_t>(i));
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return surfels[a].z < surfels[b].z; });
  state.lists = list_by_tile(rects, order, tiles_x, tiles_y);
  parallel_for(static_cast<int64_t>(tiles_x) * tiles_y,
               [&](int64_t t) { table<T>().forward(tile_of(call, state, t), out); });
}

template <class T>
void surfels_backward(const SurfelCall<T>& call, const SurfelState<T>& state, const SurfelImages<T>& images,
                      const SurfelUpstream<T>& upstream, T* v_matrices, T* v_opacities, T* v_rgb, T* v_normals) {
  const TileLists& lists = state.lists;
  const size_t n_pairs = lists.items.size(), n = static_cast<size_t>(call.n);
  std::vector<T> pair_sums(n_pairs * kSurfelSums);
  parallel_for(static_cast<int64_t>(lists.begin.size()) - 1, [&](int64_t t) {
    const SurfelTile<T> tile = tile_of(call, state, t);
    if (tile.n_list == 0) return;
    Buffer<char> scratch;
    scratch.reserve(static_cast<size_t>(tile.n_list) * kSurfelSums * kPackBytes);
    const size_t begin = static_cast<size_t>(lists.begin[static_cast<size_t>(t)]);
    table<T>().backward(tile, images, upstream, pair_sums.data() + begin * kSurfelSums, scratch.data());
  });
  // Pairs by disc, in the order of the tiles.
  std::vector<int64_t> first(n + 1, 0), pairs(n_pairs);
  for (const int32_t i : lists.items) first[static_cast<size_t>(i) + 1]++;
  for (size_t i = 0; i < n; i++) first[i + 1] += first[i];
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  for (size_t p = 0; p < n_pairs; p++) pairs[static_cast<size_t>(next[static_cast<size_t>(lists.items[p])]++)] = static_cast<int64_t>(p);
  parallel_ranges(call.n, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      T sums[kSurfelSums] = {};
      for (int64_t k = first[static_cast<size_t>(i)]; k < first[static_cast<size_t>(i) + 1]; k++)
        for (int s = 0; s < kSurfelSums; s++) sums[s] += pair_sums[static_cast<size_t>(pairs[static_cast<size_t>(k)] * kSurfelSums + s)];
      T* v_matrix = v_matrices + 9 * i;
      for (int k = 0; k < 9; k++) v_matrix[k] = 0;
      if (first[static_cast<size_t>(i)] < first[static_cast<size_t>(i) + 1])
        make_surfel_vjp(call.matrices + 9 * i, state.surfels[static_cast<size_t>(i)], sums, v_matrix);
      v_opacities[i] = sums[kDiscOpacity];
      for (int c = 0; c < 3; c++) v_rgb[3 * i + c] = sums[kDiscRgb + c], v_normals[3 * i + c] = sums[kDiscNormal + c];
    }
  });
}

template void surfels_forward(const SurfelCall<float>&, SurfelState<float>&, const SurfelImages<float>&, float*);
template void surfels_forward(const SurfelCall<double>&, SurfelState<double>&, const SurfelImages<double>&, double*);
template void surfels_backward(const SurfelCall<float>&, const SurfelState<float>&, const SurfelImages<float>&,
                               const SurfelUpstream<float>&, float*, float*, float*, float*);
template void surfels_backward(const SurfelCall<double>&, const SurfelState<double>&, const SurfelImages<double>&,
                               const SurfelUpstream<double>&, double*, double*, double*, double*);

}  // namespace scene3d
