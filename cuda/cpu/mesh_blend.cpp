// Colours of surface points from one picture after another.
#include <algorithm>
#include <cmath>

#include "cpu/mesh.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kPointsPerTask = 8192;
constexpr float kDepthSlack = 1e-3f;  // rounding of float32 depths, relative
constexpr float kMinZ = 1e-6f;
// Colours of pixels that may show another surface count only where there are no
// others.
constexpr float kMixedShare = 0.01f;

struct Seen {
  float x, y;  // of the pixel, less one half
  float z;
  float facing;  // cosine between normal and ray
};

// Whether the view sees the point: in the image, facing it, and no farther than
// the farthest of four pixels around.
bool sees(const MeshView& view, const double* center, const float* depth, const float* p, const float* n,
          float min_facing, Seen& seen) {
  const double* m = view.cam_from_world;
  const double z = m[8] * p[0] + m[9] * p[1] + m[10] * p[2] + m[11];
  if (!(z > kMinZ)) return false;
  const double u = view.fx * (m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3]) / z + view.cx;
  const double v = view.fy * (m[4] * p[0] + m[5] * p[1] + m[6] * p[2] + m[7]) / z + view.cy;
  if (!(u >= 0 && v >= 0 && u < static_cast<double>(view.width) && v < static_cast<double>(view.height))) return false;
  const double r[3] = {center[0] - p[0], center[1] - p[1], center[2] - p[2]};
  const double length = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  seen.facing = static_cast<float>((r[0] * n[0] + r[1] * n[1] + r[2] * n[2]) / length);
  if (!(seen.facing > min_facing)) return false;
  seen.x = static_cast<float>(std::max(u - 0.5, 0.0)), seen.y = static_cast<float>(std::max(v - 0.5, 0.0));
  seen.z = static_cast<float>(z);
  const int64_t x0 = std::min(static_cast<int64_t>(seen.x), view.width - 1),
                y0 = std::min(static_cast<int64_t>(seen.y), view.height - 1);
  const int64_t x1 = std::min(x0 + 1, view.width - 1), y1 = std::min(y0 + 1, view.height - 1);
  const float around[4] = {depth[y0 * view.width + x0], depth[y0 * view.width + x1], depth[y1 * view.width + x0],
                           depth[y1 * view.width + x1]};
  const float farthest = *std::max_element(around, around + 4);
  return farthest > 0 && seen.z <= farthest * (1 + kDepthSlack);
}

void add_sample(const MeshView& view, const uint8_t* picture, float x, float y, float w, float* total) {
  const int64_t x0 = std::min(static_cast<int64_t>(x), view.width - 1),
                y0 = std::min(static_cast<int64_t>(y), view.height - 1);
  const int64_t x1 = std::min(x0 + 1, view.width - 1), y1 = std::min(y0 + 1, view.height - 1);
  const float fx = std::min(x - static_cast<float>(x0), 1.0f), fy = std::min(y - static_cast<float>(y0), 1.0f);
  for (int64_t c = 0; c < 3; c++) {
    const auto at = [&](int64_t row, int64_t column) {
      return static_cast<float>(picture[(row * view.width + column) * 3 + c]);
    };
    const float top = at(y0, x0) * (1 - fx) + at(y0, x1) * fx, bottom = at(y1, x0) * (1 - fx) + at(y1, x1) * fx;
    total[c] += w * (top * (1 - fy) + bottom * fy);
  }
}

}  // namespace

void blend_picture(const float* points, const float* normals, int64_t n_points, const MeshView& view,
                   const float* depth, const uint8_t* mixed, const uint8_t* picture, float min_facing,
                   float facing_power, float* total, float* weight) {
  const double* m = view.cam_from_world;
  double center[3];
  for (int a = 0; a < 3; a++) center[a] = -(m[a] * m[3] + m[4 + a] * m[7] + m[8 + a] * m[11]);
  parallel_ranges(n_points, kPointsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Seen seen;
      if (!sees(view, center, depth, points + 3 * i, normals + 3 * i, min_facing, seen)) continue;
      const float resolution = static_cast<float>(view.fx) / seen.z;
      const int64_t column = std::min(static_cast<int64_t>(seen.x + 0.5f), view.width - 1),
                    row = std::min(static_cast<int64_t>(seen.y + 0.5f), view.height - 1);
      const float sure = mixed[row * view.width + column] != 0 ? kMixedShare : 1.0f;
      const float w = sure * std::pow(seen.facing, facing_power) * resolution * resolution;
      add_sample(view, picture, seen.x, seen.y, w, total + 3 * i);
      weight[i] += w;
    }
  });
}

void count_views(const float* points, int64_t n_points, const MeshView& view, const float* depth, int32_t* count) {
  const double center[3] = {0, 0, 0};
  const float any[3] = {0, 0, 0};
  parallel_ranges(n_points, kPointsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Seen seen;
      count[i] += sees(view, center, depth, points + 3 * i, any, -1.0f, seen) ? 1 : 0;
    }
  });
}

}  // namespace scene3d
