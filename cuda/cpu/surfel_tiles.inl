// One tile of flat Gaussians, row by row: sixteen pixels of float at a time, or one of double.
#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "cpu/surface.h"

namespace scene3d {
namespace S3D_NS {

template <class T>
struct PixelsOf {
  using type = f32x16;
  static constexpr int n = 16;
};
#if S3D_LEVEL == 0
template <>
struct PixelsOf<double> {
  using type = double;
  static constexpr int n = 1;
};
S3D_INLINE double load_first(const double* p, int n) { return n > 0 ? *p : 0.0; }
S3D_INLINE void store_first(double* p, double a, int n) {
  if (n > 0) *p = a;
}
S3D_INLINE bool any(bool m) { return m; }
S3D_INLINE double choose(bool m, double a, double b) { return m ? a : b; }
S3D_INLINE double exp(double a) { return std::exp(a); }
S3D_INLINE double least(double a, double b) { return a < b ? a : b; }
S3D_INLINE double sum_of(double a) { return a; }
#endif
S3D_INLINE f32x16 least(f32x16 a, f32x16 b) { return min(a, b); }
S3D_INLINE float sum_of(f32x16 a) { return lane_sum(a); }

// A run of pixels in one row.
template <class T>
struct Run {
  using V = typename PixelsOf<T>::type;
  int n;           // pixels inside of the image
  int64_t at;      // the first one
  V x, y, inside;  // rays (x, y, 1); 1 in the image, else 0
  T row;

  Run(const SurfelCall<T>& call, int left, int top) {
    constexpr int lanes = PixelsOf<T>::n;
    n = call.width - left < lanes ? call.width - left : lanes;
    at = static_cast<int64_t>(top) * call.width + left;
    alignas(64) T columns[lanes], ones[lanes];
    for (int i = 0; i < lanes; i++) {
      columns[i] = (static_cast<T>(left + i) + T(0.5) - call.view.cx) / call.view.fx;
      ones[i] = i < n ? T(1) : T(0);
    }
    row = static_cast<T>(top) + T(0.5);
    x = load_first(columns, lanes), inside = load_first(ones, lanes);
    y = V((row - call.view.cy) / call.view.fy);
  }
};

// Alpha of a disc at a run of pixels, and the exponential before the opacity and the clamp.
template <class T, class V>
S3D_INLINE V alpha_of(const SurfelCall<T>& call, const Surfel<T>& g, const Run<T>& run, SurfelHit<V>& hit, V& bell) {
  meet(call.view, g, run.x - V(g.x), run.y - V(g.y), hit);
  bell = exp(V(T(-0.5)) * hit.power);
  const V alpha = least(V(g.opacity) * bell, V(T(kMaxAlpha)));
  return call.cutoff ? choose(alpha < V(T(kMinAlpha)), V(T(0)), alpha) : alpha;
}

template <class T>
static void surfel_run(const SurfelTile<T>& tile, const Run<T>& run, const SurfelImages<T>& out) {
  using V = typename PixelsOf<T>::type;
  const SurfelCall<T>& call = *tile.call;
  V light = run.inside, rgb[3] = {T(0), T(0), T(0)}, normal[3] = {T(0), T(0), T(0)};
  V depth = T(0), median = T(0), first = T(0), second = T(0), anchor = T(0), gathered = T(0), distortion = T(0);
  for (int64_t k = 0; k < tile.n_list; k++) {
    const int32_t i = tile.list[k];
    if (run.row < tile.rows[2 * i] || tile.rows[2 * i + 1] < run.row) continue;
    const Surfel<T>& g = tile.surfels[i];
    SurfelHit<V> hit;
    V bell;
    V alpha = alpha_of(call, g, run, hit, bell);
    if (call.cutoff) alpha = choose(light < V(T(kMinTransmittance)), V(T(0)), alpha);
    const V weight = alpha * light, after = light - weight;
    for (int c = 0; c < 3; c++) rgb[c] += weight * V(g.rgb[c]), normal[c] += weight * V(g.normal[c]);
    depth += weight * hit.z;
    median = choose((light >= V(T(0.5))) & (after < V(T(0.5))), hit.z, median);
    const V m = V(-call.unit) / hit.z;
    anchor = choose(V(T(0)) < gathered, anchor, m);
    const V from = m - anchor;
    distortion += weight * (from * (from * gathered - V(T(2)) * first) + second);
    first += weight * from, second += weight * from * from;
    gathered += weight;
    light = after;
    if (call.cutoff && !any(light >= V(T(kMinTransmittance)))) break;
  }
  constexpr int lanes = PixelsOf<T>::n;
  alignas(64) T lane[6][lanes];
  for (int c = 0; c < 3; c++) store_first(lane[c], rgb[c], lanes), store_first(lane[3 + c], normal[c], lanes);
  for (int i = 0; i < run.n; i++)
    for (int c = 0; c < 3; c++) {
      out.rgb[3 * (run.at + i) + c] = lane[c][i];
      out.normals[3 * (run.at + i) + c] = lane[3 + c][i];
    }
  store_first(out.alpha + run.at, gathered, run.n), store_first(out.depth + run.at, depth, run.n);
  store_first(out.median + run.at, median, run.n), store_first(out.distortion + run.at, distortion, run.n);
  store_first(out.first + run.at, first, run.n), store_first(out.second + run.at, second, run.n);
  store_first(out.anchor + run.at, anchor, run.n);
}

// What comes from above for a run of pixels, and what of it is still to come from behind.
template <class T>
struct Upstream {
  using V = typename PixelsOf<T>::type;
  V rgb[3], normal[3], alpha, depth, distortion, first, second, anchor, gathered, behind;

  Upstream(const Run<T>& run, const SurfelImages<T>& images, const SurfelUpstream<T>& up) {
    constexpr int lanes = PixelsOf<T>::n;
    alignas(64) T lane[12][lanes];
    for (int i = 0; i < lanes; i++)
      for (int c = 0; c < 3; c++) {
        const bool in = i < run.n;
        lane[c][i] = in ? up.rgb[3 * (run.at + i) + c] : T(0);
        lane[3 + c][i] = in ? up.normals[3 * (run.at + i) + c] : T(0);
        lane[6 + c][i] = in ? images.rgb[3 * (run.at + i) + c] : T(0);
        lane[9 + c][i] = in ? images.normals[3 * (run.at + i) + c] : T(0);
      }
    alpha = load_first(up.alpha + run.at, run.n), depth = load_first(up.depth + run.at, run.n);
    distortion = load_first(up.distortion + run.at, run.n);
    first = load_first(images.first + run.at, run.n), second = load_first(images.second + run.at, run.n);
    anchor = load_first(images.anchor + run.at, run.n), gathered = load_first(images.alpha + run.at, run.n);
    behind = alpha * gathered + depth * load_first(images.depth + run.at, run.n);
    // The distortion is quadratic in the weights: twice itself.
    behind += V(T(2)) * distortion * load_first(images.distortion + run.at, run.n);
    for (int c = 0; c < 3; c++) {
      rgb[c] = load_first(lane[c], lanes), normal[c] = load_first(lane[3 + c], lanes);
      behind += rgb[c] * load_first(lane[6 + c], lanes) + normal[c] * load_first(lane[9 + c], lanes);
    }
  }
};

// Adds the derivatives of one run to the sums of the discs of the tile, [n_list, kSurfelSums] packs of lanes.
template <class T>
static void surfel_run_backward(const SurfelTile<T>& tile, const Run<T>& run, const SurfelImages<T>& images,
                                const SurfelUpstream<T>& upstream, typename PixelsOf<T>::type* all_sums) {
  using V = typename PixelsOf<T>::type;
  const SurfelCall<T>& call = *tile.call;
  Upstream<T> up(run, images, upstream);
  V light = run.inside;
  for (int64_t k = 0; k < tile.n_list; k++) {
    const int32_t i = tile.list[k];
    if (run.row < tile.rows[2 * i] || tile.rows[2 * i + 1] < run.row) continue;
    const Surfel<T>& g = tile.surfels[i];
    SurfelHit<V> hit;
    V bell;
    V alpha = alpha_of(call, g, run, hit, bell);
    if (call.cutoff) alpha = choose(light < V(T(kMinTransmittance)), V(T(0)), alpha);
    if (!any(V(T(0)) < alpha)) continue;
    const V weight = alpha * light, m = V(-call.unit) / hit.z, from = m - up.anchor;
    V* sums = all_sums + k * kSurfelSums;
    V v_weight = up.alpha + up.depth * hit.z;
    for (int c = 0; c < 3; c++) {
      v_weight += up.rgb[c] * V(g.rgb[c]) + up.normal[c] * V(g.normal[c]);
      sums[kDiscRgb + c] += weight * up.rgb[c], sums[kDiscNormal + c] += weight * up.normal[c];
    }
    v_weight += up.distortion * (from * (from * up.gathered - V(T(2)) * up.first) + up.second);
    up.behind -= weight * v_weight;
    V v_alpha = light * v_weight - up.behind / (V(T(1)) - alpha);
    // Nothing comes back through the cut-offs: skipped discs and the largest alpha.
    v_alpha = choose((V(T(0)) < alpha) & (alpha < V(T(kMaxAlpha))), v_alpha, V(T(0)));
    const V v_m = V(T(2)) * up.distortion * weight * (from * up.gathered - up.first);
    // dm/dz = unit / z^2 = -m / z
    const V v_z = weight * up.depth - v_m * m / hit.z;
    sums[kDiscOpacity] += v_alpha * bell;
    meet_vjp(call.view, g, hit, run.x, run.y, V(T(-0.5)) * v_alpha * V(g.opacity) * bell, v_z, sums);
    light = light - weight;
    if (call.cutoff && !any(light >= V(T(kMinTransmittance)))) break;
  }
}

template <class T, class F>
S3D_INLINE void each_run(const SurfelTile<T>& tile, F&& visit) {
  constexpr int lanes = PixelsOf<T>::n;
  const SurfelCall<T>& call = *tile.call;
  for (int y = tile.y0; y < tile.y0 + kTileSize && y < call.height; y++)
    for (int x = tile.x0; x < tile.x0 + kTileSize && x < call.width; x += lanes) visit(Run<T>(call, x, y));
}

template <class T>
static void surfel_tile(const SurfelTile<T>& tile, const SurfelImages<T>& out) {
  each_run(tile, [&](const Run<T>& run) { surfel_run(tile, run, out); });
}

// sums: [n_list, kSurfelSums]; scratch: as many packs of lanes.
template <class T>
static void surfel_tile_backward(const SurfelTile<T>& tile, const SurfelImages<T>& images,
                                 const SurfelUpstream<T>& upstream, T* sums, void* scratch) {
  using V = typename PixelsOf<T>::type;
  V* packs = static_cast<V*>(scratch);
  for (int64_t i = 0; i < tile.n_list * kSurfelSums; i++) packs[i] = V(T(0));
  each_run(tile, [&](const Run<T>& run) { surfel_run_backward(tile, run, images, upstream, packs); });
  for (int64_t i = 0; i < tile.n_list * kSurfelSums; i++) sums[i] = sum_of(packs[i]);
}

}  // namespace S3D_NS
}  // namespace scene3d
