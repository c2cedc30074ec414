// Bindings of radiance fields. Python allocates every output.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <vector>

#include "gpu/bindings.h"
#include "gpu/field.h"

namespace scene3d {
namespace gpu {
namespace {

using Values = Array<float>;
using ConstValues = Array<const float>;
using Rows3 = Array<const float, nb::shape<-1, 3>>;
using Words = Array<const int64_t, nb::ndim<1>>;

void expect(bool holds, const char* problem) {
  if (!holds) throw nb::value_error(problem);
}

using LeafGrid = Array<const int32_t, nb::ndim<3>>;

// A field with the arrays that it points to.
struct NativeField {
  FieldArgs args = {};
  std::vector<ConstValues> values;
  std::optional<Words> words, coarse;
  std::vector<LeafGrid> grids;
};

// Leaves of each level of a tri-vector field. How many there are only Python knows: the numbers are on the device.
struct Levels {
  std::vector<LeafGrid> grids;  // number of the leaf in each cube, -1: none. [Z, Y, X]
  std::vector<int64_t> n_leaves;
  std::vector<int> nodes;
  std::vector<bool> is_shifted;
};

int slab_count(const FieldArgs& field) { return field.kind == FieldKind::vm ? 6 : 3 * field.n_modes; }

// Rows of slab i: the nodes of a plane or of a line, or of a vector of all leaves.
int64_t slab_rows(const FieldArgs& field, const Levels& levels, int i) {
  const int64_t x = field.n[0], y = field.n[1], z = field.n[2];
  const int64_t vm[6] = {x * y, x * z, y * z, z, y, x}, cp[3] = {x, y, z};
  if (field.kind == FieldKind::vm) return vm[i];
  if (field.kind == FieldKind::cp) return cp[i];
  const size_t l = static_cast<size_t>(i / 3);
  return levels.n_leaves[l] * levels.nodes[l];
}

void set_levels(NativeField& self, const Levels& levels) {
  const size_t n = levels.grids.size();
  expect(n >= 1 && n <= kMaxLevels && levels.nodes.size() == n && levels.is_shifted.size() == n && levels.n_leaves.size() == n,
         "levels: expected one or two, of a tri-vector field");
  self.args.n_modes = static_cast<int>(n);
  for (size_t l = 0; l < n; l++) {
    LeafLevel& level = self.args.levels[l];
    expect(levels.nodes[l] >= 2 && levels.n_leaves[l] >= 0, "levels: expected at least 2 nodes");
    expect(levels.n_leaves[l] * levels.nodes[l] < INT32_MAX && levels.grids[l].size() < INT32_MAX, "levels: too many leaves");
    level.leaves = levels.grids[l].data(), level.nodes = levels.nodes[l], level.is_shifted = levels.is_shifted[l];
    for (size_t a = 0; a < 3; a++) {
      level.cells[a] = static_cast<int>(levels.grids[l].shape(2 - a));
      expect(level.cells[a] > (levels.is_shifted[l] ? 1 : 0), "levels: expected at least one cube along each axis");
    }
  }
  self.grids = levels.grids;
}

void set_values(NativeField& self, const Levels& levels, const std::vector<ConstValues>& values) {
  FieldArgs& field = self.args;
  const int n_slabs = slab_count(field);
  expect(values.size() == static_cast<size_t>(2 * n_slabs), "values: wrong number of arrays");
  for (int i = 0; i < 2 * n_slabs; i++) {
    const int set = i / n_slabs, slab = i % n_slabs;
    const int64_t rows = slab_rows(field, levels, slab);
    expect(static_cast<int64_t>(values[static_cast<size_t>(i)].size()) == rows * field.rank[set], "values: an array has the wrong size");
    field.values[set][slab] = values[static_cast<size_t>(i)].data();
  }
  self.values = values;
}

void set_occupancy(NativeField& self, std::optional<Words> words, std::optional<Words> coarse, const std::vector<int>& cells) {
  self.words = words, self.coarse = coarse;
  OccupancyBits& bits = self.args.occupancy;
  expect(cells.size() == 3, "occupancy: expected three sizes");
  int64_t n_words = 1, n_coarse = 1;
  for (int a = 0; a < 3; a++) {
    bits.n[a] = cells[a];
    n_words *= (cells[a] + 3) / 4, n_coarse *= ((cells[a] + 3) / 4 + 3) / 4;
  }
  if (!words) return;
  expect(coarse && static_cast<int64_t>(words->size()) == n_words && static_cast<int64_t>(coarse->size()) == n_coarse,
         "occupancy: wrong number of words");
  bits.words = reinterpret_cast<const uint64_t*>(words->data());
  bits.coarse = reinterpret_cast<const uint64_t*>(coarse->data());
}

// settings: step, density_scale, density_shift, near, far, min_weight, min_transmittance; box: low, high.
void make_field(NativeField* self, int kind, const std::vector<int>& n, const std::vector<int>& ranks, const std::vector<double>& settings,
                const std::vector<double>& box, const std::vector<ConstValues>& values, const Levels& levels) {
  new (self) NativeField();
  FieldArgs& field = self->args;
  expect(kind >= 0 && kind <= 2 && n.size() == 3 && ranks.size() == 2 && settings.size() == 7 && box.size() == 6, "field: wrong length");
  field.kind = static_cast<FieldKind>(kind);
  field.n_modes = field.kind == FieldKind::vm ? 3 : 1;
  for (int a = 0; a < 3; a++) {
    expect((field.n[a] = n[a]) >= 2, "sizes: expected at least 2 nodes");
    field.low[a] = static_cast<float>(box[a]), field.high[a] = static_cast<float>(box[3 + a]);
  }
  for (int s = 0; s < kFieldSets; s++) expect((field.rank[s] = ranks[s]) > 0 && ranks[s] % kRankLanes == 0, "ranks: expected multiples of 16");
  if (field.kind == FieldKind::trivec) set_levels(*self, levels);
  field.n_features = field.rank[1] * field.n_modes;
  float* const targets[7] = {&field.step, &field.density_scale, &field.density_shift, &field.near, &field.far, &field.min_weight, &field.min_transmittance};
  for (int i = 0; i < 7; i++) *targets[i] = static_cast<float>(settings[i]);
  expect(field.step > 0, "step: expected a positive number");
  set_values(*self, levels, values);
}

FieldRays rays_of(const Rows3& origins, const Rows3& directions, const std::optional<Array<const float, nb::ndim<1>>>& jitter) {
  const size_t n = origins.shape(0);
  expect(directions.shape(0) == n && (!jitter || jitter->size() == n), "rays: arrays differ in length");
  return {origins.data(), directions.data(), jitter ? jitter->data() : nullptr, static_cast<int64_t>(n)};
}

// features, opacity, distance.
template <class T, class A>
FieldSums<T> sums_of(const FieldArgs& field, int64_t n, const std::vector<A>& arrays) {
  expect(arrays.size() == 3 && static_cast<int64_t>(arrays[0].size()) == n * field.n_features &&
             static_cast<int64_t>(arrays[1].size()) == n && static_cast<int64_t>(arrays[2].size()) == n,
         "sums: wrong size");
  return {arrays[0].data(), arrays[1].data(), arrays[2].data()};
}

using MaybeJitter = std::optional<Array<const float, nb::ndim<1>>>;

void call_march(const NativeField& field, Rows3 origins, Rows3 directions, MaybeJitter jitter, const std::vector<Values>& out,
                StreamNumber stream) {
  const FieldRays rays = rays_of(origins, directions, jitter);
  march_field(field.args, rays, sums_of<float>(field.args, rays.n, out), reinterpret_cast<Stream>(stream));
}

void call_march_backward(const NativeField& field, Rows3 origins, Rows3 directions, MaybeJitter jitter,
                         const std::vector<ConstValues>& out, const std::vector<ConstValues>& v, const std::vector<Values>& grads,
                         StreamNumber stream) {
  FieldArgs args = field.args;
  const FieldRays rays = rays_of(origins, directions, jitter);
  const int n_slabs = slab_count(args);
  expect(grads.size() == field.values.size(), "grads: wrong number of arrays");
  for (int i = 0; i < 2 * n_slabs; i++) {
    expect(grads[i].size() == field.values[i].size(), "grads: an array has the wrong size");
    args.grads[i / n_slabs][i % n_slabs] = grads[i].data();
  }
  march_field_backward(args, rays, sums_of<const float>(args, rays.n, out), sums_of<const float>(args, rays.n, v),
                       reinterpret_cast<Stream>(stream));
}

}  // namespace

void bind_field(nb::module_& m) {
  m.attr("MAX_FEATURES") = kMaxFeatures;
  nb::class_<Levels>(m, "FieldLevels")
      .def("__init__", [](Levels* self, const std::vector<LeafGrid>& grids, const std::vector<int64_t>& n_leaves,
                          const std::vector<int>& nodes, const std::vector<bool>& is_shifted) {
        new (self) Levels{grids, n_leaves, nodes, is_shifted};
      }, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg());
  nb::class_<NativeField>(m, "Field")
      .def("__init__", &make_field, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg())
      .def("set_occupancy", &set_occupancy, nb::arg().noconvert().none(), nb::arg().noconvert().none(), nb::arg())
      .def("march", &call_march, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg())
      .def("march_backward", &call_march_backward, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
