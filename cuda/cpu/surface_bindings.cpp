// Conversions for surfaces from Gaussians.
#include <string>

#include "cpu/raster_arrays.h"
#include "cpu/surface.h"

namespace scene3d {
namespace {

// The view of a call of surfels, and how far it is smooth.
struct SurfelSettings {
  double fx, fy, cx, cy, near_z, unit;
  int width, height;
  bool cutoff;
};

template <class T>
struct SurfelArrays {
  Flat<const T> matrices, opacities, rgb, normals;
};

template <class T>
SurfelCall<T> surfel_call(const SurfelSettings& s, const SurfelArrays<T>& a) {
  const size_t n = a.opacities.size();
  if (a.matrices.size() != 9 * n || a.rgb.size() != 3 * n || a.normals.size() != 3 * n)
    throw nb::value_error("matrices, rgb, normals: expected one row per opacity");
  SurfelCall<T> call;
  call.view = {static_cast<T>(s.fx), static_cast<T>(s.fy), static_cast<T>(s.cx), static_cast<T>(s.cy),
               static_cast<T>(s.near_z)};
  call.width = s.width, call.height = s.height, call.n = static_cast<int64_t>(n);
  call.matrices = a.matrices.data(), call.opacities = a.opacities.data();
  call.rgb = a.rgb.data(), call.normals = a.normals.data();
  call.unit = static_cast<T>(s.unit), call.cutoff = s.cutoff;
  return call;
}

// All images of a call in one array: rgb, normals [H, W, 3], then alpha, depth, median, distortion and the
// three of the way back.
constexpr int kImageNumbers = 13;

template <class T>
SurfelImages<T> surfel_images(const SurfelSettings& s, T* all) {
  const int64_t size = static_cast<int64_t>(s.width) * s.height;
  T* rest = all + 6 * size;
  return {all,      all + 3 * size,  rest,            rest + size,    rest + 2 * size,
          rest + 3 * size, rest + 4 * size, rest + 5 * size, rest + 6 * size};
}

template <class T>
void bind_surfels(nb::module_& m, const char* suffix) {
  using std::string;
  nb::class_<SurfelState<T>>(m, (string("SurfelState") + suffix).c_str()).def(nb::init<>());
  nb::class_<SurfelArrays<T>>(m, (string("SurfelArrays") + suffix).c_str())
      .def(
          "__init__",
          [](SurfelArrays<T>* self, Flat<const T> a, Flat<const T> b, Flat<const T> c, Flat<const T> d) {
            new (self) SurfelArrays<T>{a, b, c, d};
          },
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "surfels_forward",
      [](const SurfelSettings& s, const SurfelArrays<T>& arrays, SurfelState<T>& state, Flat<T> images, Flat<T> radii) {
        const SurfelCall<T> call = surfel_call(s, arrays);
        if (images.size() != kImageNumbers * static_cast<size_t>(s.width) * static_cast<size_t>(s.height) ||
            radii.size() != static_cast<size_t>(call.n))
          throw nb::value_error("images, radii: expected 13 numbers a pixel and one per Gaussian");
        const SurfelImages<T> out = surfel_images(s, images.data());
        T* const r = radii.data();
        nb::gil_scoped_release release;
        surfels_forward(call, state, out, r);
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "surfels_backward",
      [](const SurfelSettings& s, const SurfelArrays<T>& arrays, const SurfelState<T>& state, Flat<T> images,
         Flat<const T> v_rgb_image, Flat<const T> v_normal_image, Flat<const T> v_alpha, Flat<const T> v_depth,
         Flat<const T> v_distortion, Flat<T> v_matrices, Flat<T> v_opacities, Flat<T> v_rgb, Flat<T> v_normals) {
        const SurfelCall<T> call = surfel_call(s, arrays);
        const SurfelImages<T> stored = surfel_images(s, images.data());
        const SurfelUpstream<T> up = {v_rgb_image.data(), v_normal_image.data(), v_alpha.data(), v_depth.data(),
                                      v_distortion.data()};
        T *const a = v_matrices.data(), *const b = v_opacities.data(), *const c = v_rgb.data(), *const d = v_normals.data();
        nb::gil_scoped_release release;
        surfels_backward(call, state, stored, up, a, b, c, d);
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace

void bind_surface(nb::module_& m) {
  m.def(
      "opacity_from_view",
      [](const CallSettings& settings, const Params<float>& params, Array<const float, nb::shape<-1, 3>> places,
         float enough, Array<float, nb::ndim<1>> opacity, Array<int32_t, nb::ndim<1>> n_views) {
        const size_t n = places.shape(0);
        if (opacity.shape(0) != n || n_views.shape(0) != n)
          throw nb::value_error("opacity, n_views: expected one row per place");
        if (n > 0x7fffffff) throw nb::value_error("places: expected fewer than 2^31");
        const RasterCall<float> call = make_call(settings, params);
        nb::gil_scoped_release release;
        opacity_from_view(call, places.data(), static_cast<int64_t>(n), enough, opacity.data(), n_views.data());
      },
      nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  nb::class_<SurfelSettings>(m, "SurfelSettings")
      .def(
          "__init__",
          [](SurfelSettings* self, double fx, double fy, double cx, double cy, double near_z, double unit, int width,
             int height, bool cutoff) {
            new (self) SurfelSettings{fx, fy, cx, cy, near_z, unit, width, height, cutoff};
          });
  bind_surfels<float>(m, "32");
  bind_surfels<double>(m, "64");
}

}  // namespace scene3d
