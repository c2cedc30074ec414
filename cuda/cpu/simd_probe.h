// What every operation of simd.h gives, for tests.
#pragma once

namespace scene3d {

constexpr int kMaxProbes = 64;

}  // namespace scene3d
