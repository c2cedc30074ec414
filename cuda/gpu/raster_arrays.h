// What bindings of the rasterizer and of the fit take: arrays that are never converted, and the settings of a call.
#pragma once
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpu/bindings.h"
#include "gpu/raster.h"
#include "math/sh.h"

namespace scene3d {
namespace gpu {

using Input = Array<const float>;

// The view and settings of a call, built once in Python and used by forward and backward.
struct CallSettings {
  double viewmat[16], K[9];
  int width, height, sh_degree;
  double near_z, far_z, eps2d;
  double background[3];
  bool antialiased, with_extra, absgrad;
  RasterOptions options;
};

inline void expect_size(size_t found, size_t expected, const char* name) {
  if (found == expected) return;
  throw nb::value_error((std::string(name) + ": expected " + std::to_string(expected) + " numbers, got " + std::to_string(found)).c_str());
}

// Factors on alpha, [n].
inline void set_masks(RasterCall<float>& call, const Input& masks) {
  expect_size(masks.size(), static_cast<size_t>(call.n), "masks");
  if (call.with_extra) throw nb::value_error("masks: not with depth or normals");
  call.masks = masks.data();
}

// params: means, quats, log_scales, opacity_logits, sh0, shN, and masks where there are any.
inline RasterCall<float> make_call(const CallSettings& s, const std::vector<Input>& params) {
  if (params.size() != 6 && params.size() != 7) throw nb::value_error("params: expected 6 arrays, or 7 with masks");
  const size_t n = params[0].shape(0), columns[5] = {3, 4, 3, 1, 3};
  for (size_t k = 0; k < 5; k++) expect_size(params[k].size(), n * columns[k], "params");
  RasterCall<float> c = {};
  c.view = make_view<float>(s.viewmat, s.K, s.width, s.height, s.near_z, s.far_z, s.eps2d, s.antialiased);
  c.width = s.width, c.height = s.height, c.sh_degree = s.sh_degree;
  c.n = static_cast<int64_t>(n);
  c.shN_stride = static_cast<int64_t>(3 * params[5].shape(1));
  if (s.sh_degree < 0 || s.sh_degree > 3 || 3 * (sh_count(s.sh_degree) - 1) > c.shN_stride)
    throw nb::value_error("sh_degree exceeds the coefficients stored");
  c.means = params[0].data(), c.quats = params[1].data(), c.log_scales = params[2].data();
  c.opacity_logits = params[3].data(), c.sh0 = params[4].data(), c.shN = params[5].data();
  for (int i = 0; i < 3; i++) c.background[i] = static_cast<float>(s.background[i]);
  c.with_extra = s.with_extra, c.absgrad = s.absgrad;
  if (params.size() == 7) set_masks(c, params[6]);
  return c;
}

[[noreturn]] inline void raise_memory_error(const std::length_error& error) {
  PyErr_SetString(PyExc_MemoryError, error.what());
  throw nb::python_error();
}

}  // namespace gpu
}  // namespace scene3d
