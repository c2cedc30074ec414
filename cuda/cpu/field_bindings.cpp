// Bindings of radiance fields. Python allocates every output; float for use, double for checks of gradients.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/field_bindings.h"
#include "cpu/field_march.h"
#include "cpu/field_native.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

template <class T>
using Values = FieldValues<T>;
template <class T>
using Rows3 = Array<T, nb::shape<-1, 3>>;
template <class T>
using Column = Array<T, nb::ndim<1>>;
template <class T>
using Table = Array<T, nb::ndim<2>>;
using Bytes = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;
using Words = FieldWords;

void expect(bool holds, const char* problem) {
  if (!holds) throw nb::value_error(problem);
}

// Rows of slab i of a set: the nodes of a plane or of a line.
template <class T>
int64_t slab_rows(const FieldCall<T>& call, int set, int i) {
  if (call.has_network()) {
    const int last = call.hash.n - 1, rank = call.rank[set];
    if (i > call.first_layer()) return rank + 1;
    if (i == call.first_layer()) return call.n_inputs() + 1;
    return (kHashFeatures * (call.hash.first[last] + call.hash.rows[last]) + rank - 1) / rank;
  }
  const int64_t x = call.n[0], y = call.n[1], z = call.n[2];
  const int64_t vm[6] = {x * y, x * z, y * z, z, y, x}, cp[3] = {x, y, z};
  if (call.kind == FieldKind::trivec) return call.levels[i / 3].nodes * call.n_leaves[i / 3];
  if (i == kBasisSlab) return call.bases.n;
  return call.has_planes() ? vm[i] : cp[i];
}

// Of tri-vectors, before set_values. Each level: numbers of leaves [Z, Y, X], nodes of a vector, whether it is shifted.
template <class T>
void set_levels(NativeField<T>& self, const std::vector<LeafGrid>& grids, const std::vector<int>& nodes,
                const std::vector<bool>& is_shifted) {
  FieldCall<T>& call = self.call;
  const size_t n = grids.size();
  expect(call.kind == FieldKind::trivec && n >= 1 && n <= kMaxLevels && nodes.size() == n && is_shifted.size() == n,
         "levels: expected one or two, of a tri-vector field");
  call.n_levels = static_cast<int>(n);
  for (size_t l = 0; l < n; l++) {
    LeafLevel& level = call.levels[l];
    expect(nodes[l] >= 2, "nodes: expected at least 2");
    level.nodes = nodes[l], level.is_shifted = is_shifted[l], level.leaves = grids[l].data();
    for (size_t a = 0; a < 3; a++) {
      level.cells[a] = static_cast<int>(grids[l].shape(2 - a));
      expect(level.cells[a] > (is_shifted[l] ? 1 : 0), "levels: expected at least one cube along each axis");
    }
    int32_t n_leaves = 0;
    for (size_t i = 0; i < grids[l].size(); i++) {
      const int32_t leaf = level.leaves[i];
      expect(leaf == -1 || leaf == n_leaves, "levels: expected leaves numbered in their order");
      n_leaves += leaf >= 0;
    }
    expect(static_cast<int64_t>(n_leaves) * nodes[l] < INT32_MAX && grids[l].size() < INT32_MAX, "levels: too many leaves");
    call.n_leaves[l] = n_leaves;
  }
  self.leaves = grids;
}

// Of radial bases, before set_values. arrays: numbers of the bases [n, 9], then the frequencies of the channels of each
// set; cells along x y z; starts and items of their lists.
template <class T>
void set_bases(NativeField<T>& self, const std::vector<Values<const T>>& arrays, bool has_waves, const std::vector<int>& cells,
               const Items& starts, const Items& items) {
  FieldCall<T>& call = self.call;
  expect(call.kind == FieldKind::rbf && arrays.size() == 3 && cells.size() == 3, "bases: wrong number of arrays");
  BasisGrid<T>& grid = call.bases;
  expect(arrays[0].ndim() == 2 && arrays[0].shape(0) > 0 && arrays[0].shape(1) == kBasisNumbers, "bases: expected [n, 9]");
  grid.bases = arrays[0].data(), grid.n = static_cast<int64_t>(arrays[0].shape(0)), grid.has_waves = has_waves;
  for (size_t s = 0; s < kSets; s++) {
    expect(arrays[1 + s].size() == static_cast<size_t>(call.rank[s]), "frequencies: expected one for each rank");
    grid.waves[s] = arrays[1 + s].data();
  }
  int64_t n_cells = 1;
  for (int a = 0; a < 3; a++) {
    grid.cells[a] = cells[static_cast<size_t>(a)];
    expect(grid.cells[a] >= 1 && grid.cells[a] <= 1 << 12, "cells: expected 1 to 4096 along each axis");
    n_cells *= grid.cells[a];
  }
  expect(static_cast<int64_t>(starts.size()) == n_cells + 1, "starts: expected one for each cell, and an end");
  grid.starts = starts.data(), grid.items = items.data();
  const int32_t n_items = static_cast<int32_t>(items.size());
  expect(grid.starts[0] == 0 && grid.starts[n_cells] == n_items, "starts: expected 0 first, and the number of items last");
  for (int64_t i = 0; i < n_cells; i++) {
    const int32_t n = grid.starts[i + 1] - grid.starts[i];
    expect(n >= 0 && n <= kMaxListed, "starts: expected 0 to 64 items for each cell");
  }
  for (int32_t i = 0; i < n_items; i++)
    expect(grid.items[i] >= 0 && grid.items[i] < grid.n, "items: expected numbers of bases");
  self.bases = arrays, self.starts = starts, self.items = items;
}

// Of a hash grid, before set_values. cells: along x y z of each level; row_bits: no level has more rows than 2^row_bits.
template <class T>
void set_hash(NativeField<T>& self, const std::vector<std::vector<int>>& cells, int row_bits) {
  FieldCall<T>& call = self.call;
  HashGrid& grid = call.hash;
  expect(call.kind == FieldKind::hash && !cells.empty() && cells.size() <= kMaxHashLevels, "cells: expected 1 to 16 levels");
  expect(row_bits >= 4 && row_bits <= 24, "row_bits: expected 4 to 24");
  grid.n = 0;
  int64_t n_rows = 0;
  for (const std::vector<int>& level : cells) {
    expect(level.size() == 3, "cells: expected three of each level");
    for (size_t a = 0; a < 3; a++) {
      expect(level[a] >= 1 && level[a] <= 1 << 14, "cells: expected 1 to 16384 along each axis");
      grid.cells[grid.n][a] = level[a];
    }
    grid.first[grid.n] = n_rows;
    grid.rows[grid.n] = std::min(hash_corners(grid.cells[grid.n]), int64_t{1} << row_bits);
    n_rows += grid.rows[grid.n++];
  }
}

template <class T>
void set_box(NativeField<T>& self, const std::vector<double>& low, const std::vector<double>& high) {
  FieldCall<T>& call = self.call;
  expect(low.size() == 3 && high.size() == 3, "low, high: expected 3 numbers");
  for (int a = 0; a < 3; a++) call.low[a] = static_cast<T>(low[a]), call.high[a] = static_cast<T>(high[a]);
}

// kind: see WarpKind; matrix: rows of frame_from_world.
template <class T>
void set_warp(NativeField<T>& self, int kind, const std::vector<double>& matrix) {
  expect(kind >= 1 && kind <= 2, "kind: expected 1 (cube) or 2 (frustum)");
  expect(matrix.size() == 12, "matrix: expected 12 numbers");
  self.call.warp.kind = static_cast<WarpKind>(kind);
  for (size_t i = 0; i < 12; i++) self.call.warp.frame_from_world[i / 4][i % 4] = static_cast<T>(matrix[i]);
}

template <class T>
void set_values(NativeField<T>& self, const std::vector<Values<const T>>& arrays) {
  FieldCall<T>& call = self.call;
  const int n = call.n_slabs();
  expect(call.kind != FieldKind::hash || call.hash.n > 0, "values: expected the levels of the hash grid first");
  expect(arrays.size() == static_cast<size_t>(2 * n), "values: wrong number of arrays");
  for (int i = 0; i < 2 * n; i++) {
    const int set = i / n, slab = i % n;
    const int64_t rows = slab_rows(call, set, slab);
    expect(static_cast<int64_t>(arrays[i].size()) == rows * call.rank[set], "values: an array has the wrong size");
    call.slabs[set][slab].values = arrays[i].data(), call.slabs[set][slab].n_rows = rows;
  }
  self.values = arrays;
}

template <class T>
void set_occupancy(NativeField<T>& self, std::optional<Words> fine, std::optional<Words> above,
                   const std::vector<int>& size) {
  FieldCall<T>& call = self.call;
  expect(size.size() == 3, "occupancy: expected 3 sizes");
  self.words = fine, self.coarse = above;
  for (int a = 0; a < 3; a++) call.occupancy.n[a] = size[a];
  if (!fine) return;
  int64_t n_words = 1, n_coarse = 1;
  for (int a = 0; a < 3; a++) n_words *= (size[a] + 3) / 4, n_coarse *= ((size[a] + 3) / 4 + 3) / 4;
  expect(above && static_cast<int64_t>(fine->size()) == n_words && static_cast<int64_t>(above->size()) == n_coarse,
         "occupancy: wrong number of words");
  call.occupancy.words = reinterpret_cast<const uint64_t*>(fine->data());
  call.occupancy.coarse = reinterpret_cast<const uint64_t*>(above->data());
}

// For images. size: voxels along x y z.
void set_bricks(NativeField<float>& self, const FieldWords& words, const BrickFree& free, const BrickTable& table,
                const BrickValues& values, const std::vector<int>& size) {
  expect(size.size() == 3 && *std::min_element(size.begin(), size.end()) > 0, "bricks: expected 3 sizes");
  int64_t n_words = 1;
  for (int n : size) n_words *= (n + 3) / 4;
  expect(static_cast<int64_t>(words.size()) == n_words && static_cast<int64_t>(table.size()) == n_words &&
             static_cast<int64_t>(free.size()) == n_words && n_words < INT32_MAX / 2,
         "bricks: wrong number of words");
  const int64_t n = static_cast<int64_t>(values.shape(0));
  expect(values.shape(1) == kBrickSize && n < INT32_MAX / (2 * kBrickSize), "bricks: wrong shape of values");
  for (int64_t i = 0; i < n_words; i++) {
    expect(table.data()[i] < 2 * n && (words.data()[i] == 0 || table.data()[i] >= 0), "bricks: a number is out of range");
  }
  self.brick_words = words, self.brick_free = free, self.brick_table = table, self.brick_values = values;
  FieldBricks& bricks = self.bricks;
  bricks.voxels.words = reinterpret_cast<const uint64_t*>(words.data());
  for (int a = 0; a < 3; a++) bricks.voxels.n[a] = size[static_cast<size_t>(a)];
  bricks.free = free.data(), bricks.table = table.data(), bricks.values = values.data();
}

template <class T>
FieldRays<T> rays_of(const Rows3<const T>& origins, const Rows3<const T>& directions,
                     const std::optional<Column<const T>>& jitter) {
  const size_t n = origins.shape(0);
  expect(directions.shape(0) == n && (!jitter || jitter->size() == n), "rays: arrays differ in length");
  return {origins.data(), directions.data(), jitter ? jitter->data() : nullptr, static_cast<int64_t>(n)};
}

template <class T>
void make_field(NativeField<T>* self, int kind, const std::vector<int>& n, const std::vector<int>& ranks,
                const std::vector<double>& settings) {
  new (self) NativeField<T>();
  FieldCall<T>& call = self->call;
  expect(n.size() == 3 && ranks.size() == 2 && settings.size() == 7, "sizes, ranks, settings: wrong length");
  for (int a = 0; a < 3; a++) expect((call.n[a] = n[a]) >= 2, "sizes: expected at least 2 nodes");
  for (int s = 0; s < kSets; s++)
    expect((call.rank[s] = ranks[s]) > 0 && ranks[s] % kLanes == 0, "ranks: expected multiples of 16");
  expect(kind >= 0 && kind <= 5, "kind: expected 0 (vm), 1 (cp), 2 (trivec), 3 (rbf), 4 (hash) or 5 (mlp)");
  call.kind = static_cast<FieldKind>(kind), call.n_levels = 0;
  expect(!call.has_network() || std::max(ranks[0], ranks[1]) <= kMaxNetworkWidth, "ranks: expected at most 128 units");
  T* const targets[7] = {&call.step,        &call.density_scale, &call.density_shift,    &call.near,
                         &call.far, &call.min_weight,    &call.min_transmittance};
  for (int i = 0; i < 7; i++) *targets[i] = static_cast<T>(settings[i]);
  expect(call.step > 0, "step: expected a positive number");
}

template <class T>
void call_forward(const NativeField<T>& field, const Rows3<const T>& origins, const Rows3<const T>& directions,
                  std::optional<Column<const T>> jitter, std::optional<Table<T>> features, const Column<T>& opacity,
                  const Column<T>& distance, FieldTape<T>* tape) {
  const FieldRays<T> rays = rays_of<T>(origins, directions, jitter);
  const size_t n = static_cast<size_t>(rays.n);
  expect(opacity.size() == n && distance.size() == n, "opacity, distance: expected one number per ray");
  expect(!features || (features->shape(0) == n && static_cast<int>(features->shape(1)) == field.call.n_features()),
         "features: wrong shape");
  const FieldSums<T> out = {features ? features->data() : nullptr, opacity.data(), distance.data()};
  nb::gil_scoped_release release;
  march(field.call, rays, out, tape);
}

template <class T>
void call_gather_rows(const NativeField<T>& field, const FieldTape<T>& tape, const Table<T>& features,
                      const Column<T>& weights, const Column<int64_t>& rays) {
  const size_t n = static_cast<size_t>(count_rows(field.call, tape));
  expect(features.shape(0) == n && static_cast<int>(features.shape(1)) == field.call.n_features() && weights.size() == n &&
             rays.size() == n,
         "rows: expected one for each sample that has colour");
  nb::gil_scoped_release release;
  gather_rows(field.call, tape, ColorRows<T>{features.data(), weights.data()}, rays.data());
}

// v_features: of rays, or with v_weights of the rows of samples that have colour.
template <class T>
void call_backward(const NativeField<T>& field, FieldTape<T>& tape, const Table<const T>& v_features,
                   const Column<const T>& v_opacity, const Column<const T>& v_distance,
                   const std::optional<Column<const T>>& v_weights, const std::vector<Values<T>>& grads,
                   const std::vector<Bytes>& touched, double distortion) {
  FieldCall<T> call = field.call;
  call.distortion = static_cast<T>(distortion);
  const size_t n = static_cast<size_t>(tape.n_rays), n_slabs = static_cast<size_t>(call.n_slabs());
  const size_t n_rows = v_weights ? static_cast<size_t>(count_rows(call, tape)) : n;
  expect(v_features.shape(0) == n_rows && static_cast<int>(v_features.shape(1)) == call.n_features(),
         "v_features: wrong shape");
  expect(!v_weights || v_weights->size() == n_rows, "v_weights: expected one number per row");
  expect(v_opacity.size() == n && v_distance.size() == n, "v_opacity, v_distance: expected one number per ray");
  expect(grads.size() == 2 * n_slabs && touched.size() == 2 * n_slabs, "grads, touched: wrong number of arrays");
  for (size_t i = 0; i < 2 * n_slabs; i++) {
    Slab<T>& slab = call.slabs[i / n_slabs][i % n_slabs];
    const int64_t rank = call.rank[i / n_slabs];
    expect(static_cast<int64_t>(grads[i].size()) == slab.n_rows * rank, "grads: an array has the wrong size");
    expect(static_cast<int64_t>(touched[i].size()) == slab.n_rows * (rank / kLanes), "touched: wrong size");
    slab.grads = grads[i].data(), slab.touched = touched[i].data();
  }
  nb::gil_scoped_release release;
  const ColorRows<const T> rows = {v_features.data(), v_weights ? v_weights->data() : nullptr};
  march_backward(call, tape, FieldSums<const T>{v_features.data(), v_opacity.data(), v_distance.data()},
                 v_weights ? &rows : nullptr);
}

template <class T>
void bind_type(nb::module_& m, const char* suffix) {
  const auto named = [&](const char* name) { return std::string(name) + suffix; };
  nb::class_<FieldTape<T>>(m, named("FieldTape").c_str())
      .def(nb::init<>())
      .def_prop_ro("n_samples", &FieldTape<T>::n_samples);
  nb::class_<NativeField<T>> field(m, named("Field").c_str());
  if constexpr (std::is_same_v<T, float>) {
    field.def("set_bricks", &set_bricks, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
              nb::arg().noconvert(), nb::arg());
  }
  field.def("__init__", &make_field<T>)
      .def("set_box", &set_box<T>)
      .def("set_warp", &set_warp<T>)
      .def("set_levels", &set_levels<T>, nb::arg().noconvert(), nb::arg(), nb::arg())
      .def("set_hash", &set_hash<T>)
      .def("set_bases", &set_bases<T>, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert(),
           nb::arg().noconvert())
      .def("set_values", &set_values<T>, nb::arg().noconvert())
      .def("set_occupancy", &set_occupancy<T>, nb::arg().noconvert().none(), nb::arg().noconvert().none(),
           nb::arg())
      .def("forward", &call_forward<T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert().none(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().none())
      .def("set_per_sample", [](NativeField<T>& field, bool is_per_sample) { field.is_per_sample = is_per_sample; })
      .def("count_rows", [](const NativeField<T>& field, const FieldTape<T>& tape) { return count_rows(field.call, tape); })
      .def("gather_rows", &call_gather_rows<T>, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert())
      .def("backward", &call_backward<T>, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert().none(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg())
      .def(
          "hits",
          [](const NativeField<T>& field, const Rows3<const T>& origins, const Rows3<const T>& directions,
             const Column<uint8_t>& out) {
            const FieldRays<T> rays = rays_of<T>(origins, directions, std::nullopt);
            expect(out.size() == static_cast<size_t>(rays.n), "hits: expected one byte per ray");
            nb::gil_scoped_release release;
            find_hits(field.call, rays, out.data());
          },
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert())
      .def(
          "mark_seen",
          [](const NativeField<T>& field, const Rows3<const T>& origins, const Rows3<const T>& directions, double least,
             bool is_light, const Array<uint8_t, nb::ndim<3>>& cells) {
            const FieldRays<T> rays = rays_of<T>(origins, directions, std::nullopt);
            expect(cells.size() > 0, "cells: expected at least one");
            const int size[3] = {static_cast<int>(cells.shape(2)), static_cast<int>(cells.shape(1)),
                                 static_cast<int>(cells.shape(0))};
            nb::gil_scoped_release release;
            mark_seen(field.call, rays, static_cast<T>(least), is_light, size, cells.data());
          },
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert())
      .def(
          "look_up",
          [](const NativeField<T>& field, const Rows3<const T>& points, bool colors, const Values<T>& out) {
            const size_t n = points.shape(0), width = colors ? static_cast<size_t>(field.call.n_features()) : 1;
            expect(out.size() == n * width, "out: wrong size");
            nb::gil_scoped_release release;
            look_up(field.call, points.data(), static_cast<int64_t>(n), colors, out.data());
          },
          nb::arg().noconvert(), nb::arg(), nb::arg().noconvert());
}

int64_t call_adam(const Values<float>& values, const Values<float>& grads, const Values<float>& exp_avg,
                  const Values<float>& exp_avg_sq, const Bytes& touched, int64_t width, int rank, double lr, double l1, int64_t step,
                  const std::vector<double>& constants) {
  const size_t size = values.size();
  expect(constants.size() == 3 && rank > 0 && rank % kLanes == 0 && size % static_cast<size_t>(rank) == 0, "rank: wrong");
  expect(grads.size() == size && exp_avg.size() == size && exp_avg_sq.size() == size, "arrays differ in size");
  expect(touched.size() == size / kLanes, "touched: wrong size");
  expect(width >= 0 && (width == 0 || static_cast<int64_t>(size) / rank % width == 0), "width: wrong");
  const double beta1 = constants[0], beta2 = constants[1];
  FieldAdam<float> adam = {values.data(), grads.data(), exp_avg.data(), exp_avg_sq.data(), touched.data(),
                           static_cast<int64_t>(size) / rank, width, rank,
                           static_cast<float>(lr / (1 - std::pow(beta1, static_cast<double>(step)))),
                           static_cast<float>(beta1), static_cast<float>(beta2),
                           static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, static_cast<double>(step)))),
                           static_cast<float>(constants[2]), static_cast<float>(l1)};
  constexpr int64_t kAdamRows = 2048;
  const int64_t per_group = (adam.n_rows + kAdamRows - 1) / kAdamRows, n_tasks = per_group * (rank / kLanes);
  std::vector<int64_t> n_bad(static_cast<size_t>(n_tasks));
  nb::gil_scoped_release release;
  const auto adam_rows = field_table<float>().adam_rows;
  parallel_for(n_tasks, [&](int64_t i) {
    const int64_t begin = i % per_group * kAdamRows, end = std::min(begin + kAdamRows, adam.n_rows);
    n_bad[static_cast<size_t>(i)] = adam_rows(adam, static_cast<int>(i / per_group), begin, end);
  });
  std::fill(touched.data(), touched.data() + touched.size(), uint8_t{0});
  int64_t total = 0;
  for (int64_t n : n_bad) total += n;
  return total;
}

// Words of 4x4x4 cells; x is the lowest bit and runs fastest.
void pack_cells(const Array<const bool, nb::ndim<3>>& cells, const Array<int64_t, nb::ndim<3>>& words) {
  const size_t nz = cells.shape(0), ny = cells.shape(1), nx = cells.shape(2);
  const size_t mz = (nz + 3) / 4, my = (ny + 3) / 4, mx = (nx + 3) / 4;
  expect(words.shape(0) == mz && words.shape(1) == my && words.shape(2) == mx, "words: wrong size");
  uint64_t* const out = reinterpret_cast<uint64_t*>(words.data());
  nb::gil_scoped_release release;
  parallel_for(static_cast<int64_t>(mz), [&](int64_t slice) {
    uint64_t* const layer = out + static_cast<size_t>(slice) * my * mx;
    std::fill(layer, layer + my * mx, uint64_t{0});
    for (size_t z = 4 * static_cast<size_t>(slice); z < std::min(nz, 4 * static_cast<size_t>(slice) + 4); z++) {
      for (size_t y = 0; y < ny; y++) {
        const bool* const row = cells.data() + (z * ny + y) * nx;
        uint64_t* const word = layer + y / 4 * mx;
        const size_t shift = z % 4 * 16 + y % 4 * 4;
        for (size_t x = 0; x < nx; x++) word[x / 4] |= static_cast<uint64_t>(row[x]) << (shift + x % 4);
      }
    }
  });
}

}  // namespace

void bind_field(nb::module_& m) {
  m.def("pack_cells", &pack_cells, nb::arg().noconvert(), nb::arg().noconvert());
  bind_type<float>(m, "32");
  bind_type<double>(m, "64");
  m.def("field_adam", &call_adam, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace scene3d
