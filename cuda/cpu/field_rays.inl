// One ray through a field: samples at fixed steps in occupied cells, sixteen densities at a time, compositing until the
// ray is opaque; and the way back, from stored samples.
#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

// Alphas of up to sixteen samples at once.
template <class T>
static void fill_alphas(const FieldCall<T>& call, FieldSample<T>* samples, int n) {
  using V = typename LanesOf<T>::type;
  V rows[16];
  for (int i = 0; i < 16; i++) rows[i] = i < n ? density_lanes(call, cell_of(call, samples[i].nodes)) : V(T(0));
  const V shifted = lane_sums(rows) + V(call.density_shift);
  const V alphas = opacity_of(softplus(shifted), V(call.density_scale * call.step));
  T slope_lanes[16], alpha_lanes[16];
  store(slope_lanes, sigmoid(shifted)), store(alpha_lanes, alphas);
  for (int i = 0; i < n; i++) samples[i].slope = slope_lanes[i], samples[i].alpha = alpha_lanes[i];
}

template <class T>
S3D_INLINE void zero(T* values, int n) {
  using V = typename LanesOf<T>::type;
  for (int i = 0; i < n; i += kLanes) store(values + i, V(T(0)));
}

template <class T>
S3D_INLINE void add_features(const FieldCall<T>& call, const FieldSample<T>& sample, T* sums) {
  using V = typename LanesOf<T>::type;
  each_feature(call, cell_of(call, sample.nodes),
               [&](int at, V product) { add_to(sums + at, sample.weight(), product); });
}

template <class T>
static int forward_ray(const FieldCall<T>& call, const FieldRay<T>& ray, FieldSample<T>* samples, RayResult<T>& out) {
  Walk<T> walk(call, ray);
  T node0[3], node_step[3];
  for (int a = 0; a < 3; a++) {
    const T scale = static_cast<T>(call.n[a] - 1) / (call.high[a] - call.low[a]);
    node0[a] = (ray.origin[a] - call.low[a]) * scale, node_step[a] = ray.direction[a] * scale;
  }
  if (out.features) zero(out.features, call.n_features());
  T transmittance = 1, distance = 0;
  int n = 0;
  bool goes_on = true;
  while (goes_on) {
    int n_here = 0;
    T t;
    while (n_here < 16 && n + n_here < kMaxRaySamples && walk.next(call.occupancy, &t)) {
      FieldSample<T>& sample = samples[n + n_here++];
      sample.t = t;
      for (int a = 0; a < 3; a++) sample.nodes[a] = node0[a] + node_step[a] * t;
    }
    goes_on = n_here == 16;
    if (n_here == 0) break;
    fill_alphas(call, samples + n, n_here);
    for (int i = 0; i < n_here; i++) {
      FieldSample<T>& sample = samples[n++];
      sample.transmittance = transmittance;
      transmittance *= 1 - sample.alpha;
      distance += sample.weight() * sample.t;
      if (out.features && sample.weight() > call.min_weight) add_features(call, sample, out.features);
      if (transmittance < call.min_transmittance) {
        goes_on = false;
        break;
      }
    }
  }
  out.opacity = 1 - transmittance, out.distance = distance;
  return n;
}

template <class T>
static bool hits(const FieldCall<T>& call, const FieldRay<T>& ray) {
  Walk<T> walk(call, ray);
  T t;
  return walk.next(call.occupancy, &t);
}

// Gradients of the weights of up to sixteen samples through their colours.
template <class T>
S3D_INLINE void color_gradients(const FieldCall<T>& call, const FieldSample<T>* samples, int n, const T* v_features,
                                T* v_weights) {
  using V = typename LanesOf<T>::type;
  V rows[16];
  bool any = false;
  for (int i = 0; i < 16; i++) {
    rows[i] = V(T(0));
    if (i >= n || !(samples[i].weight() > call.min_weight)) continue;
    any = true;
    each_feature(call, cell_of(call, samples[i].nodes),
                 [&](int at, V product) { rows[i] = fma(product, load(v_features + at), rows[i]); });
  }
  store(v_weights, any ? lane_sums(rows) : V(T(0)));
}

// dL/dalpha_i = T_i v_w_i - sum_{j > i} w_j v_w_j / (1 - alpha_i); 1 - alpha_i cancels on the way to the density.
template <class T>
static void backward_ray(const FieldCall<T>& call, FieldSample<T>* samples, int n, const T* v_features, T v_opacity,
                         T v_distance) {
  const T length = call.density_scale * call.step;
  T behind = 0;  // sum of weight times its gradient over the samples behind
  for (int end = n; end > 0; end -= 16) {
    const int begin = end > 16 ? end - 16 : 0;
    T v_weights[16];
    color_gradients(call, samples + begin, end - begin, v_features, v_weights);
    for (int i = end - 1; i >= begin; i--) {
      FieldSample<T>& sample = samples[i];
      const T v_weight = v_opacity + v_distance * sample.t + v_weights[i - begin];
      const T v_density = length * ((1 - sample.alpha) * sample.transmittance * v_weight - behind);
      behind += sample.weight() * v_weight;
      sample.v_feature = v_density * sample.slope;
    }
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
