// Products of the three vectors of a leaf at a sample, and the way back to their values.
//
// The ranks of a node are a cache line or a few; the vectors of a leaf lie within some kilobytes, and a ray stays in a
// leaf for many samples. Places are found for sixteen samples at once, by loops that the compiler turns into vectors.
#include "cpu/field.h"
#include "cpu/field_lanes.h"
#include "cpu/simd_int.h"

namespace scene3d {
namespace S3D_NS {

// Up to sixteen samples in the leaves of one level: rows and fractions on the three vectors; weight 0: no leaf.
template <class T>
struct LeafPlaces {
  int32_t row[3][kLanes];
  T f[3][kLanes], weight[kLanes];
};

// nodes: places in the box, 0 to 1, of n samples, `stride` numbers from one to the next. The weight is the window.
template <class T>
static void find_leaves(const LeafLevel& level, const T* nodes, int64_t stride, int n, LeafPlaces<T>& places) {
  T unit[3][kLanes] = {}, along[3][kLanes];
  int32_t cell[3][kLanes], leaf[kLanes];
  for (int i = 0; i < n; i++)
    for (int a = 0; a < 3; a++) unit[a][i] = nodes[i * stride + a];
  for (int a = 0; a < 3; a++) {
    for (int i = 0; i < kLanes; i++) {
      const Place<T> cube = cube_of(level, a, unit[a][i]);
      cell[a][i] = cube.i, along[a][i] = cube.f;
    }
  }
  const int32_t across = level.cells[0], plane = level.cells[0] * level.cells[1];
  for (int i = 0; i < kLanes; i++) leaf[i] = level.leaves[cell[2][i] * plane + cell[1][i] * across + cell[0][i]];
  const T last = static_cast<T>(level.nodes - 1);
  for (int a = 0; a < 3; a++) {
    for (int i = 0; i < kLanes; i++) {
      const Place<T> at = place_of(along[a][i] * last, level.nodes);
      places.row[a][i] = (leaf[i] < 0 ? 0 : leaf[i]) * level.nodes + at.i, places.f[a][i] = at.f;
    }
  }
  for (int i = 0; i < kLanes; i++)
    places.weight[i] = leaf[i] < 0 ? T(0) : leaf_window(along[0][i], along[1][i], along[2][i]);
}

// The same in lanes: loops as above become poor code where compilers unroll them first.
S3D_INLINE void find_leaves(const LeafLevel& level, const float* nodes, int64_t stride, int n, LeafPlaces<float>& places) {
  float unit[3][kLanes] = {};
  for (int i = 0; i < n; i++)
    for (int a = 0; a < 3; a++) unit[a][i] = nodes[i * stride + a];
  const float offset = level.is_shifted ? 0.5f : 0.f;
  i32x16 cell[3];
  f32x16 along[3], edge = 0.5f;  // from the nearest face
  for (int a = 0; a < 3; a++) {
    const f32x16 at = fma(load(unit[a]), f32x16(static_cast<float>(level.cells[a]) - 2 * offset), offset);
    cell[a] = min(max(to_int(at), 0), level.cells[a] - 1);
    along[a] = at - to_float(cell[a]);
    edge = min(edge, min(along[a], f32x16(1.f) - along[a]));
  }
  const i32x16 leaf = gather(level.leaves, (cell[2] * level.cells[1] + cell[1]) * level.cells[0] + cell[0]);
  const mask16 is_there = max(leaf, 0) == leaf;
  const i32x16 first = keep(is_there, leaf) * level.nodes;
  for (int a = 0; a < 3; a++) {
    const f32x16 at = along[a] * f32x16(static_cast<float>(level.nodes - 1));
    const i32x16 node = min(max(to_int(at), 0), level.nodes - 2);
    store(places.row[a], first + node), store(places.f[a], at - to_float(node));
  }
  const f32x16 window = fma(max(edge, 0.f), 2.f, static_cast<float>(kWindowFloor));
  store(places.weight, keep(is_there, window));
}

// In all levels, with final weights.
template <class T>
static void find_places(const FieldCall<T>& call, const T* nodes, int64_t stride, int n, LeafPlaces<T>* places) {
  for (int l = 0; l < call.n_levels; l++) find_leaves(call.levels[l], nodes, stride, n, places[l]);
  if (call.n_levels == 2 && call.levels[1].is_shifted) {
    for (int i = 0; i < kLanes; i++) {
      const T sum = places[0].weight[i] + places[1].weight[i], scale = sum > 0 ? T(1) / sum : T(0);
      places[0].weight[i] *= scale, places[1].weight[i] *= scale;
    }
    return;
  }
  for (int l = 0; l < call.n_levels; l++)
    for (int i = 0; i < kLanes; i++) places[l].weight[i] = places[l].weight[i] > 0 ? T(1) : T(0);
}

// Of sample i, less its weight. slabs: the three of the level.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V leaf_product(const Slab<T>* slabs, const LeafPlaces<T>& places, int i, int rank, int group) {
  const auto along = [&](int axis) {
    const T* const p = slabs[axis].values + static_cast<int64_t>(places.row[axis][i]) * rank + kLanes * group;
    return line_value(p, rank, places.f[axis][i]);
  };
  return along(0) * along(1) * along(2);
}

// Sum of all ranks of density of n samples, still spread over the lanes.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void leaf_densities(const FieldCall<T>& call, const LeafPlaces<T>* places, int n, V* rows) {
  const int rank = call.rank[0];
  for (int i = 0; i < n; i++) rows[i] = V(T(0));
  for (int l = 0; l < call.n_levels; l++) {
    for (int i = 0; i < n; i++) {
      if (!(places[l].weight[i] > 0)) continue;
      V product = leaf_product(call.slabs[0] + 3 * l, places[l], i, rank, 0);
      for (int g = 1; g < rank / kLanes; g++)
        product = product + leaf_product(call.slabs[0] + 3 * l, places[l], i, rank, g);
      rows[i] = fma(V(places[l].weight[i]), product, rows[i]);
    }
  }
}

// Calls f(offset in features, level, group) for each sixteen features.
template <class T, class F>
S3D_INLINE void each_leaf_group(const FieldCall<T>& call, F&& f) {
  for (int l = 0; l < call.n_levels; l++)
    for (int g = 0; g < call.rank[1] / kLanes; g++) f(l * call.rank[1] + kLanes * g, l, g);
}

// Adds the features of colour of n samples, each times its amount; those of amount 0 are left out.
template <class T>
S3D_INLINE void add_leaf_features(const FieldCall<T>& call, const LeafPlaces<T>* places, const T* amounts, int n, T* sums) {
  using V = typename LanesOf<T>::type;
  each_leaf_group(call, [&](int at, int l, int g) {
    V sum = load(sums + at);
    for (int i = 0; i < n; i++) {
      const T amount = amounts[i] * places[l].weight[i];
      if (amount != 0) sum = fma(V(amount), leaf_product(call.slabs[1] + 3 * l, places[l], i, call.rank[1], g), sum);
    }
    store(sums + at, sum);
  });
}

// Products of features and their gradients, lane by lane, of the samples that have colour.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void leaf_color_rows(const FieldCall<T>& call, const LeafPlaces<T>* places, const bool* has_color, int n,
                                const T* v_features, V* rows) {
  each_leaf_group(call, [&](int at, int l, int g) {
    const V v = load(v_features + at);
    for (int i = 0; i < n; i++) {
      if (!has_color[i] || !(places[l].weight[i] > 0)) continue;
      const V product = leaf_product(call.slabs[1] + 3 * l, places[l], i, call.rank[1], g);
      rows[i] = fma(V(places[l].weight[i]) * v, product, rows[i]);
    }
  });
}

// Adds the gradients of samples that follow each other along one ray to one group of one level; amounts hold the weight
// of the leaf, `v` is common to them, lane by lane.
template <class T, class V = typename LanesOf<T>::type>
static void add_leaf_gradients(const FieldCall<T>& call, int set, int level, int group, const LeafPlaces<T>* places,
                               const T* amounts, int n, V v) {
  const int rank = call.rank[set];
  const Slab<T>* const slabs = call.slabs[set] + 3 * level;
  HeldCell<2, T> held[3];
  for (int i = 0; i < n; i++) {
    if (amounts[i] == 0) continue;
    const LeafPlaces<T>& block = places[i / kLanes];
    const int k = i % kLanes;
    V along[3];
    S3D_UNROLL
    for (int a = 0; a < 3; a++) {
      const int64_t at = static_cast<int64_t>(block.row[a][k]) * rank;
      if (at != held[a].at) held[a].enter(slabs[a], group, rank, 0, at);
      along[a] = fma(V(block.f[a][k]), held[a].values[1] - held[a].values[0], held[a].values[0]);
    }
    const V amount = V(amounts[i]) * v, pair = along[0] * along[1], rest = amount * along[2];
    const V v_along[3] = {rest * along[1], rest * along[0], amount * pair};
    S3D_UNROLL
    for (int a = 0; a < 3; a++) {
      const V upper = V(block.f[a][k]) * v_along[a];
      held[a].grads[0] = held[a].grads[0] + (v_along[a] - upper);
      held[a].grads[1] = held[a].grads[1] + upper;
    }
  }
  for (int a = 0; a < 3; a++) held[a].leave(slabs[a], group, rank, 0);
}

constexpr int kLeafTouches = 4 * kLanes;

// Groups [group, end_group) of one level, from the samples of one ray; gradient(g): of the features of a group.
template <class T, class G>
S3D_INLINE void scatter_ray_leaves(const FieldCall<T>& call, int set, int level, int group, int end_group,
                                   const SampleRows<T>& rows, int ray, G&& gradient) {
  LeafPlaces<T> places[kLeafTouches / kLanes], all[kMaxLevels];
  T amounts[kLeafTouches];
  const int64_t end = rows.begin[ray + 1];
  for (int64_t first = rows.begin[ray]; first < end; first += kLeafTouches) {
    const int n = static_cast<int>(end - first < kLeafTouches ? end - first : kLeafTouches);
    for (int block = 0; block < n; block += kLanes) {
      const int n_here = n - block < kLanes ? n - block : kLanes;
      const SampleGrad<T>* const samples = rows.samples + first + block;
      find_places(call, samples->nodes, sizeof(SampleGrad<T>) / sizeof(T), n_here, all);
      places[block / kLanes] = all[level];
      for (int i = 0; i < n_here; i++) amounts[block + i] = samples[i].amount * all[level].weight[i];
    }
    for (int g = group; g < end_group; g++) add_leaf_gradients(call, set, level, g, places, amounts, n, gradient(g));
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
