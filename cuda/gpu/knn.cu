#include "gpu/knn.h"

#include <cfloat>
#include <stdexcept>

#include "gpu/sort.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kFan = 8;        // points of a leaf, children of a box
constexpr int kMaxLevels = 11;  // 8^11 = 2^33 points
constexpr int kMortonBits = 30;

struct Box {
  float low[3], high[3];
};

struct Tree {
  const float4* points;    // x, y, z and the bits of the index, along the curve
  const Box* boxes[kMaxLevels];
  int64_t n_boxes[kMaxLevels];
  int64_t n_points;
  int n_levels;
};

__device__ inline uint32_t spread_bits(uint32_t x) {  // ten bits, two zeros between neighbours
  x = (x | x << 16) & 0x030000ff;
  x = (x | x << 8) & 0x0300f00f;
  x = (x | x << 4) & 0x030c30c3;
  return (x | x << 2) & 0x09249249;
}

struct Curve {
  float low[3], inv_size;
};

__global__ void curve_kernel(const float* points, int64_t n, Curve curve, uint32_t* keys, uint32_t* ids) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  uint32_t key = 0;
  for (int axis = 0; axis < 3; axis++) {
    const float cell = (points[3 * i + axis] - curve.low[axis]) * curve.inv_size * 1023.f;
    key |= spread_bits(static_cast<uint32_t>(held(0.f, cell, 1023.f))) << axis;
  }
  keys[i] = key, ids[i] = static_cast<uint32_t>(i);
}

__global__ void gather_kernel(const float* points, const uint32_t* order, int64_t n, float4* sorted) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n) return;
  const float* const p = points + 3 * static_cast<int64_t>(order[i]);
  sorted[i] = make_float4(p[0], p[1], p[2], __uint_as_float(order[i]));
}

// Boxes of kFan points (level 0) or of kFan boxes of the level below.
__global__ void box_kernel(Tree tree, int level, Box* boxes) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= tree.n_boxes[level]) return;
  Box box = {{FLT_MAX, FLT_MAX, FLT_MAX}, {-FLT_MAX, -FLT_MAX, -FLT_MAX}};
  const int64_t below = level ? tree.n_boxes[level - 1] : tree.n_points;
  for (int64_t k = kFan * i; k < kFan * (i + 1) && k < below; k++) {
    const float4 p = level ? float4{} : tree.points[k];
    const float point[3] = {p.x, p.y, p.z};
    for (int axis = 0; axis < 3; axis++) {
      box.low[axis] = least(box.low[axis], level ? tree.boxes[level - 1][k].low[axis] : point[axis]);
      box.high[axis] = most(box.high[axis], level ? tree.boxes[level - 1][k].high[axis] : point[axis]);
    }
  }
  boxes[i] = box;
}

// The same operations for boxes and points, so that no box is farther than the points in it.
__device__ inline float square_length(float dx, float dy, float dz) { return fmaf(dx, dx, fmaf(dy, dy, dz * dz)); }

__device__ inline float gap(float low, float high, float x) { return most(0.f, most(low - x, x - high)); }

__device__ inline float square_to_box(const Box& box, const float* q) {
  return square_length(gap(box.low[0], box.high[0], q[0]), gap(box.low[1], box.high[1], q[1]), gap(box.low[2], box.high[2], q[2]));
}

// The K nearest so far, sorted by (distance, index).
template <int K>
struct Best {
  float squares[K];
  uint32_t ids[K];

  __device__ void offer(float square, uint32_t id) {
    if (!comes_before(square, id, K - 1)) return;
#pragma unroll
    for (int i = K - 1; i >= 0; i--) {
      if (i > 0 && comes_before(square, id, i - 1)) squares[i] = squares[i - 1], ids[i] = ids[i - 1];
      else if (comes_before(square, id, i)) squares[i] = square, ids[i] = id;
    }
  }

  __device__ bool comes_before(float square, uint32_t id, int i) const {
    return square < squares[i] || (square == squares[i] && id < ids[i]);
  }
};

template <int K>
__device__ inline void offer_leaf(const Tree& tree, int64_t leaf, const float* q, Best<K>& best) {
  for (int64_t k = kFan * leaf; k < kFan * (leaf + 1) && k < tree.n_points; k++) {
    const float4 p = tree.points[k];
    best.offer(square_length(p.x - q[0], p.y - q[1], p.z - q[2]), __float_as_uint(p.w));
  }
}

// Depth first. Of a box's children those that may hold something nearer are kept, as bits; the nearest goes first.
template <int K>
__device__ inline void search(const Tree& tree, const float* q, Best<K>& best) {
  unsigned rest[kMaxLevels + 1];   // children not yet visited of the box at each level; level of points' boxes is 0
  int64_t parent[kMaxLevels + 1];
  int level = tree.n_levels;  // of the parent: a virtual root above all boxes
  parent[level] = 0, rest[level] = (1u << tree.n_boxes[level - 1]) - 1;
  while (level <= tree.n_levels) {
    int64_t nearest = -1;
    float least_square = 0.f;
    unsigned kept = 0;
    for (unsigned bits = rest[level]; bits; bits &= bits - 1) {
      const int64_t child = kFan * parent[level] + __ffs(static_cast<int>(bits)) - 1;
      const float square = square_to_box(tree.boxes[level - 1][child], q);
      if (square > best.squares[K - 1]) continue;
      kept |= bits & (0u - bits);
      if (nearest < 0 || square < least_square) nearest = child, least_square = square;
    }
    if (nearest < 0) {
      level++;
      continue;
    }
    rest[level] = kept & ~(1u << (nearest - kFan * parent[level]));
    if (level == 1) {
      offer_leaf(tree, nearest, q, best);
      continue;
    }
    level--;
    parent[level] = nearest;
    const int64_t n_left = tree.n_boxes[level - 1] - kFan * nearest;
    rest[level] = (1u << (n_left < kFan ? n_left : kFan)) - 1;
  }
}

template <int K>
__global__ void __launch_bounds__(kThreads)
    search_kernel(Tree tree, const float* queries, int64_t n_queries, int k, float* distances, int64_t* indices) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= n_queries) return;
  const float q[3] = {queries[3 * i], queries[3 * i + 1], queries[3 * i + 2]};
  Best<K> best;
  for (int j = 0; j < K; j++) best.squares[j] = INFINITY, best.ids[j] = 0xffffffffu;
  search(tree, q, best);
  for (int j = 0; j < k; j++) {
    distances[i * k + j] = sqrtf(best.squares[j]);
    indices[i * k + j] = best.ids[j] == 0xffffffffu ? -1 : static_cast<int64_t>(best.ids[j]);
  }
}

Tree make_tree(const float* points, int64_t n, const Curve& curve, const Memory& memory, Stream stream) {
  uint32_t* const keys = memory.take<uint32_t>(4 * n, false);
  uint32_t *const ids = keys + n, *const sorted_keys = keys + 2 * n, *const order = keys + 3 * n;
  S3D_LAUNCH(curve_kernel, blocks_for(n, kThreads), kThreads, stream, points, n, curve, keys, ids);
  sort_pairs(keys, sorted_keys, ids, order, n, kMortonBits, memory, stream);
  float4* const sorted = memory.take<float4>(n, false);
  S3D_LAUNCH(gather_kernel, blocks_for(n, kThreads), kThreads, stream, points, order, n, sorted);
  Tree tree = {};
  tree.points = sorted, tree.n_points = n;
  for (int64_t size = n; tree.n_levels == 0 || size > kFan; tree.n_levels++) {
    size = blocks_for(size, kFan);
    Box* const boxes = memory.take<Box>(size, false);
    tree.boxes[tree.n_levels] = boxes, tree.n_boxes[tree.n_levels] = size;
    S3D_LAUNCH(box_kernel, blocks_for(size, kThreads), kThreads, stream, tree, tree.n_levels, boxes);
  }
  return tree;
}

}  // namespace

void nearest_points(const float* points, int64_t n_points, const float* queries, int64_t n_queries, int k, const float* low,
                    float inv_size, float* distances, int64_t* indices, const Memory& memory, Stream stream) {
  if (k < 1 || k > kMaxNeighbors) throw std::invalid_argument("k: expected 1 to 32");
  if (n_points >= INT64_C(0xffffffff)) throw std::invalid_argument("points: expected fewer than 2^32");
  if (n_points == 0 || n_queries == 0) return;
  const Curve curve = {{low[0], low[1], low[2]}, inv_size};
  const Tree tree = make_tree(points, n_points, curve, memory, stream);
  const int64_t n_blocks = blocks_for(n_queries, kThreads);
  // Lists of more than are wanted would do no harm, but cost registers.
  if (k <= 4) S3D_LAUNCH((search_kernel<4>), n_blocks, kThreads, stream, tree, queries, n_queries, k, distances, indices);
  else S3D_LAUNCH((search_kernel<kMaxNeighbors>), n_blocks, kThreads, stream, tree, queries, n_queries, k, distances, indices);
  memory.release();
}

}  // namespace gpu
}  // namespace scene3d
