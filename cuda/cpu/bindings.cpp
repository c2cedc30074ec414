// Module scene3d._cpu: conversions only. Each bind_* lives beside the code that it exposes.
#include "bindings.h"

#include "field_bindings.h"
#include "kernels.h"
#include "parallel.h"

NB_MODULE(_cpu, m) {
  nb::set_leak_warnings(false);  // objects alive at interpreter exit are no leaks
  m.doc() = "CPU kernels of scene3d. Private: call them through scene3d.render and scene3d.ops.";
  m.def("simd_level", [] { return scene3d::kernels().name; });
  m.def("simd_levels", [] {
    nb::list names;
    for (const char* const* name = scene3d::simd_levels(); *name; name++) names.append(*name);
    return names;
  });
  m.def("set_simd_level", &scene3d::set_simd_level);
  m.def("n_threads", &scene3d::thread_count);
  m.def("set_threads", &scene3d::set_thread_count);
  scene3d::bind_raster(m);
  scene3d::bind_loss(m);
  scene3d::bind_adam(m);
  scene3d::bind_descent(m);
  scene3d::bind_kmeans(m);
  scene3d::bind_knn(m);
  scene3d::bind_noise(m);
  scene3d::bind_mesh(m);
  scene3d::bind_delaunay(m);
  scene3d::bind_surface(m);
  scene3d::bind_stereo(m);
  scene3d::bind_grid_sort(m);
  scene3d::bind_field(m);
  scene3d::bind_field_decoder(m);
  scene3d::bind_field_image(m);
  scene3d::bind_octree(m);
  scene3d::bind_planes(m);
  scene3d::bind_rotations(m);
  scene3d::bind_symbols(m);
  scene3d::bind_refinement(m);
  scene3d::bind_morton_neighbors(m);
  scene3d::bind_simd_probe(m);
}
