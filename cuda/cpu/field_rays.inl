// One ray through a field: samples at fixed steps in occupied cells, sixteen densities at a time, compositing until the
// ray is opaque; and the way back, from stored samples.
#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

// Up to sixteen samples side by side, with what their kind needs to know about where they are: found once, used for
// density and colour.
template <class T>
struct SampleBlock {
  using V = typename LanesOf<T>::type;
  const FieldCall<T>& call;
  const T* nodes;  // of the first
  int64_t stride;  // in numbers
  int n;
  LeafPlaces<T> places[kMaxLevels];
  BasisHits<T> hits;

  S3D_MEMBER SampleBlock(const FieldCall<T>& call_, const T* nodes_, int64_t stride_, int n_)
      : call(call_), nodes(nodes_), stride(stride_), n(n_) {
    if (call.kind == FieldKind::trivec) find_places(call, nodes, stride, n, places);
    if (call.kind == FieldKind::rbf) find_bases(call, nodes, stride, n, hits);
  }
  S3D_MEMBER Cell<T> cell(int i) const { return cell_of(call, nodes + i * stride); }
  S3D_MEMBER void densities(V (&rows)[16]) const {
    for (int i = 0; i < 16; i++) rows[i] = V(T(0));
    if (call.has_network()) return network_densities(call, nodes, stride, n, rows);
    if (call.kind == FieldKind::trivec) leaf_densities(call, places, n, rows);
    else
      for (int i = 0; i < n; i++) rows[i] = density_lanes(call, cell(i));
    add_basis_densities(call, hits, rows);
  }
  // Adds features times amounts; those of amount 0 are left out.
  S3D_MEMBER void add_features(const T* amounts, T* sums) const {
    if (call.has_network()) return add_network_features(call, nodes, stride, n, amounts, sums);
    if (call.kind == FieldKind::trivec) return add_leaf_features(call, places, amounts, n, sums);
    for (int i = 0; i < n; i++)
      if (amounts[i] != 0) each_feature(call, cell(i), [&](int at, V product) { add_to(sums + at, amounts[i], product); });
    if (hits.n > 0) add_basis_features(call, hits, amounts, sums);
  }
  // Features times v_features, lane by lane, of those that have colour.
  S3D_MEMBER void color_rows(const bool* has_color, const T* v_features, V (&rows)[16]) const {
    for (int i = 0; i < 16; i++) rows[i] = V(T(0));
    if (call.has_network()) return network_rows<T>(call, 1, nodes, stride, n, has_color, v_features, rows);
    if (call.kind == FieldKind::trivec) return leaf_color_rows(call, places, has_color, n, v_features, rows);
    for (int i = 0; i < n; i++)
      if (has_color[i])
        each_feature(call, cell(i), [&](int at, V product) { rows[i] = fma(product, load(v_features + at), rows[i]); });
    if (hits.n > 0) add_basis_color_rows(call, hits, has_color, v_features, rows);
  }
};

template <class T>
S3D_INLINE SampleBlock<T> block_of(const FieldCall<T>& call, const FieldSample<T>* samples, int n) {
  return {call, samples->nodes, sizeof(FieldSample<T>) / sizeof(T), n};
}

// Alphas of up to sixteen samples at once.
template <class T>
S3D_INLINE void fill_alphas(const SampleBlock<T>& block, FieldSample<T>* samples) {
  using V = typename LanesOf<T>::type;
  const FieldCall<T>& call = block.call;
  V rows[16];
  block.densities(rows);
  const V shifted = lane_sums(rows) + V(call.density_shift);
  const V alphas = opacity_of(softplus(shifted), V(call.density_scale * call.step));
  T slope_lanes[16], alpha_lanes[16];
  store(slope_lanes, sigmoid(shifted)), store(alpha_lanes, alphas);
  for (int i = 0; i < block.n; i++) samples[i].slope = slope_lanes[i], samples[i].alpha = alpha_lanes[i];
}

template <class T>
S3D_INLINE void zero(T* values, int n) {
  using V = typename LanesOf<T>::type;
  for (int i = 0; i < n; i += kLanes) store(values + i, V(T(0)));
}

// Place of samples of a straight stretch of a ray between nodes.
template <class T>
struct NodeLine {
  T first[3], step[3];

  S3D_MEMBER void set(const FieldCall<T>& call, const T* origin, const T* direction) {
    for (int a = 0; a < 3; a++) {
      const T scale = static_cast<T>(call.n[a] - 1) / (call.high[a] - call.low[a]);
      first[a] = (origin[a] - call.low[a]) * scale, step[a] = direction[a] * scale;
    }
  }
  S3D_MEMBER void place(T at, FieldSample<T>& sample) const {
    for (int a = 0; a < 3; a++) sample.nodes[a] = first[a] + step[a] * at;
  }
};

// Samples of a ray through a box.
template <class T>
struct StraightPath {
  const FieldCall<T>& call;
  Walk<T> walk;
  NodeLine<T> line;

  S3D_MEMBER StraightPath(const FieldCall<T>& call_, const FieldRay<T>& ray) : call(call_), walk(call_, ray) {
    line.set(call, ray.origin, ray.direction);
  }
  S3D_MEMBER bool next(FieldSample<T>& sample) {
    T t;
    if (!walk.next(call.occupancy, &t)) return false;
    sample.t = sample.along = t;
    line.place(t, sample);
    return true;
  }
};

// Samples of a ray that is straight piece by piece, at equal distances in the frame of the field.
template <class T>
struct WarpedPath {
  const FieldCall<T>& call;
  int piece = 0;
  T before = 0;  // length of the pieces that are done
  WarpedRay<T> ray;
  FieldRay<T> stretch;
  Walk<T> walk;
  NodeLine<T> line;

  S3D_MEMBER WarpedPath(const FieldCall<T>& call_, const FieldRay<T>& ray_)
      : call(call_), ray(call_.warp, ray_, call_.near, call_.far), stretch(on_piece(ray_.jitter)), walk(walk_of_piece()) {
    line.set(call, stretch.origin, stretch.direction);
  }
  S3D_MEMBER FieldRay<T> on_piece(T jitter) const {
    FieldRay<T> out = {};
    if (ray.n == 0) return out;
    for (int a = 0; a < 3; a++)
      out.origin[a] = ray.pieces[piece].origin[a], out.direction[a] = ray.pieces[piece].direction[a];
    out.jitter = jitter;
    return out;
  }
  S3D_MEMBER Walk<T> walk_of_piece() const {
    return Walk<T>(call, stretch, T(0), ray.n == 0 ? T(-1) : ray.pieces[piece].length);
  }
  S3D_MEMBER bool next(FieldSample<T>& sample) {
    T at;
    while (!walk.next(call.occupancy, &at)) {
      if (piece + 1 >= ray.n) return false;
      before += ray.pieces[piece++].length;
      stretch = on_piece(walk.jitter_beyond);
      walk = walk_of_piece();
      line.set(call, stretch.origin, stretch.direction);
    }
    sample.t = ray.pieces[piece].distance(at), sample.along = before + at;
    line.place(at, sample);
    return true;
  }
};

template <class T, class Path>
S3D_INLINE int forward_along(const FieldCall<T>& call, Path&& path, FieldSample<T>* samples, RayResult<T>& out) {
  if (out.features) zero(out.features, call.n_features());
  T transmittance = 1, distance = 0;
  int n = 0;
  bool goes_on = true;
  while (goes_on) {
    int n_here = 0;
    while (n_here < 16 && n + n_here < kMaxRaySamples && path.next(samples[n + n_here])) n_here++;
    goes_on = n_here == 16;
    if (n_here == 0) break;
    const SampleBlock<T> block = block_of(call, samples + n, n_here);
    fill_alphas(block, samples + n);
    T amounts[16] = {};
    for (int i = 0; i < n_here; i++) {
      FieldSample<T>& sample = samples[n++];
      sample.transmittance = transmittance;
      transmittance *= 1 - sample.alpha;
      distance += sample.weight() * sample.t;
      if (sample.weight() > call.min_weight) amounts[i] = sample.weight();
      if (transmittance < call.min_transmittance) {
        goes_on = false;
        break;
      }
    }
    if (out.features) block.add_features(amounts, out.features);
  }
  out.opacity = 1 - transmittance, out.distance = distance;
  return n;
}

template <class T>
static int forward_ray(const FieldCall<T>& call, const FieldRay<T>& ray, FieldSample<T>* samples, RayResult<T>& out) {
  if (call.warp.kind == WarpKind::none) return forward_along(call, StraightPath<T>(call, ray), samples, out);
  return forward_along(call, WarpedPath<T>(call, ray), samples, out);
}

template <class T>
static bool hits(const FieldCall<T>& call, const FieldRay<T>& ray) {
  FieldSample<T> sample;
  if (call.warp.kind == WarpKind::none) return StraightPath<T>(call, ray).next(sample);
  return WarpedPath<T>(call, ray).next(sample);
}

// Gradients of the weights of up to sixteen samples through their colours.
template <class T>
S3D_INLINE void color_gradients(const FieldCall<T>& call, const FieldSample<T>* samples, int n, const T* v_features,
                                T* v_weights) {
  using V = typename LanesOf<T>::type;
  bool has_color[16] = {}, any = false;
  for (int i = 0; i < n; i++) any |= has_color[i] = samples[i].weight() > call.min_weight;
  V rows[16];
  if (any) block_of(call, samples, n).color_rows(has_color, v_features, rows);
  store(v_weights, any ? lane_sums(rows) : V(T(0)));
}

// Gradients of the distortion of a ray, sum_ij w_i w_j |t_i - t_j| + step / 3 sum_i w_i^2 (Barron et al. 2022, equation 15),
// by the weights, from the last sample to the first.
template <class T>
struct Distortion {
  T weight, step, ahead = 0, moment_ahead = 0, behind = 0, moment_behind = 0;  // sums of w and of w t

  S3D_MEMBER Distortion(const FieldCall<T>& call, const FieldSample<T>* samples, int n)
      : weight(call.distortion), step(call.step) {
    for (int i = 0; weight != 0 && i < n; i++)
      ahead += samples[i].weight(), moment_ahead += samples[i].weight() * samples[i].along;
  }
  S3D_MEMBER T gradient(const FieldSample<T>& sample) {
    if (weight == 0) return 0;
    const T w = sample.weight(), t = sample.along;
    ahead -= w, moment_ahead -= w * t;
    const T spread = t * ahead - moment_ahead + moment_behind - t * behind;
    behind += w, moment_behind += w * t;
    return weight * (2 * spread + T(2.0 / 3) * step * w);
  }
};

// dL/dalpha_i = T_i v_w_i - sum_{j > i} w_j v_w_j / (1 - alpha_i); 1 - alpha_i cancels on the way to the density.
template <class T>
static void backward_ray(const FieldCall<T>& call, FieldSample<T>* samples, int n, const T* v_features, T v_opacity,
                         T v_distance, const T* v_colored) {
  const T length = call.density_scale * call.step;
  Distortion<T> distortion(call, samples, n);
  const T* own = v_colored;
  for (int i = 0; own && i < n; i++) own += samples[i].weight() > call.min_weight;
  T behind = 0;  // sum of weight times its gradient over the samples behind
  for (int end = n; end > 0; end -= 16) {
    const int begin = end > 16 ? end - 16 : 0;
    T v_weights[16];
    if (!v_colored) color_gradients(call, samples + begin, end - begin, v_features, v_weights);
    for (int i = end - 1; v_colored && i >= begin; i--)
      v_weights[i - begin] = samples[i].weight() > call.min_weight ? *--own : T(0);
    for (int i = end - 1; i >= begin; i--) {
      FieldSample<T>& sample = samples[i];
      const T v_weight = v_opacity + v_distance * sample.t + v_weights[i - begin] + distortion.gradient(sample);
      const T v_density = length * ((1 - sample.alpha) * sample.transmittance * v_weight - behind);
      behind += sample.weight() * v_weight;
      sample.v_feature = v_density * sample.slope;
    }
  }
}

template <class T>
static int color_rows(const FieldCall<T>& call, const FieldSample<T>* samples, int n, T* features, T* weights) {
  int n_rows = 0;
  for (int i = 0; i < n; i++) {
    const T weight = samples[i].weight();
    if (!(weight > call.min_weight)) continue;
    T* const row = features + static_cast<int64_t>(n_rows) * call.n_features();
    zero(row, call.n_features());
    block_of(call, samples + i, 1).add_features(&weight, row);
    weights[n_rows++] = weight;
  }
  return n_rows;
}

// The places of up to sixteen points of the world in nodes. [n, 3]
template <class T>
S3D_INLINE void nodes_of(const FieldCall<T>& call, const T* points, int n, T* nodes) {
  for (int i = 0; i < n; i++)
    for (int a = 0; a < 3; a++)
      nodes[3 * i + a] = (points[3 * i + a] - call.low[a]) / (call.high[a] - call.low[a]) * static_cast<T>(call.n[a] - 1);
}

template <class T>
static void density_at(const FieldCall<T>& call, const T* points, int n, T* features) {
  using V = typename LanesOf<T>::type;
  for (int begin = 0; begin < n; begin += kLanes) {
    const int n_here = n - begin < kLanes ? n - begin : kLanes;
    T nodes[3 * kLanes], sums[kLanes];
    nodes_of(call, points + 3 * begin, n_here, nodes);
    V rows[16];
    SampleBlock<T>(call, nodes, 3, n_here).densities(rows);
    store(sums, lane_sums(rows));
    for (int i = 0; i < n_here; i++) features[begin + i] = sums[i];
  }
}

template <class T>
static void features_at(const FieldCall<T>& call, const T* points, int n, T* features) {
  const T one = 1;
  for (int i = 0; i < n; i++) {
    T nodes[3];
    T* const row = features + static_cast<int64_t>(i) * call.n_features();
    zero(row, call.n_features());
    nodes_of(call, points + 3 * i, 1, nodes);
    SampleBlock<T>(call, nodes, 3, 1).add_features(&one, row);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
