// Array types of the CUDA bindings: dtype, order and device are fixed; nothing is converted.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace scene3d {
namespace gpu {

#if defined(S3D_EMULATE)
using Device = nb::device::cpu;
#else
using Device = nb::device::cuda;
#endif

template <class T, class... Shape>
using Array = nb::ndarray<T, Shape..., nb::c_contig, Device>;

using StreamNumber = uintptr_t;

void bind_raster(nb::module_& m);
void bind_steps(nb::module_& m);
void bind_descent(nb::module_& m);
void bind_field(nb::module_& m);
void bind_surfels(nb::module_& m);

}  // namespace gpu
}  // namespace scene3d
