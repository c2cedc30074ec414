// Rays through pixel centres against triangles, triangle by triangle. The ray d
// hits the triangle (a, b, c), corners in the camera, where d.(b x c), d.(c x
// a) and d.(a x b) have one sign: no projection, so nothing has to be clipped
// (Olano and Greer 1997). In double, an edge gives its two triangles exactly
// opposite numbers, so that there are no cracks.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/mesh.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kRowsPerBand = 8;

struct Vec {
  double x, y, z;
};

Vec cross(Vec a, Vec b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
double dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

struct Box {
  int64_t x0 = 0, x1 = 0, y0 = 0,
          y1 = 0;  // half open; empty where nothing can be hit
};

Vec to_camera(const MeshView& view, const float* p) {
  const double* m = view.cam_from_world;
  return {m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3], m[4] * p[0] + m[5] * p[1] + m[6] * p[2] + m[7],
          m[8] * p[0] + m[9] * p[1] + m[10] * p[2] + m[11]};
}

int64_t pixel(double coordinate, int64_t size) {
  return static_cast<int64_t>(std::clamp(coordinate, 0.0, static_cast<double>(size)));
}

// Pixels whose centres may see the triangle: the box of the part before the
// near plane. Most of what reaches behind the camera lies beside the image.
Box pixel_box(const MeshView& view, const Vec* corners, double near) {
  double low_x = 1e300, high_x = -1e300, low_y = 1e300, high_y = -1e300;
  const auto hold = [&](double x, double y, double z) {
    const double column = view.fx * x / z + view.cx, row = view.fy * y / z + view.cy;
    low_x = std::min(low_x, column), high_x = std::max(high_x, column);
    low_y = std::min(low_y, row), high_y = std::max(high_y, row);
  };
  for (int i = 0; i < 3; i++) {
    const Vec v = corners[i], w = corners[(i + 1) % 3];
    if (!(std::isfinite(v.x) && std::isfinite(v.y) && std::isfinite(v.z))) return {};
    if (v.z >= near) hold(v.x, v.y, v.z);
    if ((v.z >= near) == (w.z >= near)) continue;
    const double t = (near - v.z) / (w.z - v.z);
    hold(v.x + t * (w.x - v.x), v.y + t * (w.y - v.y), near);
  }
  if (!(low_x <= high_x)) return {};
  return {pixel(std::floor(low_x - 0.5), view.width), pixel(std::ceil(high_x + 0.5), view.width),
          pixel(std::floor(low_y - 0.5), view.height), pixel(std::ceil(high_y + 0.5), view.height)};
}

struct Target {
  const MeshView& view;
  double near;
  float* depth;
  int32_t* face;
  float* weights;
};

void draw(const Target& out, const Vec* corners, int64_t index, const Box& box) {
  const Vec edges[3] = {cross(corners[1], corners[2]), cross(corners[2], corners[0]), cross(corners[0], corners[1])};
  const double volume = dot(corners[0], edges[0]);
  for (int64_t y = box.y0; y < box.y1; y++) {
    const double dy = (static_cast<double>(y) + 0.5 - out.view.cy) / out.view.fy;
    for (int64_t x = box.x0; x < box.x1; x++) {
      const Vec d = {(static_cast<double>(x) + 0.5 - out.view.cx) / out.view.fx, dy, 1.0};
      const double e0 = dot(d, edges[0]), e1 = dot(d, edges[1]), e2 = dot(d, edges[2]);
      if (!((e0 >= 0 && e1 >= 0 && e2 >= 0) || (e0 <= 0 && e1 <= 0 && e2 <= 0))) continue;
      const double sum = e0 + e1 + e2;
      if (sum == 0) continue;  // seen edge-on
      const double z = volume / sum;
      if (!(z >= out.near)) continue;
      const int64_t at = y * out.view.width + x;
      const float depth = static_cast<float>(z);
      if (out.face[at] >= 0 && !(depth < out.depth[at])) continue;
      out.depth[at] = depth;
      out.face[at] = static_cast<int32_t>(index);
      out.weights[2 * at] = static_cast<float>(e0 / sum);
      out.weights[2 * at + 1] = static_cast<float>(e1 / sum);
    }
  }
}

}  // namespace

void rasterize_mesh(const float* vertices, int64_t n_vertices, const int64_t* faces, int64_t n_faces,
                    const MeshView& view, double near, float* depth, int32_t* face, float* weights) {
  const int64_t n_pixels = view.width * view.height;
  std::fill(depth, depth + n_pixels, 0.0f);
  std::fill(face, face + n_pixels, -1);
  std::fill(weights, weights + 2 * n_pixels, 0.0f);
  std::vector<Vec> points(static_cast<size_t>(n_vertices));
  parallel_ranges(n_vertices, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) points[static_cast<size_t>(i)] = to_camera(view, vertices + 3 * i);
  });
  std::vector<Box> boxes(static_cast<size_t>(n_faces));
  const auto corners_of = [&](int64_t f, Vec* corners) {
    for (int k = 0; k < 3; k++) corners[k] = points[static_cast<size_t>(faces[3 * f + k])];
  };
  parallel_ranges(n_faces, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t f = begin; f < end; f++) {
      Vec corners[3];
      corners_of(f, corners);
      boxes[static_cast<size_t>(f)] = pixel_box(view, corners, near);
    }
  });
  const int64_t n_bands = (view.height + kRowsPerBand - 1) / kRowsPerBand;
  std::vector<std::vector<int32_t>> bands(static_cast<size_t>(n_bands));
  for (int64_t f = 0; f < n_faces; f++) {
    const Box& box = boxes[static_cast<size_t>(f)];
    if (box.x0 >= box.x1 || box.y0 >= box.y1) continue;
    for (int64_t b = box.y0 / kRowsPerBand; b <= (box.y1 - 1) / kRowsPerBand; b++)
      bands[static_cast<size_t>(b)].push_back(static_cast<int32_t>(f));
  }
  const Target target = {view, near, depth, face, weights};
  parallel_for(n_bands, [&](int64_t b) {
    for (const int32_t f : bands[static_cast<size_t>(b)]) {
      Vec corners[3];
      corners_of(f, corners);
      Box box = boxes[static_cast<size_t>(f)];
      box.y0 = std::max(box.y0, b * kRowsPerBand);
      box.y1 = std::min(box.y1, (b + 1) * kRowsPerBand);
      draw(target, corners, f, box);
    }
  });
}

}  // namespace scene3d
