// Products of planes and lines at a sample, and the way back to their values.
//
// Sixteen ranks are one vector, so nothing is gathered: a sample reads whole cache lines. On one core of Zen 4 a density
// sample of VM-16 takes about 13 ns, its way back 35 ns.
#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

// Axes of the plane of each mode, and of the line across it.
constexpr int kPlaneA[3] = {0, 0, 1}, kPlaneB[3] = {1, 2, 2}, kLineAxis[3] = {2, 1, 0};

// Where a sample lies on the three axes.
template <class T>
struct Cell {
  Place<T> axis[3];
};

template <class T>
S3D_INLINE Cell<T> cell_of(const FieldCall<T>& call, const T* nodes) {
  return {{place_of(nodes[0], call.n[0]), place_of(nodes[1], call.n[1]), place_of(nodes[2], call.n[2])}};
}

// Offset of the texel (i, j) around a cell in the plane of a mode, in values.
template <class T>
S3D_INLINE int64_t texel(const FieldCall<T>& call, const Cell<T>& cell, int mode, int rank) {
  const int64_t a = cell.axis[kPlaneA[mode]].i, b = cell.axis[kPlaneB[mode]].i;
  return (b * call.n[kPlaneA[mode]] + a) * rank;
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V plane_value(const T* p, int64_t row, int rank, const T* w) {
  V value = V(w[0]) * load(p);
  value = fma(V(w[1]), load(p + rank), value);
  value = fma(V(w[2]), load(p + row), value);
  return fma(V(w[3]), load(p + row + rank), value);
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V line_value(const T* p, int rank, T f) {
  const V first = load(p);
  return fma(V(f), load(p + rank) - first, first);
}

template <class V, class T>
S3D_INLINE void add_to(T* p, T weight, V value) {
  store(p, fma(V(weight), value, load(p)));
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void add_to_line(T* p, int rank, T f, V value) {
  add_to(p, 1 - f, value), add_to(p + rank, f, value);
}

// What the ranks of one mode need at one cell: weights once, then any number of groups of sixteen ranks.
template <class T>
struct VmPlace {
  T weights[4], f;
  int64_t plane, line, row;
  int rank;

  VmPlace(const FieldCall<T>& call, const Cell<T>& cell, int set, int mode) {
    const Place<T> across = cell.axis[kLineAxis[mode]];
    corner_weights(cell.axis[kPlaneA[mode]], cell.axis[kPlaneB[mode]], weights);
    rank = call.rank[set], f = across.f;
    plane = texel(call, cell, mode, rank), line = static_cast<int64_t>(across.i) * rank;
    row = static_cast<int64_t>(call.n[kPlaneA[mode]]) * rank;
  }
};

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V vm_product(const Slab<T>* slabs, const VmPlace<T>& place, int mode, int group) {
  const V plane = plane_value(slabs[mode].values + place.plane + kLanes * group, place.row, place.rank, place.weights);
  return plane * line_value(slabs[3 + mode].values + place.line + kLanes * group, place.rank, place.f);
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V cp_line(const Slab<T>* slabs, const Cell<T>& cell, int axis, int rank, int group) {
  const Place<T> place = cell.axis[axis];
  return line_value(slabs[axis].values + static_cast<int64_t>(place.i) * rank + kLanes * group, rank, place.f);
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V cp_product(const Slab<T>* slabs, const Cell<T>& cell, int rank, int group) {
  V product = cp_line(slabs, cell, 0, rank, group);
  product = product * cp_line(slabs, cell, 1, rank, group);
  return product * cp_line(slabs, cell, 2, rank, group);
}

// The four texels or two nodes around a cell, in registers for as long as samples stay in it: values and gradients.
// Writing gradients back at every sample made the way back of VM-16 half as fast.
template <int corners, class T>
struct HeldCell {
  using V = typename LanesOf<T>::type;
  V values[corners], grads[corners];
  int64_t at = -1;

  S3D_MEMBER int64_t corner(int k, int rank, int64_t row) const { return at + (k & 1) * rank + (k >> 1) * row; }
  S3D_MEMBER void leave(const Slab<T>& slab, int group, int rank, int64_t row) {
    if (at < 0) return;
    S3D_UNROLL
    for (int k = 0; k < corners; k++) {
      T* const p = slab.grads + corner(k, rank, row) + kLanes * group;
      store(p, load(p) + grads[k]);
    }
    slab.touched[group * slab.n_rows + at / rank] = 1;
  }
  S3D_MEMBER void enter(const Slab<T>& slab, int group, int rank, int64_t row, int64_t place) {
    leave(slab, group, rank, row);
    at = place;
    S3D_UNROLL
    for (int k = 0; k < corners; k++) {
      values[k] = load(slab.values + corner(k, rank, row) + kLanes * group);
      grads[k] = V(T(0));
    }
  }
};

}  // namespace S3D_NS
}  // namespace scene3d
#include "cpu/field_bases.inl"
#include "cpu/field_leaves.inl"
#include "cpu/field_network.inl"
namespace scene3d {
namespace S3D_NS {

// Sum of all ranks of density of planes and lines, still spread over the lanes.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V density_lanes(const FieldCall<T>& call, const Cell<T>& cell) {
  V sum = V(T(0));
  const int groups = call.rank[0] / kLanes;
  const Slab<T>* const slabs = call.slabs[0];
  if (call.kind == FieldKind::cp) {
    for (int g = 0; g < groups; g++) sum = sum + cp_product(slabs, cell, call.rank[0], g);
    return sum;
  }
  S3D_UNROLL
  for (int mode = 0; mode < 3; mode++) {
    const VmPlace<T> place(call, cell, 0, mode);
    for (int g = 0; g < groups; g++) sum = sum + vm_product(slabs, place, mode, g);
  }
  return sum;
}

// Calls f(offset in features, product) for each sixteen features of colour of planes and lines.
template <class T, class F>
S3D_INLINE void each_feature(const FieldCall<T>& call, const Cell<T>& cell, F&& f) {
  const int rank = call.rank[1], groups = rank / kLanes;
  const Slab<T>* const slabs = call.slabs[1];
  if (call.kind == FieldKind::cp) {
    for (int g = 0; g < groups; g++) f(kLanes * g, cp_product(slabs, cell, rank, g));
    return;
  }
  for (int mode = 0; mode < 3; mode++) {
    const VmPlace<T> place(call, cell, 1, mode);
    for (int g = 0; g < groups; g++) f(mode * rank + kLanes * g, vm_product(slabs, place, mode, g));
  }
}

// A sample as the way back sees it in one mode: its cell in the plane and on the line, and how much to add.
template <class T>
struct Touch {
  T weights[4], f, amount;
  int64_t plane, line;  // offsets of values
};

constexpr int kTouches = 64;

template <class T>
S3D_INLINE void list_touches(const FieldCall<T>& call, int set, int mode, const SampleGrad<T>* samples, int n,
                             Touch<T>* touches) {
  for (int i = 0; i < n; i++) {
    const VmPlace<T> place(call, cell_of(call, samples[i].nodes), set, mode);
    Touch<T>& touch = touches[i];
    for (int k = 0; k < 4; k++) touch.weights[k] = place.weights[k];
    touch.f = place.f, touch.amount = samples[i].amount, touch.plane = place.plane, touch.line = place.line;
  }
}

// Adds the gradients of touches that follow each other along one ray; `v` is common to them, lane by lane.
template <class T, class V = typename LanesOf<T>::type>
static void add_touches(const FieldCall<T>& call, int set, int mode, int group, const Touch<T>* touches, int n, V v) {
  const Slab<T>&plane = call.slabs[set][mode], &line = call.slabs[set][3 + mode];
  const int rank = call.rank[set];
  const int64_t row = static_cast<int64_t>(call.n[kPlaneA[mode]]) * rank;
  HeldCell<4, T> texels;
  HeldCell<2, T> nodes;
  for (int i = 0; i < n; i++) {
    const Touch<T>& touch = touches[i];
    if (touch.plane != texels.at) texels.enter(plane, group, rank, row, touch.plane);
    if (touch.line != nodes.at) nodes.enter(line, group, rank, 0, touch.line);
    V on_plane = V(touch.weights[0]) * texels.values[0];
    S3D_UNROLL
    for (int k = 1; k < 4; k++) on_plane = fma(V(touch.weights[k]), texels.values[k], on_plane);
    const V on_line = fma(V(touch.f), nodes.values[1] - nodes.values[0], nodes.values[0]);
    const V amount = V(touch.amount) * v, v_plane = amount * on_line, v_line = amount * on_plane;
    S3D_UNROLL
    for (int k = 0; k < 4; k++) texels.grads[k] = fma(V(touch.weights[k]), v_plane, texels.grads[k]);
    nodes.grads[0] = fma(V(1 - touch.f), v_line, nodes.grads[0]);
    nodes.grads[1] = fma(V(touch.f), v_line, nodes.grads[1]);
  }
  texels.leave(plane, group, rank, row), nodes.leave(line, group, rank, 0);
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void scatter_cp(const FieldCall<T>& call, const Cell<T>& cell, int set, int group, V v) {
  const int rank = call.rank[set];
  const Slab<T>* const slabs = call.slabs[set];
  V lines[3];
  for (int axis = 0; axis < 3; axis++) lines[axis] = cp_line(slabs, cell, axis, rank, group);
  const V v_lines[3] = {v * lines[1] * lines[2], v * lines[0] * lines[2], v * lines[0] * lines[1]};
  for (int axis = 0; axis < 3; axis++) {
    const Place<T> place = cell.axis[axis];
    add_to_line(slabs[axis].grads + static_cast<int64_t>(place.i) * rank + kLanes * group, rank, place.f, v_lines[axis]);
    slabs[axis].touched[group * slabs[axis].n_rows + place.i] = 1;
  }
}

template <class T, class V = typename LanesOf<T>::type>
static void scatter_ray_cp(const FieldCall<T>& call, int set, int group, const SampleRows<T>& rows, int ray, V v) {
  for (int64_t i = rows.begin[ray]; i < rows.begin[ray + 1]; i++) {
    const SampleGrad<T>& sample = rows.samples[i];
    scatter_cp(call, cell_of(call, sample.nodes), set, group, V(sample.amount) * v);
  }
}

// Groups [group, end_group) of sixteen ranks of one mode.
template <class T>
static void scatter(const FieldCall<T>& call, int set, int mode, int group, int end_group, const SampleRows<T>& rows,
                    const T* v_features) {
  using V = typename LanesOf<T>::type;
  Touch<T> touches[kTouches];
  for (int ray = 0; ray < rows.n_rays; ray++) {
    const T* const v_ray = v_features + static_cast<int64_t>(ray) * call.n_features() + mode * call.rank[1];
    if (call.has_network()) {
      scatter_ray_network(call, set, rows, ray, v_ray);
      continue;
    }
    const auto gradient = [&](int g) { return set == 1 ? load(v_ray + kLanes * g) : V(T(1)); };
    if (call.kind == FieldKind::cp) {
      for (int g = group; g < end_group; g++) scatter_ray_cp(call, set, g, rows, ray, gradient(g));
      continue;
    }
    if (call.kind == FieldKind::trivec) {
      scatter_ray_leaves(call, set, mode, group, end_group, rows, ray, gradient);
      continue;
    }
    if (mode == kBasisMode) {
      scatter_ray_bases(call, set, group, end_group, rows, ray, gradient);
      continue;
    }
    const int64_t end = rows.begin[ray + 1];
    for (int64_t first = rows.begin[ray]; first < end; first += kTouches) {
      const int n = static_cast<int>(end - first < kTouches ? end - first : kTouches);
      list_touches(call, set, mode, rows.samples + first, n, touches);
      for (int g = group; g < end_group; g++) add_touches(call, set, mode, g, touches, n, gradient(g));
    }
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
