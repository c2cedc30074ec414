// The CUDA devices of this machine.
#pragma once
#include <string>

namespace scene3d {
namespace gpu {

// 0 where there is none, or no driver.
int device_count();
// Makes a device the current one of this thread.
void select_device(int index);
// Name, compute capability and number of multiprocessors.
std::string describe_device(int index);

}  // namespace gpu
}  // namespace scene3d
