#include "gpu/device.h"

#include "gpu/platform.h"

namespace scene3d {
namespace gpu {

#if !defined(S3D_EMULATE)

int device_count() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

void select_device(int index) { check(cudaSetDevice(index), "select device"); }

std::string describe_device(int index) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "properties of device");
  return std::string(properties.name) + ", sm_" + std::to_string(10 * properties.major + properties.minor) + ", " +
         std::to_string(properties.multiProcessorCount) + " multiprocessors";
}

#else

int device_count() { return 0; }
void select_device(int) {}
std::string describe_device(int) { return "host emulation"; }

#endif

}  // namespace gpu
}  // namespace scene3d
