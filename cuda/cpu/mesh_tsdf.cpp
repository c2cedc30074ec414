// Depth images averaged into truncated signed distances (Curless and Levoy
// 1996), block by block.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/mesh.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int kSide = 8;
constexpr int64_t kBlockVoxels = kSide * kSide * kSide;
constexpr int64_t kBlocksPerTask = 64;
// What lies farther behind the end of a look than this is not known to be inside.
constexpr double kNearVoxels = 2;
// Weight of looks past a thin part that may be a pixel off.
constexpr float kBeside = 0.02f;

struct Sample {
  float depth = 0, weight = 0;
};

// Depth at a place in the image: bilinear where the four pixels around it lie
// on one surface, else the pixel itself.
Sample look_up(const MeshView& view, const float* depth, const float* weight, double u, double v, double one_surface) {
  const int64_t x = static_cast<int64_t>(u), y = static_cast<int64_t>(v);
  const int64_t at = y * view.width + x;
  const Sample nearest = {depth[at], weight[at]};
  if (!(nearest.depth > 0)) return {};
  const double s = u - 0.5, t = v - 0.5;
  const int64_t x0 = static_cast<int64_t>(std::floor(s)), y0 = static_cast<int64_t>(std::floor(t));
  if (x0 < 0 || y0 < 0 || x0 + 1 >= view.width || y0 + 1 >= view.height) return nearest;
  const float* row = depth + y0 * view.width + x0;
  const float d[4] = {row[0], row[1], row[view.width], row[view.width + 1]};
  for (const float other : d)
    if (!(other > 0) || std::fabs(other - nearest.depth) > one_surface) return nearest;
  const double fx = s - static_cast<double>(x0), fy = t - static_cast<double>(y0);
  const double value = (1 - fy) * ((1 - fx) * d[0] + fx * d[1]) + fy * ((1 - fx) * d[2] + fx * d[3]);
  return {static_cast<float>(value), nearest.weight};
}

// The farthest depth in every square of kTile pixels, and in those around it:
// what lies behind is hidden.
constexpr int64_t kTile = 16;
class Farthest {
 public:
  Farthest(const MeshView& view, const float* depth)
      : width_((view.width + kTile - 1) / kTile),
        height_((view.height + kTile - 1) / kTile),
        most_(static_cast<size_t>(width_ * height_), 0.0f) {
    for (int64_t y = 0; y < view.height; y++)
      for (int64_t x = 0; x < view.width; x++) {
        float& most = most_[static_cast<size_t>(y / kTile * width_ + x / kTile)];
        most = std::max(most, depth[y * view.width + x]);
      }
  }

  // Of the pixels from (x0, y0) to (x1, y1), which may lie outside of the
  // image.
  float within(double x0, double y0, double x1, double y1) const {
    const auto tile = [](double at, int64_t n) {
      return static_cast<int64_t>(std::clamp(at / kTile, 0.0, static_cast<double>(n - 1)));
    };
    float most = 0;
    for (int64_t y = tile(y0, height_); y <= tile(y1, height_); y++)
      for (int64_t x = tile(x0, width_); x <= tile(x1, width_); x++)
        most = std::max(most, most_[static_cast<size_t>(y * width_ + x)]);
    return most;
  }

 private:
  int64_t width_, height_;
  std::vector<float> most_;
};

struct Vec {
  double x, y, z;
};

Vec to_camera(const MeshView& view, const double* p) {
  const double* m = view.cam_from_world;
  return {m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3], m[4] * p[0] + m[5] * p[1] + m[6] * p[2] + m[7],
          m[8] * p[0] + m[9] * p[1] + m[10] * p[2] + m[11]};
}

// False where the view surely says nothing about the block: outside of the
// image, or behind all that is seen there.
bool may_see(const TsdfGrid& grid, const MeshView& view, const Farthest& farthest, const int32_t* block) {
  const double half = (kSide - 1) / 2.0, radius = half * 1.7320509 * grid.voxel_size;
  double p[3];
  for (int a = 0; a < 3; a++) p[a] = grid.origin[a] + (kSide * static_cast<double>(block[a]) + half) * grid.voxel_size;
  const Vec middle = to_camera(view, p);
  if (middle.z <= -radius) return false;
  if (middle.z <= 2 * radius) return true;
  // A ball at z > 2 r: its outline is within r / (z - r) of its middle in the
  // image plane, a little more beside the axis.
  const double x = middle.x / middle.z, y = middle.y / middle.z;
  const double reach = radius / (middle.z - radius) * (1 + std::max(std::fabs(x), std::fabs(y)));
  const double x0 = (x - reach) * view.fx + view.cx, x1 = (x + reach) * view.fx + view.cx;
  const double y0 = (y - reach) * view.fy + view.cy, y1 = (y + reach) * view.fy + view.cy;
  if (x1 < 0 || y1 < 0 || x0 > static_cast<double>(view.width) || y0 > static_cast<double>(view.height)) return false;
  return farthest.within(x0 - 1, y0 - 1, x1 + 1, y1 + 1) + grid.truncation >= middle.z - radius;
}

}  // namespace

void ask_view(const MeshView& view, const float* depth, const MeshView& other, const float* other_depth,
              float tolerance, int32_t* agree, int32_t* object) {
  const double* m = view.cam_from_world;
  parallel_ranges(view.height, 16, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * view.width; at < end * view.width; at++) {
      const double z = depth[at];
      if (!(z > 0)) continue;
      const double c[3] = {(static_cast<double>(at % view.width) + 0.5 - view.cx) / view.fx * z - m[3],
                           (static_cast<double>(at / view.width) + 0.5 - view.cy) / view.fy * z - m[7], z - m[11]};
      double p[3];
      for (int a = 0; a < 3; a++) p[a] = m[a] * c[0] + m[4 + a] * c[1] + m[8 + a] * c[2];
      const Vec there = to_camera(other, p);
      if (!(there.z > 0)) continue;
      const double u = other.fx * there.x / there.z + other.cx, v = other.fy * there.y / there.z + other.cy;
      if (!(u >= 0 && v >= 0 && u < static_cast<double>(other.width) && v < static_cast<double>(other.height)))
        continue;
      const double seen = other_depth[static_cast<int64_t>(v) * other.width + static_cast<int64_t>(u)];
      if (!(seen > 0)) continue;
      const double gap = (seen - there.z) / there.z;
      agree[at] += std::fabs(gap) <= tolerance;
      object[at] += gap > tolerance;
    }
  });
}

void integrate_depth(const TsdfGrid& grid, const MeshView& view, const float* depth, const float* clear,
                     const float* pixel_weight) {
  const double w = static_cast<double>(view.width), h = static_cast<double>(view.height);
  const Farthest farthest(view, depth);
  parallel_ranges(grid.n_blocks, kBlocksPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) {
      if (!may_see(grid, view, farthest, grid.blocks + 3 * b)) continue;
      for (int64_t i = 0; i < kBlockVoxels; i++) {
        const int64_t offset[3] = {i % kSide, i / kSide % kSide, i / (kSide * kSide)};
        double p[3];
        for (int a = 0; a < 3; a++)
          p[a] = grid.origin[a] +
                 static_cast<double>(kSide * int64_t{grid.blocks[3 * b + a]} + offset[a]) * grid.voxel_size;
        const Vec there = to_camera(view, p);
        const double z = there.z;
        if (!(z > 1e-6)) continue;
        const double u = view.fx * there.x / z + view.cx, v = view.fy * there.y / z + view.cy;
        if (!(u >= 0 && v >= 0 && u < w && v < h)) continue;
        const Sample seen = look_up(view, depth, pixel_weight, u, v, grid.truncation);
        if (!(seen.weight > 0)) continue;
        const double distance = static_cast<double>(seen.depth) - z;
        if (distance < -grid.truncation) continue;  // hidden: this view knows nothing of it
        const int64_t at = b * kBlockVoxels + i;
        const int64_t pixel = static_cast<int64_t>(v) * view.width + static_cast<int64_t>(u);
        const bool is_beside = distance > grid.truncation && z > static_cast<double>(clear[pixel]) - grid.truncation;
        const float trust = is_beside ? kBeside * seen.weight : seen.weight;
        const float before = grid.weight[at], after = before + trust;
        const float value = static_cast<float>(std::min(1.0, distance / grid.truncation));
        grid.distance[at] = (grid.distance[at] * before + value * trust) / after;
        grid.weight[at] = after;
        if (std::fabs(distance) <= kNearVoxels * grid.voxel_size) grid.near[at] += seen.weight;
      }
    }
  });
}

}  // namespace scene3d
