// Bindings of radiance fields. Python allocates every output.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
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
  for (size_t l = 0; l < n; l++) self.args.n_leaves[l] = levels.n_leaves[l];
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
    field.values[set][slab] = values[static_cast<size_t>(i)].data(), field.n_rows[slab] = rows;
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

// What forward leaves for the way back.
struct Tape {
  Array<int32_t, nb::ndim<1>> counts;
  std::optional<Array<float, nb::ndim<1>>> distortion;

  FieldTape args(int64_t n) const {
    expect(static_cast<int64_t>(counts.size()) == n && (!distortion || distortion->size() == counts.size()), "tape: expected a number per ray");
    return {reinterpret_cast<uint32_t*>(counts.data()), distortion ? distortion->data() : nullptr};
  }
};

void call_march(const NativeField& field, Rows3 origins, Rows3 directions, MaybeJitter jitter, const std::vector<Values>& out,
                const Tape& tape, StreamNumber stream) {
  const FieldRays rays = rays_of(origins, directions, jitter);
  march_field(field.args, rays, sums_of<float>(field.args, rays.n, out), tape.args(rays.n), reinterpret_cast<Stream>(stream));
}

using Marks = Array<uint8_t, nb::ndim<2>>;

// Where gradients go, and marks of what was reached, if wanted.
struct Gradients {
  std::vector<Values> values;
  std::vector<Marks> marks;
  double distortion;
  int64_t n_samples;
};

FieldArgs with_gradients(const NativeField& field, const Gradients& grads) {
  FieldArgs args = field.args;
  const size_t n_slabs = static_cast<size_t>(slab_count(args));
  expect(grads.values.size() == field.values.size() && (grads.marks.empty() || grads.marks.size() == field.values.size()), "grads: wrong number of arrays");
  for (size_t i = 0; i < 2 * n_slabs; i++) {
    const size_t set = i / n_slabs, slab = i % n_slabs;
    expect(grads.values[i].size() == field.values[i].size(), "grads: an array has the wrong size");
    args.grads[set][slab] = grads.values[i].data();
    if (grads.marks.empty()) continue;
    expect(grads.marks[i].size() == field.values[i].size() / kRankLanes, "marks: an array has the wrong size");
    args.touched[set][slab] = grads.marks[i].data();
  }
  args.distortion = static_cast<float>(grads.distortion);
  return args;
}

void call_march_backward(const NativeField& field, Rows3 origins, Rows3 directions, MaybeJitter jitter,
                         const std::vector<ConstValues>& out, const Tape& tape, const std::vector<ConstValues>& v,
                         const Gradients& grads, const Memory& memory, StreamNumber stream) {
  const FieldRays rays = rays_of(origins, directions, jitter);
  const FieldArgs args = with_gradients(field, grads);
  expect(!(args.distortion > 0.f) || tape.distortion.has_value(), "distortion: expected a tape that holds it");
  const FieldSums<const float> sums = sums_of<const float>(args, rays.n, out), v_sums = sums_of<const float>(args, rays.n, v);
  march_field_backward(args, rays, sums, tape.args(rays.n), grads.n_samples, v_sums, memory, reinterpret_cast<Stream>(stream));
}

void call_look_up(const NativeField& field, Rows3 points, bool colors, Values out, StreamNumber stream) {
  const size_t n = points.shape(0);
  expect(out.size() == n * (colors ? static_cast<size_t>(field.args.n_features) : 1), "out: wrong size");
  look_up_field(field.args, points.data(), static_cast<int64_t>(n), colors, out.data(), reinterpret_cast<Stream>(stream));
}

void call_hits(const NativeField& field, Rows3 origins, Rows3 directions, Array<uint8_t, nb::ndim<1>> out, StreamNumber stream) {
  const FieldRays rays = rays_of(origins, directions, std::nullopt);
  expect(static_cast<int64_t>(out.size()) == rays.n, "hits: expected one byte per ray");
  find_field_hits(field.args, rays, out.data(), reinterpret_cast<Stream>(stream));
}

// tables: values, gradients, first and second moments. rule: lr, beta1, beta2, eps. Clears the marks.
void call_adam(const std::vector<std::vector<Values>>& tables, const std::vector<Marks>& marks, const std::vector<int64_t>& widths,
               const std::vector<double>& l1, const std::array<double, 4>& rule, int64_t step, Array<int32_t, nb::shape<1>> n_bad,
               StreamNumber stream) {
  expect(tables.size() == 4, "field_adam: expected 4 tables");
  const size_t n = marks.size();
  for (const auto& table : tables) expect(table.size() == n, "field_adam: tables differ in length");
  expect(widths.size() == n && l1.size() == n, "field_adam: tables differ in length");
  std::vector<FieldAdamArray> arrays;
  for (size_t k = 0; k < n; k++) {
    const int64_t n_rows = static_cast<int64_t>(marks[k].shape(1)), rank = static_cast<int64_t>(marks[k].shape(0)) * kRankLanes;
    for (const auto& table : tables) expect(static_cast<int64_t>(table[k].size()) == n_rows * rank, "field_adam: arrays differ in size");
    expect(widths[k] > 0 && n_rows % widths[k] == 0, "field_adam: wrong width");
    arrays.push_back({tables[0][k].data(), tables[1][k].data(), tables[2][k].data(), tables[3][k].data(), marks[k].data(), n_rows,
                      widths[k], static_cast<int>(rank), static_cast<float>(l1[k])});
  }
  const double power = static_cast<double>(step), root = std::sqrt(1 - std::pow(rule[2], power));
  const FieldAdamRule numbers = {static_cast<float>(rule[0] / (1 - std::pow(rule[1], power))), static_cast<float>(rule[1]),
                                 static_cast<float>(rule[2]), static_cast<float>(1 / root), static_cast<float>(rule[3])};
  field_adam_step(arrays, numbers, reinterpret_cast<unsigned int*>(n_bad.data()), reinterpret_cast<Stream>(stream));
  for (const Marks& mark : marks) set_zero(mark.data(), static_cast<int64_t>(mark.size()), reinterpret_cast<Stream>(stream));
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
           nb::arg().noconvert(), nb::arg(), nb::arg())
      .def("march_backward", &call_march_backward, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg())
      .def("look_up", &call_look_up, nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg())
      .def("hits", &call_hits, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
  nb::class_<Tape>(m, "FieldTape")
      .def("__init__", [](Tape* self, Array<int32_t, nb::ndim<1>> counts, std::optional<Array<float, nb::ndim<1>>> distortion) {
        new (self) Tape{counts, distortion};
      }, nb::arg().noconvert(), nb::arg().noconvert().none());
  nb::class_<Gradients>(m, "FieldGradients")
      .def("__init__", [](Gradients* self, const std::vector<Values>& values, const std::vector<Marks>& marks, double distortion, int64_t n_samples) {
        new (self) Gradients{values, marks, distortion, n_samples};
      }, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
  m.def("field_adam", &call_adam, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().noconvert(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
