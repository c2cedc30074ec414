// Images of a field in one go: rays, march, decoder and background tile after tile, so that the features of a pixel never
// leave the cache. Occupied cells are first projected to the tiles: a tile that sees none costs nothing, and the rays of
// the others begin shortly before the nearest. Of a field with a shell, each ray has a stretch of its own.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/field_march.h"
#include "cpu/field_native.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int kTile = 8;
static_assert(kTile * kTile == kRayChunk, "a tile is a chunk of rays");

void expect(bool holds, const char* problem) {
  if (!holds) throw nb::value_error(problem);
}

template <class T>
struct View {
  T cam_from_world[3][4], fx, fy, skew, cx, cy, center[3];
  int width, height;

  int columns() const { return (width + kTile - 1) / kTile; }
  int rows() const { return (height + kTile - 1) / kTile; }

  // As ops.rays.camera_rays.
  FieldRay<T> ray(int column, int row) const {
    const T y = (static_cast<T>(row) + T(0.5) - cy) / fy;
    const T x = (static_cast<T>(column) + T(0.5) - cx) / fx - y * skew / fx;
    FieldRay<T> out;
    T square = 0;
    for (int a = 0; a < 3; a++) {
      out.direction[a] = x * cam_from_world[0][a] + y * cam_from_world[1][a] + cam_from_world[2][a];
      out.origin[a] = center[a], square += out.direction[a] * out.direction[a];
    }
    for (T& d : out.direction) d /= std::sqrt(square);
    out.jitter = T(0.5);
    return out;
  }
};

template <class T>
struct Range {
  T from = T(1e30), until = T(-1);
};

// Pixels that a ball may cover along one axis: centre x at depth z, radius r (rx: seen through the matrix of the camera).
template <class T>
void ball_pixels(T x, T z, T rx, T r, T middle, int size, int* first, int* end) {
  const T near = z - r, far = z + r;
  const T low = (x - rx) / (x - rx < 0 ? near : far), high = (x + rx) / (x + rx > 0 ? near : far);
  const auto tile = [&](T at, int count) {
    return static_cast<int>(std::clamp<T>(std::floor(at / kTile), T(-1), static_cast<T>(count)));
  };
  *first = std::max(tile(low + middle, size), 0), *end = std::min(tile(high + middle, size) + 1, size);
}

// Where along the rays of each tile words of occupied cells lie.
template <class T>
std::vector<Range<T>> tile_ranges(const FieldCall<T>& call, const OccupancyBits& bits, const View<T>& view) {
  const int columns = view.columns(), rows = view.rows();
  std::vector<Range<T>> tiles(static_cast<size_t>(columns) * rows);
  if (!bits.words || call.warp.kind != WarpKind::none) {
    std::fill(tiles.begin(), tiles.end(), Range<T>{T(0), T(1e30)});
    return tiles;
  }
  const int n[3] = {(bits.n[0] + 3) / 4, (bits.n[1] + 3) / 4, (bits.n[2] + 3) / 4};
  T size[3], radius = 0;
  for (int a = 0; a < 3; a++) {
    size[a] = 4 * (call.high[a] - call.low[a]) / static_cast<T>(bits.n[a]);
    radius += size[a] * size[a] / 4;
  }
  radius = std::sqrt(radius) * T(1.001);
  const T rx = radius * std::hypot(view.fx, view.skew), ry = radius * std::abs(view.fy);
  for (int64_t i = 0; i < static_cast<int64_t>(n[0]) * n[1] * n[2]; i++) {
    if (!bits.words[i]) continue;
    const T at[3] = {static_cast<T>(i % n[0]), static_cast<T>(i / n[0] % n[1]), static_cast<T>(i / n[0] / n[1])};
    T world[3], cam[3];
    for (int a = 0; a < 3; a++) world[a] = call.low[a] + (at[a] + T(0.5)) * size[a];
    T distance = 0;
    for (int r = 0; r < 3; r++) {
      const T* const m = view.cam_from_world[r];
      cam[r] = m[0] * world[0] + m[1] * world[1] + m[2] * world[2] + m[3];
      distance += cam[r] * cam[r];
    }
    distance = std::sqrt(distance);
    if (cam[2] + radius <= 0) continue;
    int x0 = 0, x1 = columns, y0 = 0, y1 = rows;
    if (cam[2] > 2 * radius) {
      ball_pixels(view.fx * cam[0] + view.skew * cam[1], cam[2], rx, radius, view.cx, columns, &x0, &x1);
      ball_pixels(view.fy * cam[1], cam[2], ry, radius, view.cy, rows, &y0, &y1);
    }
    for (int y = y0; y < y1; y++) {
      for (int x = x0; x < x1; x++) {
        Range<T>& tile = tiles[static_cast<size_t>(y) * columns + x];
        tile.from = std::min(tile.from, distance - radius), tile.until = std::max(tile.until, distance + radius);
      }
    }
  }
  return tiles;
}

// What the pixels of a tile that meet something gathered.
template <class T>
struct TileRows {
  Buffer<T> features, scratch;
  Buffer<FieldSample<T>> samples;
  T opacity[kRayChunk], distance[kRayChunk], directions[3 * kRayChunk], colors[3 * kRayChunk];
  int64_t pixels[kRayChunk];
  // Of the samples that have colour, where each has one of its own.
  Buffer<T> sample_features, sample_weights, sample_directions, sample_colors;
  int n_rows_before[kRayChunk + 1];
};

template <class T>
struct Image {
  T *rgb, *alpha, *depth;  // [height, width, 3 or 1]
  T background[3];

  void fill(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) {
      for (int c = 0; c < 3; c++) rgb[3 * i + c] = background[c];
      alpha[i] = depth[i] = 0;
    }
  }
};

// Where along the ray of each pixel a field is looked at [height, width]; nowhere where from is not below until.
template <class T>
struct Stretches {
  const T *from = nullptr, *until = nullptr;

  bool cut(int64_t pixel, FieldRay<T>& ray) const {
    if (!from) return true;
    ray.from = std::max(ray.from, from[pixel]), ray.until = std::min(ray.until, until[pixel]);
    return ray.from < ray.until;
  }
};

// Samples of density, and rays that gathered some light.
struct Effort {
  std::atomic<int64_t> n_samples = 0, n_rays = 0;
};

template <class T>
bool gather(const NativeField<T>& field, const FieldRay<T>& ray, TileRows<T>& rows, RayResult<T>& out) {
  if constexpr (std::is_same_v<T, float>) {
    if (field.bricks.values && !field.is_per_sample) {
      field_kernels().brick_ray(field.call, field.bricks, ray, rows.scratch.reserve(kBrickScratch), out);
      return out.opacity > 0;
    }
  }
  out.n_samples = field_table<T>().forward_ray(field.call, ray, rows.samples.reserve(kMaxRaySamples), out);
  return out.n_samples > 0;
}

// Colours of the n pixels of a tile by one evaluation of the decoder for each.
template <class T>
void decode_pixels(const DecoderCall<T>& decoder, const T* features, int n, TileRows<T>& rows) {
  DecoderCall<T> c = decoder;
  c.features = features, c.opacity = rows.opacity, c.directions = rows.directions, c.colors = rows.colors;
  field_table<T>().decode(c, 0, n, rows.scratch.reserve(decoder_scratch(c)));
}

// Adds the rows of the samples of the n-th pixel of a tile.
template <class T>
void add_rows(const FieldCall<T>& call, int n, int n_samples, TileRows<T>& rows) {
  const int before = n == 0 ? 0 : rows.n_rows_before[n];
  const size_t most = static_cast<size_t>(before + n_samples), used = static_cast<size_t>(before);
  const size_t width = static_cast<size_t>(call.n_features());
  T* const features = rows.sample_features.extend(most * width, used * width);
  T* const weights = rows.sample_weights.extend(most, used);
  rows.n_rows_before[0] = 0;
  rows.n_rows_before[n + 1] =
      before + field_table<T>().color_rows(call, rows.samples.data(), n_samples, features + used * width, weights + used);
}

// Colours of the n pixels by one evaluation for each sample.
template <class T>
void decode_samples(const DecoderCall<T>& decoder, int n, TileRows<T>& rows) {
  const int n_rows = rows.n_rows_before[n];
  T* const directions = rows.sample_directions.reserve(3 * static_cast<size_t>(n_rows));
  for (int i = 0; i < n; i++)
    for (int r = rows.n_rows_before[i]; r < rows.n_rows_before[i + 1]; r++)
      std::copy(rows.directions + 3 * i, rows.directions + 3 * i + 3, directions + 3 * r);
  DecoderCall<T> c = decoder;
  c.features = rows.sample_features.data(), c.opacity = rows.sample_weights.data(), c.directions = directions;
  c.colors = rows.sample_colors.reserve(3 * static_cast<size_t>(n_rows));
  field_table<T>().decode(c, 0, n_rows, rows.scratch.reserve(decoder_scratch(c)));
  for (int i = 0; i < n; i++) {
    T* const sum = rows.colors + 3 * i;
    sum[0] = sum[1] = sum[2] = 0;
    for (int r = rows.n_rows_before[i]; r < rows.n_rows_before[i + 1]; r++)
      for (int k = 0; k < 3; k++) sum[k] += c.colors[3 * r + k];
  }
}

template <class T>
void render_tile(const NativeField<T>& field, const DecoderCall<T>& decoder, const View<T>& view, int tile,
                 const Range<T>& range, const Stretches<T>& stretches, const Image<T>& out, Effort& effort) {
  thread_local TileRows<T> kept;
  TileRows<T>& rows = kept;
  const int64_t n_features = field.call.n_features();
  T* const features = rows.features.reserve(static_cast<size_t>(kRayChunk * n_features));
  const int x0 = tile % view.columns() * kTile, y0 = tile / view.columns() * kTile;
  int n = 0, n_samples = 0;
  for (int y = y0; y < std::min(y0 + kTile, view.height); y++) {
    for (int x = x0; x < std::min(x0 + kTile, view.width); x++) {
      FieldRay<T> ray = view.ray(x, y);
      const int64_t pixel = static_cast<int64_t>(y) * view.width + x;
      ray.from = range.from, ray.until = range.until;
      if (!stretches.cut(pixel, ray)) continue;
      RayResult<T> result = {field.is_per_sample ? nullptr : features + n * n_features, 0, 0};
      const bool is_met = gather(field, ray, rows, result);
      n_samples += result.n_samples;
      if (!is_met) continue;
      if (field.is_per_sample) add_rows(field.call, n, result.n_samples, rows);
      rows.opacity[n] = result.opacity, rows.distance[n] = result.distance;
      std::copy(ray.direction, ray.direction + 3, rows.directions + 3 * n);
      rows.pixels[n++] = pixel;
    }
  }
  effort.n_samples += n_samples, effort.n_rays += n;
  if (n == 0) return;
  if (field.is_per_sample) decode_samples(decoder, n, rows);
  else decode_pixels(decoder, features, n, rows);
  for (int i = 0; i < n; i++) {
    const int64_t pixel = rows.pixels[i];
    const T opacity = rows.opacity[i], *const d = rows.directions + 3 * i, *const ahead = view.cam_from_world[2];
    for (int k = 0; k < 3; k++) out.rgb[3 * pixel + k] = rows.colors[3 * i + k] + (1 - opacity) * out.background[k];
    out.alpha[pixel] = opacity;
    const T along = d[0] * ahead[0] + d[1] * ahead[1] + d[2] * ahead[2];
    out.depth[pixel] = opacity > 0 ? rows.distance[i] / opacity * along : T(0);
  }
}

// camera: rows of cam_from_world (12), fx, skew, cx, fy, cy, the centre (3). from, until: see Stretches. Returns the
// numbers of samples and of rays that met something.
template <class T>
std::pair<int64_t, int64_t> call_image(
    const NativeField<T>& field, const NativeDecoder<T>& decoder, const std::vector<double>& camera,
    const std::vector<double>& background, const Array<T, nb::shape<-1, -1, 3>>& rgb, const Array<T, nb::ndim<2>>& alpha,
    const Array<T, nb::ndim<2>>& depth, const std::optional<Array<const T, nb::ndim<2>>>& from,
    const std::optional<Array<const T, nb::ndim<2>>>& until) {
  expect(camera.size() == 20 && background.size() == 3, "camera, background: wrong length");
  const size_t height = rgb.shape(0), width = rgb.shape(1);
  expect(height > 0 && width > 0 && height < (1 << 20) && width < (1 << 20), "rgb: wrong size");
  expect(alpha.shape(0) == height && alpha.shape(1) == width && depth.shape(0) == height && depth.shape(1) == width,
         "alpha, depth: expected the size of rgb");
  Stretches<T> stretches;
  expect(from.has_value() == until.has_value(), "from, until: expected both or none");
  if (from) {
    expect(from->shape(0) == height && from->shape(1) == width && until->shape(0) == height && until->shape(1) == width,
           "from, until: expected the size of rgb");
    stretches = {from->data(), until->data()};
  }
  const DecoderCall<T> network = decoder.call();
  expect(network.n_features == field.call.n_features(), "decoder: takes another number of features");
  View<T> view;
  const auto number = [&](int i) { return static_cast<T>(camera[static_cast<size_t>(i)]); };
  for (int i = 0; i < 12; i++) view.cam_from_world[i / 4][i % 4] = number(i);
  view.fx = number(12), view.skew = number(13), view.cx = number(14), view.fy = number(15), view.cy = number(16);
  for (int a = 0; a < 3; a++) view.center[a] = number(17 + a);
  view.width = static_cast<int>(width), view.height = static_cast<int>(height);
  Image<T> out = {rgb.data(), alpha.data(), depth.data(), {}};
  for (size_t k = 0; k < 3; k++) out.background[k] = static_cast<T>(background[k]);
  nb::gil_scoped_release release;
  parallel_ranges(static_cast<int64_t>(width * height), 1 << 15, [&](int64_t begin, int64_t end) { out.fill(begin, end); });
  const OccupancyBits& bits = field.bricks.values ? field.bricks.voxels : field.call.occupancy;
  const std::vector<Range<T>> tiles = tile_ranges(field.call, bits, view);
  std::vector<int> seen;
  for (size_t i = 0; i < tiles.size(); i++)
    if (tiles[i].until >= 0) seen.push_back(static_cast<int>(i));
  Effort effort;
  parallel_for(static_cast<int64_t>(seen.size()), [&](int64_t i) {
    const int tile = seen[static_cast<size_t>(i)];
    render_tile(field, network, view, tile, tiles[static_cast<size_t>(tile)], stretches, out, effort);
  });
  return {effort.n_samples.load(), effort.n_rays.load()};
}

}  // namespace

void bind_field_image(nb::module_& m) {
  m.def("field_image", &call_image<float>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg().noconvert().none());
  m.def("field_image", &call_image<double>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg().noconvert().none());
}

}  // namespace scene3d
