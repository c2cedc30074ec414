// Bindings of the rasterizer. Python allocates every output, and all working memory through the calls in WorkingMemory.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <memory>
#include <optional>

#include "gpu/raster_arrays.h"

namespace scene3d {
namespace gpu {
namespace {

using Output = Array<float>;
using MaybeInput = std::optional<Input>;
using MaybeOutput = std::optional<Output>;

CallSettings make_settings(const std::array<double, 16>& viewmat, const std::array<double, 9>& K, int width, int height, int sh_degree, double near_z, double far_z,
                           double eps2d, double red, double green, double blue, bool antialiased, bool with_extra,
                           bool absgrad, bool is_ordered, int64_t memory_limit) {
  CallSettings s = {{}, {}, width, height, sh_degree, near_z, far_z, eps2d, {red, green, blue}, antialiased, with_extra,
                    absgrad, {is_ordered, memory_limit}};
  for (int i = 0; i < 16; i++) s.viewmat[i] = viewmat[static_cast<size_t>(i)];
  for (int i = 0; i < 9; i++) s.K[i] = K[static_cast<size_t>(i)];
  return s;
}

template <class A>
auto* pointer(const std::vector<std::optional<A>>& arrays, size_t k, size_t n_pixels, size_t n_channels, const char* name) {
  if (!arrays[k]) return static_cast<decltype(arrays[k]->data())>(nullptr);
  expect_size(arrays[k]->size(), n_pixels * n_channels, name);
  return arrays[k]->data();
}

size_t n_pixels(const CallSettings& s) { return static_cast<size_t>(s.width) * static_cast<size_t>(s.height); }

// rgb, alpha, depth, median, normals.
RasterImages<float> make_images(const CallSettings& s, const std::vector<MaybeOutput>& images) {
  if (images.size() != 5) throw nb::value_error("images: expected 5 arrays");
  const size_t n = n_pixels(s);
  RasterImages<float> out = {};
  out.rgb = pointer(images, 0, n, 3, "rgb"), out.alpha = pointer(images, 1, n, 1, "alpha");
  out.depth = pointer(images, 2, n, 1, "depth"), out.median = pointer(images, 3, n, 1, "median");
  out.normals = pointer(images, 4, n, 3, "normals");
  if (!out.rgb || !out.alpha || (s.with_extra && !(out.depth && out.median && out.normals)))
    throw nb::value_error("images: some that the settings ask for are missing");
  return out;
}

RasterUpstream<float> make_upstream(const CallSettings& s, const std::vector<MaybeInput>& v) {
  if (v.size() != 5 || !v[0]) throw nb::value_error("upstream: expected 5 arrays, that of rgb among them");
  const size_t n = n_pixels(s);
  return {pointer(v, 0, n, 3, "v_rgb"), pointer(v, 1, n, 1, "v_alpha"), pointer(v, 2, n, 1, "v_depth"),
          pointer(v, 4, n, 3, "v_normals"), pointer(v, 3, n, 1, "v_median")};
}

// Those of the six params, then viewmat, grad2d and masks; shN, viewmat and masks may be None.
RasterGrads<float> make_grads(const RasterCall<float>& call, const std::vector<MaybeOutput>& v) {
  if (v.size() != 9) throw nb::value_error("grads: expected 9 arrays");
  const size_t n = static_cast<size_t>(call.n);
  RasterGrads<float> out = {};
  out.means = pointer(v, 0, n, 3, "v_means"), out.quats = pointer(v, 1, n, 4, "v_quats");
  out.log_scales = pointer(v, 2, n, 3, "v_log_scales"), out.opacity_logits = pointer(v, 3, n, 1, "v_opacity_logits");
  out.sh0 = pointer(v, 4, n, 3, "v_sh0"), out.shN = pointer(v, 5, n, static_cast<size_t>(call.shN_stride), "v_shN");
  out.viewmat = pointer(v, 6, 1, 16, "v_viewmat"), out.grad2d = pointer(v, 7, n, 1, "grad2d");
  out.masks = pointer(v, 8, n, 1, "v_masks");
  if (!out.means || !out.quats || !out.log_scales || !out.opacity_logits || !out.sh0 || !out.grad2d)
    throw nb::value_error("grads: only those of shN, viewmat and masks may be None");
  return out;
}

// Three Python calls: allocate(n_bytes, is_kept) -> address, release(), available() -> bytes.
Memory make_memory(const nb::callable& allocate, const nb::callable& release, const nb::callable& available) {
  return {[allocate](int64_t n_bytes, bool is_kept) {
            nb::gil_scoped_acquire lock;
            return reinterpret_cast<void*>(nb::cast<uintptr_t>(allocate(n_bytes, is_kept)));
          },
          [release] {
            nb::gil_scoped_acquire lock;
            release();
          },
          [available] {
            nb::gil_scoped_acquire lock;
            return nb::cast<int64_t>(available());
          }};
}

std::shared_ptr<RasterState> call_forward(const CallSettings& s, const std::vector<Input>& params,
                                          const std::vector<MaybeOutput>& images, Output radii, const Memory& memory,
                                          StreamNumber stream) {
  const RasterCall<float> call = make_call(s, params);
  const RasterImages<float> out = make_images(s, images);
  expect_size(radii.size(), static_cast<size_t>(call.n), "radii");
  auto state = std::make_shared<RasterState>();
  try {
    nb::gil_scoped_release release;
    raster_forward(call, s.options, out, radii.data(), memory, reinterpret_cast<Stream>(stream), *state);
  } catch (const std::length_error& error) {
    raise_memory_error(error);
  }
  return state;
}

void call_backward(const RasterState& state, const CallSettings& s, const std::vector<Input>& params,
                   const std::vector<MaybeOutput>& images, const std::vector<MaybeInput>& upstream,
                   const std::vector<MaybeOutput>& grads, const Memory& memory, StreamNumber stream) {
  const RasterCall<float> call = make_call(s, params);
  const RasterImages<float> rendered = make_images(s, images);
  const RasterUpstream<float> up = make_upstream(s, upstream);
  const RasterGrads<float> out = make_grads(call, grads);
  nb::gil_scoped_release release;
  raster_backward(call, s.options, rendered, up, out, memory, reinterpret_cast<Stream>(stream), state);
}

nb::list bands_of(const TileState& state) {
  nb::list bands;
  for (const Band& band : state.bands) bands.append(nb::make_tuple(band.begin, band.end, band.n_pairs));
  return bands;
}

// For tests: addresses of ids [n_pairs] and bounds [tiles, 2], and of rows by pair in the ordered mode.
nb::tuple list_addresses(const RasterState& state) {
  return nb::make_tuple(reinterpret_cast<uintptr_t>(state.tiles.lists.ids), reinterpret_cast<uintptr_t>(state.tiles.lists.bounds));
}

}  // namespace

void bind_raster(nb::module_& m) {
  nb::class_<CallSettings>(m, "CallSettings").def(nb::new_(&make_settings));
  nb::class_<Memory>(m, "WorkingMemory").def(nb::new_(&make_memory));
  nb::class_<RasterState>(m, "RasterState")
      .def_prop_ro("n_pairs", [](const RasterState& state) { return state.tiles.n_pairs; })
      .def_prop_ro("n_visible", [](const RasterState& state) { return state.tiles.n_visible; })
      .def_prop_ro("n_unsound", [](const RasterState& state) { return state.tiles.n_unsound; })
      .def_prop_ro("bands", [](const RasterState& state) { return bands_of(state.tiles); })
      .def_prop_ro("list_addresses", &list_addresses);
  m.def("raster_forward", &call_forward, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg(), nb::arg());
  m.def("raster_backward", &call_backward, nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
  m.def("plan_bands", [](const std::vector<uint32_t>& pairs_of_row, int64_t max_pairs, int64_t bytes_per_pair) {
    TileState state = {};
    try {
      state.bands = plan_bands(pairs_of_row, max_pairs, bytes_per_pair);
    } catch (const std::length_error& error) {
      raise_memory_error(error);
    }
    return bands_of(state);
  });
}

}  // namespace gpu
}  // namespace scene3d
