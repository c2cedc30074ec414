#include "gpu/field.h"

#include <stdexcept>

#include "gpu/field_cell.h"
#include "gpu/sort.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kFieldThreads = 128, kRaysOfBlock = kFieldThreads / 32;

// One rank of a mode: a plane's four values around a cell and the two of the line across it.
struct VmRank {
  float weights[4], f, plane, line;
  int64_t at_plane[4], at_line[2], row_of_plane;
  int row_of_line;
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
  v.row_of_plane = static_cast<int64_t>(along_b.i) * n_a + along_a.i, v.row_of_line = across.i;
  v.at_plane[0] = v.row_of_plane * rank + r;
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
  int row[3];
};

__device__ inline LineRank line_rank(const FieldArgs& field, const FieldCell& cell, int set, int, int r) {
  LineRank v;
  v.weight = 1.f;
#pragma unroll
  for (int a = 0; a < 3; a++) {
    const float* const line = field.values[set][a];
    v.f[a] = cell.axis[a].f, v.row[a] = cell.axis[a].i, v.at[a] = static_cast<int64_t>(v.row[a]) * field.rank[set] + r;
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
    v.f[a] = place.f[a], v.row[a] = place.row[a], v.at[a] = static_cast<int64_t>(place.row[a]) * field.rank[set] + r;
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

// Notes that a cell of a slab was reached, for sixteen ranks from r on.
__device__ inline void mark(const FieldArgs& field, int set, int slab, int r, int64_t row) {
  uint8_t* const touched = field.touched[set][slab];
  if (touched && r % kRankLanes == 0) touched[(r / kRankLanes) * field.n_rows[slab] + row] = 1;
}

// Adds the gradient v of that product to planes and lines.
template <FieldKind KIND>
__device__ inline void add_gradient(const FieldArgs& field, const FieldCell& cell, int set, int k, float v) {
  const int rank = field.rank[set], mode = k / rank, r = k % rank;
  if constexpr (KIND == FieldKind::vm) {
    const VmRank p = vm_rank(field, cell, set, mode, r);
#pragma unroll
    for (int i = 0; i < 4; i++) atomicAdd(&field.grads[set][mode][p.at_plane[i]], v * p.line * p.weights[i]);
    atomicAdd(&field.grads[set][3 + mode][p.at_line[0]], v * p.plane * (1.f - p.f));
    atomicAdd(&field.grads[set][3 + mode][p.at_line[1]], v * p.plane * p.f);
    mark(field, set, mode, r, p.row_of_plane), mark(field, set, 3 + mode, r, p.row_of_line);
  } else {
    const LineRank p = line_rank(field, cell, set, mode, r);
    const float v_line[3] = {v * p.line[1] * p.line[2], v * p.line[0] * p.line[2], v * p.line[0] * p.line[1]};
#pragma unroll
    for (int a = 0; a < 3; a++) {
      atomicAdd(&field.grads[set][a][p.at[a]], v_line[a] * (1.f - p.f[a]));
      atomicAdd(&field.grads[set][a][p.at[a] + rank], v_line[a] * p.f[a]);
      mark(field, set, a, r, p.row[a]);
    }
  }
}

// Leaves a sample for add_leaf_gradients, once for each level that has a leaf there.
__device__ inline void leave_record(const FieldArgs& field, const LeafCell& cell, const LeafRecords& records, int64_t ray,
                                    int64_t place, float t, float v_feature, float weight) {
  records.samples[place] = make_float4(__uint_as_float(static_cast<unsigned>(ray)), t, v_feature, weight);
  for (int l = 0; l < field.n_modes; l++) {
    const LeafPlace leaf = l ? cell.level[1] : cell.level[0];
    const int64_t at = l * records.n_samples + place;
    const bool has_gradient = leaf.weight > 0.f && (v_feature != 0.f || weight > 0.f);
    const uint32_t number = static_cast<uint32_t>(leaf.leaf + (l ? field.n_leaves[0] : 0));
    records.keys[at] = has_gradient ? number : 0xffffffffu;
    records.values[at] = static_cast<uint32_t>(at);
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

template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads) march_kernel(FieldArgs field, FieldRays rays, FieldSums<float> out, FieldTape tape) {
  __shared__ float sums[kRaysOfBlock][kMaxFeatures];
  const unsigned lane = threadIdx.x % 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kRaysOfBlock) + threadIdx.x / 32;
  if (i >= rays.n) return;  // whole warps
  float* const features = sums[threadIdx.x / 32];  // each lane reads and writes its own
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) features[k] = 0.f;
  const FieldRay<float> ray = load_ray(rays, i);
  Walk<float> walk(field, ray);
  float transmittance = 1.f, distance = 0.f, spread = 0.f;
  uint32_t count = 0;
  for (int n = 0; n < kMaxRaySamples && transmittance >= field.min_transmittance; n += 2) {
    const SamplePair pair = next_samples<KIND>(field, ray, walk, lane);
    for (int s = 0; s < pair.count && transmittance >= field.min_transmittance; s++, count++) {
      const float weight = transmittance * pair.alpha[s];
      // Twice the sum over those before of w_j (t_i - t_j); their weights are 1 - transmittance in all.
      spread += weight * (2.f * (pair.t[s] * (1.f - transmittance) - distance) + static_cast<float>(1.0 / 3) * field.step * weight);
      transmittance *= 1.f - pair.alpha[s];
      distance += weight * pair.t[s];
      if (!(weight > field.min_weight)) continue;
      const CellOf<KIND> cell = cell_at<KIND>(field, ray, pair.t[s]);
      for (int k = static_cast<int>(lane); k < field.n_features; k += 32) features[k] += weight * product_of<KIND>(field, cell, 1, k);
    }
    if (pair.count < 2) break;
  }
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) out.features[i * field.n_features + k] = features[k];
  if (lane > 0) return;
  out.opacity[i] = 1.f - transmittance, out.distance[i] = distance;
  if (tape.counts) tape.counts[i] = count;
  if (tape.distortion) tape.distortion[i] = spread;
}

// dL/dalpha = T gain - behind / (1 - alpha); 1 - alpha cancels on the way to the density.
template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads)
    march_backward_kernel(FieldArgs field, FieldRays rays, FieldSums<const float> out, FieldTape tape, FieldSums<const float> v, LeafRecords records) {
  const unsigned lane = threadIdx.x % 32;
  const int64_t i = blockIdx.x * static_cast<int64_t>(kRaysOfBlock) + threadIdx.x / 32;
  if (i >= rays.n) return;
  const float* const v_features = v.features + i * field.n_features;
  const float v_opacity = v.opacity[i], v_distance = v.distance[i], length = field.density_scale * field.step;
  float dot = 0.f;
  for (int k = static_cast<int>(lane); k < field.n_features; k += 32) dot += v_features[k] * out.features[i * field.n_features + k];
  float behind = warp_sum(dot) + v_opacity * out.opacity[i] + v_distance * out.distance[i], transmittance = 1.f;
  // The distortion is quadratic in the weights: twice itself is to come.
  const bool is_distorted = field.distortion > 0.f;
  if (is_distorted) behind += 2.f * field.distortion * tape.distortion[i];
  float ahead = out.opacity[i], moment_ahead = out.distance[i], passed = 0.f, moment_passed = 0.f;
  int64_t place = 0, end = 0;
  if constexpr (KIND == FieldKind::trivec) place = records.offsets[i], end = place + tape.counts[i];
  const FieldRay<float> ray = load_ray(rays, i);
  Walk<float> walk(field, ray);
  for (int n = 0; n < kMaxRaySamples && transmittance >= field.min_transmittance; n += 2) {
    const SamplePair pair = next_samples<KIND>(field, ray, walk, lane);
    for (int s = 0; s < pair.count && transmittance >= field.min_transmittance; s++) {
      const float alpha = pair.alpha[s], weight = transmittance * alpha;
      const CellOf<KIND> cell = cell_at<KIND>(field, ray, pair.t[s]);
      float gain = v_opacity + v_distance * pair.t[s];
      if (is_distorted) {
        const float t = pair.t[s];
        ahead -= weight, moment_ahead -= weight * t;
        const float spread = t * passed - moment_passed + moment_ahead - t * ahead;
        passed += weight, moment_passed += weight * t;
        gain += field.distortion * (2.f * spread + static_cast<float>(2.0 / 3) * field.step * weight);
      }
      const bool has_color = weight > field.min_weight;
      if (has_color) {
        float sum = 0.f;
        for (int k = static_cast<int>(lane); k < field.n_features; k += 32) {
          sum += v_features[k] * product_of<KIND>(field, cell, 1, k);
          if constexpr (KIND != FieldKind::trivec) add_gradient<KIND>(field, cell, 1, k, weight * v_features[k]);
        }
        gain += warp_sum(sum);
      }
      behind -= weight * gain;
      const float v_density = length * ((1.f - alpha) * transmittance * gain - behind);
      const float v_feature = v_density * sigmoid(pair.feature[s] + field.density_shift);
      if constexpr (KIND == FieldKind::trivec) {
        if (lane == 0 && place < end) leave_record(field, cell, records, i, place, pair.t[s], v_feature, has_color ? weight : 0.f);
        place++;
      } else {
        for (int k = static_cast<int>(lane); v_feature != 0.f && k < field.n_modes * field.rank[0]; k += 32)
          add_gradient<KIND>(field, cell, 0, k, v_feature);
      }
      transmittance *= 1.f - alpha;
    }
    if (pair.count < 2) break;
  }
}

// Half a warp a point.
template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads) density_kernel(FieldArgs field, const float* points, int64_t n, float* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kFieldThreads / kRankLanes) + threadIdx.x / kRankLanes;
  const int64_t held = i < n ? i : n - 1;
  const FieldRay<float> ray = {{points[3 * held], points[3 * held + 1], points[3 * held + 2]}, {0.f, 0.f, 0.f}, 0.f};
  const CellOf<KIND> cell = cell_at<KIND>(field, ray, 0.f);
  float sum = 0.f;
  for (int k = static_cast<int>(threadIdx.x % kRankLanes); k < field.n_modes * field.rank[0]; k += kRankLanes)
    sum += product_of<KIND>(field, cell, 0, k);
#pragma unroll
  for (int step = kRankLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (i < n && threadIdx.x % kRankLanes == 0) out[i] = sum;
}

// A warp a point.
template <FieldKind KIND>
__global__ void __launch_bounds__(kFieldThreads) color_kernel(FieldArgs field, const float* points, int64_t n, float* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kRaysOfBlock) + threadIdx.x / 32;
  if (i >= n) return;
  const FieldRay<float> ray = {{points[3 * i], points[3 * i + 1], points[3 * i + 2]}, {0.f, 0.f, 0.f}, 0.f};
  const CellOf<KIND> cell = cell_at<KIND>(field, ray, 0.f);
  for (int k = static_cast<int>(threadIdx.x % 32); k < field.n_features; k += 32)
    out[i * field.n_features + k] = product_of<KIND>(field, cell, 1, k);
}

__global__ void __launch_bounds__(kFieldThreads) hits_kernel(FieldArgs field, FieldRays rays, uint8_t* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kFieldThreads) + threadIdx.x;
  if (i >= rays.n) return;
  Walk<float> walk(field, load_ray(rays, i));
  float t;
  out[i] = walk.next(field.occupancy, &t);
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

// Room for the records of all samples; none is one yet.
LeafRecords take_records(const FieldRays& rays, const FieldTape& tape, int64_t n_levels, int64_t n_samples, const Memory& memory, Stream stream) {
  if (n_samples * n_levels >= INT64_C(0x7fffffff) || rays.n >= INT64_C(0x7fffffff))
    throw std::invalid_argument("rays: expected fewer than 2^31 samples in leaves at once. March fewer rays");
  uint32_t* const offsets = memory.take<uint32_t>(rays.n, false);
  copy_on_device(offsets, tape.counts, 4 * rays.n, stream);
  exclusive_sum(offsets, rays.n, memory, stream);
  const int64_t n = n_levels * n_samples;
  const LeafRecords records = {offsets, memory.take<uint32_t>(n, false), memory.take<uint32_t>(n, false), memory.take<float4>(n_samples, false), n_samples};
  set_ones(records.keys, 4 * n, stream);
  set_zero(records.values, 4 * n, stream);
  return records;
}

// Sorts the records by leaf and adds what they hold.
void add_records(const FieldArgs& field, const FieldRays& rays, const LeafRecords& records, const float* v_features,
                 const Memory& memory, Stream stream) {
  const int64_t n = field.n_modes * records.n_samples;
  LeafRecords sorted = records;
  sorted.keys = memory.take<uint32_t>(n, false), sorted.values = memory.take<uint32_t>(n, false);
  const uint32_t n_leaves = static_cast<uint32_t>(field.n_leaves[0] + field.n_leaves[1]);
  sort_pairs(records.keys, sorted.keys, records.values, sorted.values, n, tile_key_bits(n_leaves), memory, stream);
  add_leaf_gradients(field, rays, sorted, v_features, stream);
}

}  // namespace

void march_field(const FieldArgs& field, const FieldRays& rays, const FieldSums<float>& out, const FieldTape& tape, Stream stream) {
  check_field(field);
  if (rays.n == 0) return;
  with_kind(field.kind, [&](auto kind) {
    S3D_LAUNCH((march_kernel<decltype(kind)::value>), blocks_for(rays.n, kRaysOfBlock), kFieldThreads, stream, field, rays, out, tape);
  });
}

void march_field_backward(const FieldArgs& field, const FieldRays& rays, const FieldSums<const float>& out, const FieldTape& tape,
                          int64_t n_samples, const FieldSums<const float>& v, const Memory& memory, Stream stream) {
  check_field(field);
  if (rays.n == 0 || n_samples == 0) return;
  const bool has_leaves = field.kind == FieldKind::trivec;
  LeafRecords records = {};
  if (has_leaves) records = take_records(rays, tape, field.n_modes, n_samples, memory, stream);
  with_kind(field.kind, [&](auto kind) {
    S3D_LAUNCH((march_backward_kernel<decltype(kind)::value>), blocks_for(rays.n, kRaysOfBlock), kFieldThreads, stream, field, rays, out, tape, v, records);
  });
  if (has_leaves) add_records(field, rays, records, v.features, memory, stream);
}

void look_up_field(const FieldArgs& field, const float* points, int64_t n, bool colors, float* out, Stream stream) {
  if (n == 0) return;
  with_kind(field.kind, [&](auto kind) {
    if (colors) S3D_LAUNCH((color_kernel<decltype(kind)::value>), blocks_for(n, kRaysOfBlock), kFieldThreads, stream, field, points, n, out);
    else S3D_LAUNCH((density_kernel<decltype(kind)::value>), blocks_for(n, kFieldThreads / kRankLanes), kFieldThreads, stream, field, points, n, out);
  });
}

void find_field_hits(const FieldArgs& field, const FieldRays& rays, uint8_t* out, Stream stream) {
  if (rays.n > 0) S3D_LAUNCH(hits_kernel, blocks_for(rays.n, kFieldThreads), kFieldThreads, stream, field, rays, out);
}

}  // namespace gpu
}  // namespace scene3d
