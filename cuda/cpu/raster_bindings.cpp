// Bindings of the rasterizers. Python allocates every output.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <optional>
#include <string>

#include "cpu/raster_arrays.h"
#include "cpu/raster_plain.h"
#include "cpu/raster_tiled.h"
#include "math/constants.h"

namespace scene3d {
namespace {

template <class T>
T* data_of(const std::optional<Flat<T>>& array) {
  return array ? array->data() : nullptr;
}

template <class T>
struct Images {
  Flat<T> rgb, alpha;
  std::optional<Flat<T>> depth, normals, median;
  std::optional<Flat<int32_t>> median_id;

  RasterImages<T> pointers() const {
    return {rgb.data(), alpha.data(), data_of(depth), data_of(normals), data_of(median), data_of(median_id)};
  }
};

template <class T>
struct Upstream {
  Flat<const T> rgb;
  std::optional<Flat<const T>> alpha, depth, normals, median;

  RasterUpstream<T> pointers() const {
    return {rgb.data(), data_of(alpha), data_of(depth), data_of(normals), data_of(median)};
  }
};

template <class T>
struct Grads {
  Flat<T> means, quats, log_scales, opacity_logits, sh0;
  std::optional<Flat<T>> shN, viewmat;
  Flat<T> grad2d;
  std::optional<Flat<T>> masks;

  RasterGrads<T> pointers() const {
    return {means.data(), quats.data(), log_scales.data(), opacity_logits.data(),
            sh0.data(),   data_of(shN), data_of(viewmat),  grad2d.data(), data_of(masks)};
  }
};


template <class T>
void bind_arrays(nb::module_& m, const char* suffix) {
  using std::string;
  nb::class_<Params<T>>(m, (string("Params") + suffix).c_str())
      .def(
          "__init__",
          [](Params<T>* self, Flat<const T> a, Flat<const T> b, Flat<const T> c, Flat<const T> d, Flat<const T> e,
             Flat<const T> f, std::optional<Flat<const T>> masks) { new (self) Params<T>{a, b, c, d, e, f, masks}; },
          FIXED, FIXED, FIXED, FIXED, FIXED, FIXED, FIXED.none() = nb::none());
  nb::class_<Images<T>>(m, (string("Images") + suffix).c_str())
      .def(
          "__init__",
          [](Images<T>* self, Flat<T> rgb, Flat<T> alpha, std::optional<Flat<T>> depth, std::optional<Flat<T>> normals,
             std::optional<Flat<T>> median, std::optional<Flat<int32_t>> median_id) {
            new (self) Images<T>{rgb, alpha, depth, normals, median, median_id};
          },
          FIXED, FIXED, FIXED.none(), FIXED.none(), FIXED.none(), FIXED.none());
  nb::class_<Upstream<T>>(m, (string("Upstream") + suffix).c_str())
      .def(
          "__init__",
          [](Upstream<T>* self, Flat<const T> rgb, std::optional<Flat<const T>> alpha, std::optional<Flat<const T>> depth,
             std::optional<Flat<const T>> normals, std::optional<Flat<const T>> median) {
            new (self) Upstream<T>{rgb, alpha, depth, normals, median};
          },
          FIXED, FIXED.none(), FIXED.none(), FIXED.none(), FIXED.none());
  nb::class_<Grads<T>>(m, (string("Grads") + suffix).c_str())
      .def(
          "__init__",
          [](Grads<T>* self, Flat<T> a, Flat<T> b, Flat<T> c, Flat<T> d, Flat<T> e, std::optional<Flat<T>> f,
             std::optional<Flat<T>> viewmat, Flat<T> grad2d, std::optional<Flat<T>> masks) {
            new (self) Grads<T>{a, b, c, d, e, f, viewmat, grad2d, masks};
          },
          FIXED, FIXED, FIXED, FIXED, FIXED, FIXED.none(), FIXED.none(), FIXED, FIXED.none() = nb::none());
}

}  // namespace

void bind_raster(nb::module_& m) {
  m.attr("MIN_ALPHA") = kMinAlpha;
  m.attr("MAX_ALPHA") = kMaxAlpha;
  m.attr("MIN_TRANSMITTANCE") = kMinTransmittance;
  m.attr("TILE_SIZE") = kTileSize;
  nb::class_<CallSettings>(m, "CallSettings").def(nb::new_(&make_settings));
  bind_arrays<float>(m, "32");
  bind_arrays<double>(m, "64");
  nb::class_<TiledState>(m, "TiledState")
      .def_ro("n_pairs", &TiledState::n_pairs)
      .def_ro("n_visible", &TiledState::n_visible)
      .def_ro("n_unsound", &TiledState::n_unsound);
  m.def(
      "tiled_forward",
      [](const CallSettings& s, const Params<float>& p, const Images<float>& images, Flat<float> radii) {
        const RasterCall<float> call = make_call(s, p);
        nb::gil_scoped_release release;
        auto state = borrow_state();
        tiled_forward(call, *state, images.pointers(), radii.data());
        return state;
      },
      nb::arg(), nb::arg(), nb::arg(), FIXED);
  m.def("tiled_backward", [](TiledState& state, const CallSettings& s, const Params<float>& p, const Images<float>& images,
                             const Upstream<float>& upstream, const Grads<float>& grads) {
    const RasterCall<float> call = make_call(s, p);
    RasterGrads<float> out = grads.pointers();
    nb::gil_scoped_release release;
    tiled_backward(call, state, images.pointers(), upstream.pointers(), out);
  });
  m.def("plain_forward",
        [](const CallSettings& s, const Params<double>& p, bool cutoff, const Images<double>& images, Flat<double> radii) {
          plain_forward(make_call(s, p), cutoff, images.pointers(), radii.data());
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), FIXED);
  m.def("plain_backward", [](const CallSettings& s, const Params<double>& p, bool cutoff, const Images<double>& images,
                             const Upstream<double>& upstream, const Grads<double>& grads) {
    RasterGrads<double> out = grads.pointers();
    plain_backward(make_call(s, p), cutoff, images.pointers(), upstream.pointers(), out);
  });
  m.def("last_times", [] {
    constexpr const char* names[kTimeSlots] = {"project", "list", "sort",           "bin",       "blend",
                                               "loss",    "blend backward", "sum pairs", "reduce"};
    nb::dict times;
    for (int slot = 0; slot < kTimeSlots; slot++) times[names[slot]] = tiled_times()[slot];
    return times;
  });
}

}  // namespace scene3d
