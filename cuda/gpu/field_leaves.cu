// Gradients of leaves from samples sorted by leaf. A block takes a run of samples; a thread owns one rank of the leaf that
// the run is in and adds to its column in shared memory, without atomics; the column goes to the device's memory when
// the run leaves the leaf: at most one atomic per number of a leaf and run, not six per rank and sample.
#include <stdexcept>
#include <string>

#include "gpu/field_cell.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kLeafThreads = 64, kRunSamples = 256;
// Numbers of a leaf in shared memory; of wider or longer leaves a block takes some ranks.
constexpr int kLeafFloats = 5120;
constexpr uint32_t kNoLeaf = 0xffffffffu;

// A sample of a run, staged by one thread for all.
struct StagedSample {
  int64_t ray;
  uint32_t key;
  int level, row[3];
  float f[3], window, v_feature, weight;
};

__device__ inline StagedSample stage(const FieldArgs& field, const FieldRays& rays, const LeafRecords& sorted, int64_t at) {
  StagedSample s;
  s.key = sorted.keys[at];
  if (s.key == kNoLeaf) return s;
  const uint32_t value = sorted.values[at];
  s.level = value >= sorted.n_samples ? 1 : 0;
  const float4 sample = sorted.samples[value - s.level * sorted.n_samples];
  s.ray = static_cast<int64_t>(__float_as_uint(sample.x)), s.v_feature = sample.z, s.weight = sample.w;
  const LeafCell cell = cell_at<FieldKind::trivec>(field, load_ray(rays, s.ray), sample.y);
  const LeafPlace place = s.level ? cell.level[1] : cell.level[0];
  for (int a = 0; a < 3; a++) s.row[a] = place.row[a], s.f[a] = place.f[a];
  s.window = place.weight;
  return s;
}

// The rank that a thread owns: of density, then of colour; set < 0: none.
struct Column {
  int set, r, rank;
};

__device__ inline Column column_of(const FieldArgs& field, int rank) {
  if (rank < field.rank[0]) return {0, rank, field.rank[0]};
  if (rank < field.rank[0] + field.rank[1]) return {1, rank - field.rank[0], field.rank[1]};
  return {-1, 0, 1};
}

struct Slice {
  int width;  // ranks of a block, a multiple of 16
  int n;      // slices of all ranks
};

__device__ inline void flush(const FieldArgs& field, const Column& column, uint32_t key, int level, float* sums, int stride) {
  const int nodes = level ? field.levels[1].nodes : field.levels[0].nodes;
  const int64_t leaf = static_cast<int64_t>(key) - (level ? field.n_leaves[0] : 0);
  for (int a = 0; a < 3; a++)
    for (int node = 0; node < nodes; node++) {
      float& sum = sums[(a * nodes + node) * stride];
      if (sum != 0.f) atomicAdd(&field.grads[column.set][3 * level + a][(leaf * nodes + node) * column.rank + column.r], sum);
      sum = 0.f;
    }
}

__device__ inline void add_sample(const FieldArgs& field, const StagedSample& s, const Column& column, const float* v_features,
                                  float* sums, int stride) {
  const float amount = column.set == 1 ? s.weight : s.v_feature;
  if (amount == 0.f) return;
  float v = s.window * amount;
  if (column.set == 1) v *= v_features[s.ray * field.n_features + s.level * column.rank + column.r];
  const int nodes = s.level ? field.levels[1].nodes : field.levels[0].nodes;
  float line[3];
  for (int a = 0; a < 3; a++) {
    const float* const values = field.values[column.set][3 * s.level + a] + static_cast<int64_t>(s.row[a]) * column.rank + column.r;
    line[a] = values[0] + s.f[a] * (values[column.rank] - values[0]);
  }
  const float v_line[3] = {v * line[1] * line[2], v * line[0] * line[2], v * line[0] * line[1]};
  for (int a = 0; a < 3; a++) {
    float* const at = sums + (a * nodes + s.row[a] % nodes) * stride;
    at[0] += v_line[a] * (1.f - s.f[a]);
    at[stride] += v_line[a] * s.f[a];
    uint8_t* const touched = field.touched[column.set][3 * s.level + a];
    if (touched && column.r % kRankLanes == 0) touched[(column.r / kRankLanes) * field.n_rows[3 * s.level + a] + s.row[a]] = 1;
  }
}

__global__ void __launch_bounds__(kLeafThreads)
    leaf_gradient_kernel(FieldArgs field, FieldRays rays, LeafRecords sorted, int64_t n, Slice slice, const float* v_features) {
  __shared__ float all_sums[kLeafFloats];
  __shared__ StagedSample staged[kLeafThreads];
  const int thread = static_cast<int>(threadIdx.x), first_rank = static_cast<int>(blockIdx.x % slice.n) * slice.width;
  const int64_t begin = blockIdx.x / slice.n * static_cast<int64_t>(kRunSamples);
  const int64_t end = begin + kRunSamples < n ? begin + kRunSamples : n;
  for (int k = thread; k < kLeafFloats; k += kLeafThreads) all_sums[k] = 0.f;
  for (int64_t some = begin; some < end; some += kLeafThreads) {
    const int count = end - some < kLeafThreads ? static_cast<int>(end - some) : kLeafThreads;
    __syncthreads();
    if (thread < count) staged[thread] = stage(field, rays, sorted, some + thread);
    __syncthreads();
    for (int c = thread; c < slice.width; c += kLeafThreads) {
      const Column column = column_of(field, first_rank + c);
      if (column.set < 0) continue;
      for (int k = 0; k < count && staged[k].key != kNoLeaf; k++) {  // sorted: nothing follows those of no leaf
        add_sample(field, staged[k], column, v_features, all_sums + c, slice.width);
        const int64_t next = some + k + 1;
        if (next == end || sorted.keys[next] != staged[k].key) flush(field, column, staged[k].key, staged[k].level, all_sums + c, slice.width);
      }
    }
  }
}

}  // namespace

void add_leaf_gradients(const FieldArgs& field, const FieldRays& rays, const LeafRecords& sorted, const float* v_features,
                        Stream stream) {
  int nodes = field.levels[0].nodes;
  if (field.n_modes == 2 && field.levels[1].nodes > nodes) nodes = field.levels[1].nodes;
  const int n_ranks = field.rank[0] + field.rank[1], most = kLeafFloats / (3 * nodes) / kRankLanes * kRankLanes;
  if (most < kRankLanes) throw std::invalid_argument("leaves: expected at most " + std::to_string(kLeafFloats / (3 * kRankLanes)) + " nodes");
  const Slice slice = {n_ranks < most ? n_ranks : most, (n_ranks + most - 1) / most};
  const int64_t n = field.n_modes * sorted.n_samples, n_blocks = blocks_for(n, kRunSamples) * slice.n;
  if (n > 0) S3D_LAUNCH(leaf_gradient_kernel, n_blocks, kLeafThreads, stream, field, rays, sorted, n, slice, v_features);
}

}  // namespace gpu
}  // namespace scene3d
