// Rays through a radiance field of planes, lines or leaves (cuda/cpu/field.h says how they are stored): sampling, density,
// compositing and features of colour in one kernel, and the way back in another. The network behind is torch's.
//
// A warp is a ray. Its halves take two samples at a time for density, sixteen ranks a half; for features of colour and
// for gradients all lanes take the ranks of one sample, so that a node's ranks are read and added to side by side. The
// way back walks again, front to back, with the gradient-weighted colour that is still to come: no sample is stored.
// Planes and lines get their gradients by atomics. Samples in leaves are sorted by their leaf first: a block takes a run
// of them and adds up a leaf's gradients in shared memory, a thread a rank, before any go to the device's memory.
#pragma once
#include "gpu/tile_state.h"
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
  uint8_t* touched[kFieldSets][kFieldSlabs];  // [rank / 16, n_rows]: cells reached, by their lowest node; null = unwanted
  int64_t n_rows[kFieldSlabs];
  int64_t n_leaves[kMaxLevels];
  float distortion;  // of the way back: weight of the spread of a ray's weights
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

// What forward keeps of rays for the way back; null = unwanted.
struct FieldTape {
  uint32_t* counts;   // [n], samples looked at
  float* distortion;  // [n], sum_ij w_i w_j |t_i - t_j| + step / 3 sum_i w_i^2 (Barron et al. 2022, equation 15)
};

void march_field(const FieldArgs& field, const FieldRays& rays, const FieldSums<float>& out, const FieldTape& tape, Stream stream);

// v: gradients of `out`, which march_field wrote with the tape; n_samples: sum of its counts.
void march_field_backward(const FieldArgs& field, const FieldRays& rays, const FieldSums<const float>& out, const FieldTape& tape,
                          int64_t n_samples, const FieldSums<const float>& v, const Memory& memory, Stream stream);

// Feature of density [n], or features of colour [n, n_features], at points [n, 3] in the box.
void look_up_field(const FieldArgs& field, const float* points, int64_t n, bool colors, float* out, Stream stream);

// Whether rays meet an occupied cell, [n].
void find_field_hits(const FieldArgs& field, const FieldRays& rays, uint8_t* out, Stream stream);

// Samples in leaves on their way back, n_levels rows of n_samples keys and values to sort.
struct LeafRecords {
  const uint32_t* offsets;  // [n_rays], first sample of a ray
  uint32_t* keys;           // number of the leaf, those of the second level after those of the first; all ones = none
  uint32_t* values;         // place among keys
  float4* samples;          // [n_samples]: bits of the ray's number, t, gradient of the density's feature, weight of colour
  int64_t n_samples;
};

// Adds the gradients of sorted records; see field_leaves.cu.
void add_leaf_gradients(const FieldArgs& field, const FieldRays& rays, const LeafRecords& sorted, const float* v_features,
                        Stream stream);

// Adam over the nodes of a factor that rays touched; gradients are cleared where they are used.
struct FieldAdamArray {
  float *values, *grads, *exp_avg, *exp_avg_sq;
  const uint8_t* touched;  // [rank / 16, n_rows]
  int64_t n_rows, width;   // width: nodes along the faster axis of a plane; n_rows for a line
  int rank;
  float l1;  // gradient of l1 |value|
};

struct FieldAdamRule {
  float step_size;  // lr / (1 - beta1^step)
  float beta1, beta2, root_correction, eps;
};

// n_bad: number on the device of gradients that are not finite, which count as 0; it is added to.
void field_adam_step(const std::vector<FieldAdamArray>& arrays, const FieldAdamRule& rule, unsigned int* n_bad, Stream stream);

}  // namespace gpu
}  // namespace scene3d
