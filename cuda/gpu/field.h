// Rays through a radiance field of planes, lines or leaves (cuda/cpu/field.h says how they are stored): sampling, density,
// compositing and features of colour in one kernel, and the way back in another. The network behind is torch's.
//
// A warp is a ray. Its halves take two samples at a time for density, sixteen ranks a half; for features of colour and
// for gradients all lanes take the ranks of one sample, so that a node's ranks are read and added to side by side. The
// way back walks again, front to back, with the gradient-weighted colour that is still to come: no sample is stored.
#pragma once
#include "gpu/platform.h"
#include "math/field_leaves.h"
#include "math/field_walk.h"

namespace scene3d {
namespace gpu {

constexpr int kFieldSets = 2, kFieldSlabs = 6, kRankLanes = 16;
constexpr int kMaxFeatures = 1024;

enum class FieldKind { vm, cp, trivec };

struct FieldArgs {
  FieldKind kind;
  int n_modes;   // products that are summed: 3 of VM, 1 of CP, levels of tri-vectors
  int n[3];      // nodes along x y z; of grids
  LeafLevel levels[kMaxLevels];
  int rank[kFieldSets];
  int n_features;
  float low[3], high[3];
  float step, density_scale, density_shift, near, far, min_weight, min_transmittance;
  OccupancyBits occupancy;
  const float* values[kFieldSets][kFieldSlabs];
  float* grads[kFieldSets][kFieldSlabs];  // added to, in no fixed order
};

struct FieldRays {
  const float *origins, *directions;  // [n, 3]
  const float* jitter;                // [n], null: one half
  int64_t n;
};

template <class T>
struct FieldSums {
  T* features;            // [n, n_features]
  T *opacity, *distance;  // [n]
};

void march_field(const FieldArgs& field, const FieldRays& rays, const FieldSums<float>& out, Stream stream);

// v: gradients of `out`, which march_field wrote.
void march_field_backward(const FieldArgs& field, const FieldRays& rays, const FieldSums<const float>& out,
                          const FieldSums<const float>& v, Stream stream);

}  // namespace gpu
}  // namespace scene3d
