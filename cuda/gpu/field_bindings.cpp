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

// A field with the arrays that it points to.
struct NativeField {
  FieldArgs args = {};
  std::vector<ConstValues> values;
  std::optional<Words> words, coarse;
};

// Rows of slab i: the nodes of a plane or of a line.
int64_t slab_rows(const FieldArgs& field, int i) {
  const int64_t x = field.n[0], y = field.n[1], z = field.n[2];
  const int64_t vm[6] = {x * y, x * z, y * z, z, y, x}, cp[3] = {x, y, z};
  return field.n_modes == 3 ? vm[i] : cp[i];
}

int slab_count(const FieldArgs& field) { return field.n_modes == 3 ? 6 : 3; }

// settings: step, density_scale, density_shift, near, far, min_weight, min_transmittance; box: low, high.
void make_field(NativeField* self, bool is_cp, const std::vector<int>& n, const std::vector<int>& ranks,
                const std::vector<double>& settings, const std::vector<double>& box, const std::vector<ConstValues>& values,
                std::optional<Words> words, std::optional<Words> coarse, const std::vector<int>& cells) {
  new (self) NativeField();
  FieldArgs& field = self->args;
  expect(n.size() == 3 && ranks.size() == 2 && settings.size() == 7 && box.size() == 6 && cells.size() == 3, "field: wrong length");
  field.n_modes = is_cp ? 1 : 3;
  for (int a = 0; a < 3; a++) {
    expect((field.n[a] = n[a]) >= 2, "sizes: expected at least 2 nodes");
    field.low[a] = static_cast<float>(box[a]), field.high[a] = static_cast<float>(box[3 + a]);
    field.occupancy.n[a] = cells[a];
  }
  for (int s = 0; s < kFieldSets; s++) expect((field.rank[s] = ranks[s]) > 0 && ranks[s] % kRankLanes == 0, "ranks: expected multiples of 16");
  field.n_features = field.rank[1] * field.n_modes;
  float* const targets[7] = {&field.step, &field.density_scale, &field.density_shift, &field.near, &field.far, &field.min_weight, &field.min_transmittance};
  for (int i = 0; i < 7; i++) *targets[i] = static_cast<float>(settings[i]);
  expect(field.step > 0, "step: expected a positive number");
  const int n_slabs = slab_count(field);
  expect(values.size() == static_cast<size_t>(2 * n_slabs), "values: wrong number of arrays");
  for (int i = 0; i < 2 * n_slabs; i++) {
    const int set = i / n_slabs, slab = i % n_slabs;
    expect(static_cast<int64_t>(values[i].size()) == slab_rows(field, slab) * field.rank[set], "values: an array has the wrong size");
    field.values[set][slab] = values[i].data();
  }
  self->values = values, self->words = words, self->coarse = coarse;
  if (!words) return;
  int64_t n_words = 1, n_coarse = 1;
  for (int a = 0; a < 3; a++) n_words *= (cells[a] + 3) / 4, n_coarse *= ((cells[a] + 3) / 4 + 3) / 4;
  expect(coarse && static_cast<int64_t>(words->size()) == n_words && static_cast<int64_t>(coarse->size()) == n_coarse,
         "occupancy: wrong number of words");
  field.occupancy.words = reinterpret_cast<const uint64_t*>(words->data());
  field.occupancy.coarse = reinterpret_cast<const uint64_t*>(coarse->data());
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
  nb::class_<NativeField>(m, "Field")
      .def("__init__", &make_field, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(),
           nb::arg().noconvert().none(), nb::arg().noconvert().none(), nb::arg())
      .def("march", &call_march, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg())
      .def("march_backward", &call_march_backward, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
