// Array types of the bindings: dtype, shape, order and device are fixed; nothing is converted.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace scene3d {

template <class T, class... Shape>
using Array = nb::ndarray<T, Shape..., nb::c_contig, nb::device::cpu>;

void bind_raster(nb::module_& m);
void bind_loss(nb::module_& m);
void bind_adam(nb::module_& m);
void bind_descent(nb::module_& m);
void bind_kmeans(nb::module_& m);
void bind_knn(nb::module_& m);
void bind_noise(nb::module_& m);
void bind_mesh(nb::module_& m);
void bind_delaunay(nb::module_& m);
void bind_surface(nb::module_& m);
void bind_stereo(nb::module_& m);
void bind_grid_sort(nb::module_& m);
void bind_octree(nb::module_& m);
void bind_planes(nb::module_& m);
void bind_rotations(nb::module_& m);
void bind_symbols(nb::module_& m);
void bind_refinement(nb::module_& m);
void bind_morton_neighbors(nb::module_& m);
void bind_simd_probe(nb::module_& m);

}  // namespace scene3d
