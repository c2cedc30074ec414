// What bindings of the rasterizer and of the fit take: arrays that are never converted, and the settings of a call.
#pragma once
#include <nanobind/stl/array.h>

#include <array>
#include <optional>

#include "cpu/bindings.h"
#include "cpu/raster_call.h"
#include "math/sh.h"

// An argument that nanobind must take as it is: a converted copy would be written to in vain.
#define FIXED nb::arg().noconvert()

namespace scene3d {

template <class T>
using Flat = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

// The view and settings of a call, built once in Python and used by forward and backward.
struct CallSettings {
  double viewmat[16], K[9];
  int width, height, sh_degree;
  double near_z, far_z, eps2d;
  double background[3];
  bool antialiased, with_extra, absgrad;
};

inline CallSettings make_settings(std::array<double, 16> viewmat, std::array<double, 9> K, int width, int height, int sh_degree, double near_z, double far_z,
                           double eps2d, double red, double green, double blue, bool antialiased, bool with_extra,
                           bool absgrad) {
  CallSettings s = {{}, {}, width, height, sh_degree, near_z, far_z, eps2d, {red, green, blue}, antialiased, with_extra, absgrad};
  for (int i = 0; i < 16; i++) s.viewmat[i] = viewmat[static_cast<size_t>(i)];
  for (int i = 0; i < 9; i++) s.K[i] = K[static_cast<size_t>(i)];
  return s;
}

template <class T>
struct Params {
  Flat<const T> means, quats, log_scales, opacity_logits, sh0, shN;
  std::optional<Flat<const T>> masks;
};

template <class T>
RasterCall<T> make_call(const CallSettings& s, const Params<T>& p) {
  RasterCall<T> c;
  c.view = make_view<T>(s.viewmat, s.K, s.width, s.height, s.near_z, s.far_z, s.eps2d, s.antialiased);
  c.width = s.width, c.height = s.height, c.sh_degree = s.sh_degree;
  c.n = static_cast<int64_t>(p.means.shape(0));
  c.shN_stride = static_cast<int64_t>(3 * p.shN.shape(1));
  if (s.sh_degree < 0 || s.sh_degree > 3 || 3 * (sh_count(s.sh_degree) - 1) > c.shN_stride)
    throw nb::value_error("sh_degree exceeds the coefficients stored");
  c.means = p.means.data(), c.quats = p.quats.data(), c.log_scales = p.log_scales.data();
  c.opacity_logits = p.opacity_logits.data(), c.sh0 = p.sh0.data(), c.shN = p.shN.data();
  for (int i = 0; i < 3; i++) c.background[i] = static_cast<T>(s.background[i]);
  c.with_extra = s.with_extra, c.absgrad = s.absgrad;
  if (!p.masks) return c;
  if (p.masks->size() != p.means.shape(0)) throw nb::value_error("masks: expected one number per Gaussian");
  if (s.with_extra) throw nb::value_error("masks: not with depth or normals");
  c.masks = p.masks->data();
  return c;
}

}  // namespace scene3d
