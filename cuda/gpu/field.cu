#include "gpu/field.h"

#include <stdexcept>
#include <type_traits>

#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kFieldThreads = 128, kRaysOfBlock = kFieldThreads / 32;

// Where a sample lies: between nodes along each axis of a grid, or in the leaves of each level.
struct FieldCell {
  Place<float> axis[3];
};

struct LeafPlace {
  int row[3];  // of the lower node in the vectors of all leaves
  float f[3], weight;
};

struct LeafCell {
  LeafPlace level[kMaxLevels];
};

template <FieldKind KIND>
using CellOf = std::conditional_t<KIND == FieldKind::trivec, LeafCell, FieldCell>;

// The weight is the window; 0 where no leaf is.
__device__ inline LeafPlace leaf_at(const LeafLevel& level, const float* unit) {
  LeafPlace place = {};
  Place<float> cube[3];
  for (int a = 0; a < 3; a++) cube[a] = cube_of(level, a, unit[a]);
  const int leaf = level.leaves[(cube[2].i * level.cells[1] + cube[1].i) * level.cells[0] + cube[0].i];
  if (leaf < 0) return place;
  for (int a = 0; a < 3; a++) {
    const Place<float> at = place_of(cube[a].f * static_cast<float>(level.nodes - 1), level.nodes);
    place.row[a] = leaf * level.nodes + at.i, place.f[a] = at.f;
  }
  place.weight = leaf_window(cube[0].f, cube[1].f, cube[2].f);
  return place;
}

template <FieldKind KIND>
__device__ inline CellOf<KIND> cell_at(const FieldArgs& field, const FieldRay<float>& ray, float t) {
  CellOf<KIND> cell;
  if constexpr (KIND != FieldKind::trivec) {
    for (int a = 0; a < 3; a++) {
      const float scale = static_cast<float>(field.n[a] - 1) / (field.high[a] - field.low[a]);
      cell.axis[a] = place_of((ray.origin[a] - field.low[a] + ray.direction[a] * t) * scale, field.n[a]);
    }
  } else {
    float unit[3];
    for (int a = 0; a < 3; a++) unit[a] = (ray.origin[a] - field.low[a] + ray.direction[a] * t) * (1.f / (field.high[a] - field.low[a]));
    cell.level[0] = leaf_at(field.levels[0], unit), cell.level[1] = {};
    if (field.n_modes == 2) cell.level[1] = leaf_at(field.levels[1], unit);
    float &first = cell.level[0].weight, &second = cell.level[1].weight;
    if (field.n_modes == 2 && field.levels[1].is_shifted) {  // two covers of one field
      const float sum = first + second, scale = sum > 0.f ? 1.f / sum : 0.f;
      first *= scale, second *= scale;
    } else {
      first = first > 0.f ? 1.f : 0.f, second = second > 0.f ? 1.f : 0.f;
    }
  }
  return cell;
}

// One rank of a mode: a plane's four values around a cell and the two of the line across it.
struct VmRank {
  float weights[4], f, plane, line;
  int64_t at_plane[4], at_line[2];
};

// Modes are xy z, xz y, yz x.
__device__ inline VmRank vm_rank(const FieldArgs& field, const FieldCell& cell, int set, int mode, int r) {
  const int a = mode == 2 ? 1 : 0, b = mode == 0 ? 1 : 2, rank = field.rank[set];
  // Indices that are known only when it runs would put the cell into memory.
  const Place<float> along_a = a ? cell.axis[1] : cell.axis[0], along_b = b == 1 ? cell.axis[1] : cell.axis[2];
  const Place<float> across = mode == 0 ? cell.axis[2] : mode == 1 ? cell.axis[1] : cell.axis[0];
  const int n_a = a ? field.n[1] : field.n[0];
  VmRank v;
  corner_weights(along_a, along_b, v.weights);
  v.f = across.f;
  const int64_t row = static_cast<int64_t>(n_a) * rank;
  v.at_plane[0] = (static_cast<int64_t>(along_b.i) * n_a + along_a.i) * rank + r;
  v.at_plane[1] = v.at_plane[0] + rank, v.at_plane[2] = v.at_plane[0] + row, v.at_plane[3] = v.at_plane[0] + row + rank;
  v.at_line[0] = static_cast<int64_t>(across.i) * rank + r, v.at_line[1] = v.at_line[0] + rank;
  const float *const plane = field.values[set][mode], *const line = field.values[set][3 + mode];
  v.plane = 0.f;
#pragma unroll
  for (int k = 0; k < 4; k++) v.plane += v.weights[k] * plane[v.at_plane[k]];
  v.line = line[v.at_line[0]] + v.f * (line[v.at_line[1]] - line[v.at_line[0]]);
  return v;
}

// One rank of three lines: of the grid (CP) or of a leaf.
struct LineRank {
  float f[3], line[3], weight;
  int64_t at[3];
};

__device__ inline LineRank line_rank(const FieldArgs& field, const FieldCell& cell, int set, int, int r) {
  LineRank v;
  v.weight = 1.f;
#pragma unroll
  for (int a = 0; a < 3; a++) {
    const float* const line = field.values[set][a];
    v.f[a] = cell.axis[a].f, v.at[a] = static_cast<int64_t>(cell.axis[a].i) * field.rank[set] + r;
    v.line[a] = line[v.at[a]] + v.f[a] * (line[v.at[a] + field.rank[set]] - line[v.at[a]]);
  }
  return v;
}

__device__ inline LineRank line_rank(const FieldArgs& field, const LeafCell& cell, int set, int mode, int r) {
  const LeafPlace place = mode ? cell.level[1] : cell.level[0];
  LineRank v = {};
  v.weight = place.weight;
  if (!(place.weight > 0.f)) return v;
#pragma unroll
  for (int a = 0; a < 3; a++) {
    const float* const line = field.values[set][3 * mode + a];
    v.f[a] = place.f[a], v.at[a] = static_cast<int64_t>(place.row[a]) * field.rank[set] + r;
    v.line[a] = line[v.at[a]] + v.f[a] * (line[v.at[a] + field.rank[set]] - line[v.at[a]]);
  }
  return v;
}

// Product of the factors of feature k: mode k / rank, rank k % rank.
template <FieldKind KIND>
__device__ inline float product_of(const FieldArgs& field, const CellOf<KIND>& cell, int set, int k) {
  const int mode = k / field.rank[set], r = k % field.rank[set];
  if constexpr (KIND == FieldKind::vm) {
    const VmRank v = vm_rank(field, cell, set, mode, r);
    return v.plane * v.line;
  } else {
    const LineRank v = line_rank(field, cell, set, mode, r);
    return v.weight * v.line[0] * v.line[1] * v.line[2];
  }
}

// Adds the gradient v of that product to the factors.
template <FieldKind KIND>
__device__ inline void add_gradient(const FieldArgs& field, const CellOf<KIND>& cell, int set, int k, float v) {
  const int rank = field.rank[set], mode = k / rank, r = k % rank;
  if constexpr (KIND == FieldKind::vm) {
    const VmRank p = vm_rank(field, cell, set, mode, r);
#pragma unroll
    for (int i = 0; i < 4; i++) atomicAdd(&field.grads[set][mode][p.at_plane[i]], v * p.line * p.weights[i]);
    atomicAdd(&field.grads[set][3 + mode][p.at_line[0]], v * p.plane * (1.f - p.f));
    atomicAdd(&field.grads[set][3 + mode][p.at_line[1]], v * p.plane * p.f);
  } else {
    const LineRank p = line_rank(field, cell, set, mode, r);
    if (!(p.weight > 0.f)) return;
    const float w = v * p.weight, v_line[3] = {w * p.line[1] * p.line[2], w * p.line[0] * p.line[2], w * p.line[0] * p.line[1]};
    const int first = KIND == FieldKind::trivec ? 3 * mode : 0;
#pragma unroll
    for (int a = 0; a < 3; a++) {
      atomicAdd(&field.grads[set][first + a][p.at[a]], v_line[a] * (1.f - p.f[a]));
      atomicAdd(&field.grads[set][first + a][p.at[a] + rank], v_line[a] * p.f[a]);
    }
  }
}

// The next two samples of a ray; the halves of the warp hold the feature of one each, and all lanes both alphas.
struct SamplePair {
  int count;
  float t[2], feature[2], alpha[2];
};

template <FieldKind KIND>
__device__ inline SamplePair next_samples(const FieldArgs& field, const FieldRay<float>& ray, Walk<float>& walk, unsigned lane) {
  SamplePair pair = {};
  if (walk.next(field.occupancy, &pair.t[0])) pair.count = walk.next(field.occupancy, &pair.t[1]) ? 2 : 1;
  if (pair.count == 0) return pair;
  const bool is_second = lane >= kRankLanes && pair.count == 2;
  const CellOf<KIND> cell = cell_at<KIND>(field, ray, is_second ? pair.t[1] : pair.t[0]);
  float sum = 0.f;
  for (int k = static_cast<int>(lane % kRankLanes); k < field.n_modes * field.rank[0]; k += kRankLanes)
    sum += product_of<KIND>(field, cell, 0, k);
#pragma unroll
  for (int step = kRankLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  const float other = __shfl_xor_sync(kAllLanes, sum, kRankLanes);
  const bool is_upper = lane >= kRankLanes;
  pair.feature[0] = is_upper ? other : sum, pair.feature[1] = is_upper ? sum : other;
  for (int i = 0; i < 2; i++)
    pair.alpha[i] = opacity_of(softplus(pair.feature[i] + field.density_shift), field.density_scale * field.step);
  return pair;
}

__device__ inline FieldRay<float> load_ray(const FieldRays& rays, int64_t i) {
  FieldRay<float> ray;
  for (int a = 0; a < 3; a++) ray.origin[a] = rays.origins[3 * i + a], ray.direction[a] = rays.directions[3 * i + a];
  ray.jitter = rays.jitter ? rays.jitter[i] : 0.5f;
  return ray;
}

template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads) march_kernel(FieldArgs field, FieldRays rays, FieldSums<float> out) {
  __shared__ float sums[kRaysOfBlock][kMaxFeatures];
  const unsigned lane = threadIdx.x % 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kRaysOfBlock) + threadIdx.x / 32;
  if (i >= rays.n) return;  // whole warps
  float* const features = sums[threadIdx.x / 32];  // each lane reads and writes its own
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) features[k] = 0.f;
  const FieldRay<float> ray = load_ray(rays, i);
  Walk<float> walk(field, ray);
  float transmittance = 1.f, distance = 0.f;
  for (int n = 0; n < kMaxRaySamples && transmittance >= field.min_transmittance; n += 2) {
    const SamplePair pair = next_samples<KIND>(field, ray, walk, lane);
    for (int s = 0; s < pair.count && transmittance >= field.min_transmittance; s++) {
      const float weight = transmittance * pair.alpha[s];
      transmittance *= 1.f - pair.alpha[s];
      distance += weight * pair.t[s];
      if (!(weight > field.min_weight)) continue;
      const CellOf<KIND> cell = cell_at<KIND>(field, ray, pair.t[s]);
      for (int k = static_cast<int>(lane); k < field.n_features; k += 32) features[k] += weight * product_of<KIND>(field, cell, 1, k);
    }
    if (pair.count < 2) break;
  }
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) out.features[i * field.n_features + k] = features[k];
  if (lane == 0) out.opacity[i] = 1.f - transmittance, out.distance[i] = distance;
}

// dL/dalpha = T gain - behind / (1 - alpha); 1 - alpha cancels on the way to the density.
template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads)
    march_backward_kernel(FieldArgs field, FieldRays rays, FieldSums<const float> out, FieldSums<const float> v) {
  const unsigned lane = threadIdx.x % 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kRaysOfBlock) + threadIdx.x / 32;
  if (i >= rays.n) return;
  const float* const v_features = v.features + i * field.n_features;
  const float v_opacity = v.opacity[i], v_distance = v.distance[i], length = field.density_scale * field.step;
  float dot = 0.f;
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) dot += v_features[k] * out.features[i * field.n_features + k];
  float behind = warp_sum(dot) + v_opacity * out.opacity[i] + v_distance * out.distance[i], transmittance = 1.f;
  const FieldRay<float> ray = load_ray(rays, i);
  Walk<float> walk(field, ray);
  for (int n = 0; n < kMaxRaySamples && transmittance >= field.min_transmittance; n += 2) {
    const SamplePair pair = next_samples<KIND>(field, ray, walk, lane);
    for (int s = 0; s < pair.count && transmittance >= field.min_transmittance; s++) {
      const float alpha = pair.alpha[s], weight = transmittance * alpha;
      const CellOf<KIND> cell = cell_at<KIND>(field, ray, pair.t[s]);
      float gain = v_opacity + v_distance * pair.t[s];
      if (weight > field.min_weight) {
        float sum = 0.f;
        for (int k = static_cast<int>(lane); k < field.n_features; k += 32) {
          sum += v_features[k] * product_of<KIND>(field, cell, 1, k);
          add_gradient<KIND>(field, cell, 1, k, weight * v_features[k]);
        }
        gain += warp_sum(sum);
      }
      behind -= weight * gain;
      const float v_density = length * ((1.f - alpha) * transmittance * gain - behind);
      const float v_feature = v_density * sigmoid(pair.feature[s] + field.density_shift);
      for (int k = static_cast<int>(lane); v_feature != 0.f && k < field.n_modes * field.rank[0]; k += 32)
        add_gradient<KIND>(field, cell, 0, k, v_feature);
      transmittance *= 1.f - alpha;
    }
    if (pair.count < 2) break;
  }
}

void check_field(const FieldArgs& field) {
  if (field.n_features > kMaxFeatures) throw std::invalid_argument("features: expected at most " + std::to_string(kMaxFeatures));
}

// Calls f with the kind as a compile-time value.
template <class F>
void with_kind(FieldKind kind, F f) {
  if (kind == FieldKind::vm) return f(std::integral_constant<FieldKind, FieldKind::vm>());
  if (kind == FieldKind::cp) return f(std::integral_constant<FieldKind, FieldKind::cp>());
  f(std::integral_constant<FieldKind, FieldKind::trivec>());
}

}  // namespace

void march_field(const FieldArgs& field, const FieldRays& rays, const FieldSums<float>& out, Stream stream) {
  check_field(field);
  if (rays.n == 0) return;
  with_kind(field.kind, [&](auto kind) {
    S3D_LAUNCH((march_kernel<decltype(kind)::value>), blocks_for(rays.n, kRaysOfBlock), kFieldThreads, stream, field, rays, out);
  });
}

void march_field_backward(const FieldArgs& field, const FieldRays& rays, const FieldSums<const float>& out,
                          const FieldSums<const float>& v, Stream stream) {
  check_field(field);
  if (rays.n == 0) return;
  with_kind(field.kind, [&](auto kind) {
    S3D_LAUNCH((march_backward_kernel<decltype(kind)::value>), blocks_for(rays.n, kRaysOfBlock), kFieldThreads, stream, field, rays, out, v);
  });
}

}  // namespace gpu
}  // namespace scene3d
