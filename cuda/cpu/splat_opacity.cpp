// The opacity of places as one view sees them (Yu et al. 2024): Gaussians and places are sorted into tiles of the image,
// and each tile is one task. 0.6 to 1 billion pairs of place and Gaussian a second and core with AVX-512.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/surface.h"
#include "cpu/tile_lists.h"

namespace scene3d {
namespace {

struct Place {
  float x, y, z;
  int32_t index;
};

const SurfaceKernels& find_kernels() {
  const char* const level = kernels().name;
#if defined(__x86_64__)
  if (!std::strcmp(level, "avx512")) return avx512_surface_kernels();
  if (!std::strcmp(level, "avx2")) return avx2_surface_kernels();
#elif defined(__aarch64__)
  if (!std::strcmp(level, "neon")) return neon_surface_kernels();
#endif
  (void)level;
  return scalar_surface_kernels();
}

// Places inside of the image that still count, by tile.
std::vector<std::vector<Place>> places_by_tile(const View<float>& v, const float* places, int64_t n, float enough,
                                               const float* opacity, int width, int height, int tiles_x, int tiles_y) {
  std::vector<std::vector<Place>> tiles(static_cast<size_t>(tiles_x * tiles_y));
  for (int64_t i = 0; i < n; i++) {
    if (opacity[i] <= enough) continue;
    const float* p = places + 3 * i;
    const float z = v.R[6] * p[0] + v.R[7] * p[1] + v.R[8] * p[2] + v.t[2];
    if (!(z > v.near_z)) continue;
    const float x = (v.R[0] * p[0] + v.R[1] * p[1] + v.R[2] * p[2] + v.t[0]) / z;
    const float y = (v.R[3] * p[0] + v.R[4] * p[1] + v.R[5] * p[2] + v.t[1]) / z;
    const float column = v.fx * x + v.cx, row = v.fy * y + v.cy;
    if (!(column >= 0 && row >= 0 && column < static_cast<float>(width) && row < static_cast<float>(height))) continue;
    const size_t tile = static_cast<size_t>(tile_at(row, tiles_y - 1) * tiles_x + tile_at(column, tiles_x - 1));
    tiles[tile].push_back({x, y, z, static_cast<int32_t>(i)});
  }
  return tiles;
}

}  // namespace

const SurfaceKernels& surface_kernels() { return find_kernels(); }

void opacity_from_view(const RasterCall<float>& call, const float* places, int64_t n_places, float enough,
                       float* opacity, int32_t* n_views) {
  const int tiles_x = tiles_of(call.width), tiles_y = tiles_of(call.height);
  std::vector<RayGaussian<float>> gaussians(static_cast<size_t>(call.n));
  std::vector<TileRect> rects(static_cast<size_t>(call.n), TileRect{0, 0, 0, 0});
  parallel_ranges(call.n, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      ProjectionFrame<float> frame;
      Ellipse<float> e;
      const GaussianRow<float> row = call.row(i);
      if (!project(call.view, row, static_cast<float>(kMinAlpha), false, e)) continue;
      make_frame(call.view, row, frame);
      const size_t at = static_cast<size_t>(i);
      make_ray_gaussian(call.view, frame, e.opacity, gaussians[at]);
      rects[at] = tiles_within(e.x - e.half_x, e.y - e.half_y, e.x + e.half_x, e.y + e.half_y, tiles_x, tiles_y);
    }
  });
  std::vector<int32_t> order;
  for (int32_t i = 0; i < static_cast<int32_t>(call.n); i++) {
    if (!rects[static_cast<size_t>(i)].empty()) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return gaussians[static_cast<size_t>(a)].z0 < gaussians[static_cast<size_t>(b)].z0;
  });
  const TileLists lists = list_by_tile(rects, order, tiles_x, tiles_y);
  auto tiles = places_by_tile(call.view, places, n_places, enough, opacity, call.width, call.height, tiles_x, tiles_y);
  parallel_for(static_cast<int64_t>(tiles.size()), [&](int64_t t) {
    std::vector<Place>& mine = tiles[static_cast<size_t>(t)];
    if (mine.empty()) return;
    std::sort(mine.begin(), mine.end(), [](const Place& a, const Place& b) {
      return a.z < b.z || (!(b.z < a.z) && a.index < b.index);
    });
    const size_t n = mine.size();
    std::vector<float> numbers(4 * n);
    float *x = numbers.data(), *y = x + n, *z = y + n, *result = z + n;
    for (size_t i = 0; i < n; i++) x[i] = mine[i].x, y[i] = mine[i].y, z[i] = mine[i].z;
    const int64_t begin = lists.begin[static_cast<size_t>(t)], end = lists.begin[static_cast<size_t>(t) + 1];
    surface_kernels().opacity_tile({gaussians.data(), lists.items.data() + begin, end - begin, x, y, z,
                                    static_cast<int64_t>(n), result});
    for (size_t i = 0; i < n; i++) {
      float& value = opacity[mine[i].index];
      value = std::min(value, result[i]);
      n_views[mine[i].index]++;
    }
  });
}

}  // namespace scene3d
