// Bindings of flat Gaussians. Python allocates every output, and all working memory through WorkingMemory.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <vector>

#include "gpu/raster_arrays.h"
#include "gpu/surfels.h"

namespace scene3d {
namespace gpu {
namespace {

using Outputs = std::vector<Array<float>>;
using Inputs = std::vector<Input>;

struct SurfelSettings {
  SurfelView<float> view;
  float unit;
  int width, height;
  RasterOptions options;

  size_t n_pixels() const { return static_cast<size_t>(width) * static_cast<size_t>(height); }
};

// arrays: matrices, opacities, rgb, normals.
SurfelCall<float> make_call(const SurfelSettings& s, const Inputs& arrays) {
  if (arrays.size() != 4) throw nb::value_error("arrays: expected 4");
  const size_t n = arrays[1].size(), columns[4] = {9, 1, 3, 3};
  for (size_t k = 0; k < 4; k++) expect_size(arrays[k].size(), n * columns[k], "arrays");
  return {s.view, s.width, s.height, static_cast<int64_t>(n), arrays[0].data(), arrays[1].data(), arrays[2].data(), arrays[3].data(), s.unit, true};
}

// rgb, normals, alpha, depth, median, distortion, and first, second, anchor of the way back.
SurfelImages<float> make_images(const SurfelSettings& s, const Outputs& images) {
  if (images.size() != 9) throw nb::value_error("images: expected 9 arrays");
  for (size_t k = 0; k < 9; k++) expect_size(images[k].size(), s.n_pixels() * (k < 2 ? 3 : 1), "images");
  return {images[0].data(), images[1].data(), images[2].data(), images[3].data(), images[4].data(),
          images[5].data(), images[6].data(), images[7].data(), images[8].data()};
}

std::shared_ptr<SurfelState> call_forward(const SurfelSettings& s, const Inputs& arrays, const Outputs& images,
                                          Array<float> radii, const Memory& memory, StreamNumber stream) {
  const SurfelCall<float> call = make_call(s, arrays);
  const SurfelImages<float> out = make_images(s, images);
  expect_size(radii.size(), static_cast<size_t>(call.n), "radii");
  auto state = std::make_shared<SurfelState>();
  try {
    nb::gil_scoped_release release;
    surfels_forward(call, s.options, out, radii.data(), memory, reinterpret_cast<Stream>(stream), *state);
  } catch (const std::length_error& error) {
    raise_memory_error(error);
  }
  return state;
}

// upstream: of rgb, normals, alpha, depth, distortion; grads: of the arrays.
void call_backward(const SurfelState& state, const SurfelSettings& s, const Inputs& arrays, const Outputs& images,
                   const Inputs& upstream, const Outputs& grads, const Memory& memory, StreamNumber stream) {
  const SurfelCall<float> call = make_call(s, arrays);
  const SurfelImages<float> rendered = make_images(s, images);
  if (upstream.size() != 5 || grads.size() != 4) throw nb::value_error("upstream, grads: expected 5 and 4 arrays");
  for (size_t k = 0; k < 5; k++) expect_size(upstream[k].size(), s.n_pixels() * (k < 2 ? 3 : 1), "upstream");
  for (size_t k = 0; k < 4; k++) expect_size(grads[k].size(), arrays[k].size(), "grads");
  const SurfelUpstream<float> up = {upstream[0].data(), upstream[1].data(), upstream[2].data(), upstream[3].data(), upstream[4].data()};
  const SurfelGrads out = {grads[0].data(), grads[1].data(), grads[2].data(), grads[3].data()};
  nb::gil_scoped_release release;
  surfels_backward(call, s.options, rendered, up, out, memory, reinterpret_cast<Stream>(stream), state);
}

}  // namespace

#define FIXED nb::arg().noconvert()

void bind_surfels(nb::module_& m) {
  nb::class_<SurfelSettings>(m, "SurfelSettings")
      .def("__init__", [](SurfelSettings* self, const std::array<double, 6>& numbers, int width, int height, bool is_ordered, int64_t memory_limit) {
        float view[6];
        for (size_t k = 0; k < 6; k++) view[k] = static_cast<float>(numbers[k]);  // fx, fy, cx, cy, near, unit
        new (self) SurfelSettings{{view[0], view[1], view[2], view[3], view[4]}, view[5], width, height, {is_ordered, memory_limit}};
      });
  nb::class_<SurfelState>(m, "SurfelState")
      .def_prop_ro("n_pairs", [](const SurfelState& state) { return state.tiles.n_pairs; })
      .def_prop_ro("n_bands", [](const SurfelState& state) { return state.tiles.bands.size(); });
  m.def("surfels_forward", &call_forward, nb::arg(), FIXED, FIXED, FIXED, nb::arg(), nb::arg());
  m.def("surfels_backward", &call_backward, nb::arg(), nb::arg(), FIXED, FIXED, FIXED, FIXED, nb::arg(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
