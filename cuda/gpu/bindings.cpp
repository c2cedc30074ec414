// Module scene3d._cuda: conversions only. With S3D_EMULATE the module scene3d._cuda_emulated, for tests: the same kernels
// on the host, on tensors of the CPU.
#include "gpu/bindings.h"

#include <nanobind/stl/string.h>

#include "gpu/device.h"
#include "gpu/platform.h"
#include "gpu/probe.h"

#if defined(S3D_EMULATE)
#define S3D_MODULE _cuda_emulated
#else
#define S3D_MODULE _cuda
#endif

NB_MODULE(S3D_MODULE, m) {
  using namespace scene3d::gpu;
  nb::set_leak_warnings(false);  // objects alive at interpreter exit are no leaks
  m.doc() = "CUDA kernels of scene3d. Private: call them through scene3d.render and scene3d.ops.";
  m.def("device_count", &device_count);
  m.def("select_device", &select_device);
  m.def("describe_device", &describe_device);
#if defined(S3D_EMULATE)
  m.attr("DEVICE_TYPE") = "cpu";
  m.def("set_schedule", &scene3d::emulation::set_schedule);
  m.def("probe_sum", [](Array<const float, nb::shape<32, -1>> values, Array<float, nb::ndim<1>> sums) {
    if (sums.size() != values.shape(1) || !probe_sum(static_cast<int>(sums.size()), values.data(), sums.data()))
      throw nb::value_error("values: expected 1 to 20 columns, and as many sums");
  });
  m.def("probe_neighbors", [](bool has_barrier, Array<const float, nb::shape<64>> values, Array<float, nb::shape<64>> out) {
    probe_neighbors(has_barrier, values.data(), out.data());
  });
  m.def("probe_fault", &probe_fault);
#else
  m.attr("DEVICE_TYPE") = "cuda";
#endif
  bind_raster(m);
  bind_steps(m);
  bind_descent(m);
  bind_field(m);
  bind_surfels(m);
}
