// Per-Gaussian work of the rasterizer, sixteen Gaussians at a time: projection with colour, and the way back from the
// pairs' rows of sums to the parameters' gradients.
#include "cpu/raster.h"
#include "cpu/simd_math.h"
#include "math/gaussian_vjp.h"

namespace scene3d {
namespace S3D_NS {

using Lanes = f32x16;

template <bool full>
S3D_INLINE GaussianRow<Lanes> load_gaussians(const RasterCall<float>& call, int64_t i, int n) {
  GaussianRow<Lanes> g;
  load_rows<3, full>(call.means + 3 * i, 3, n, g.mean);
  load_rows<4, full>(call.quats + 4 * i, 4, n, g.quat);
  load_rows<3, full>(call.log_scales + 3 * i, 3, n, g.log_scale);
  g.opacity_logit = load_first(call.opacity_logits + i, n);
  return g;
}

template <bool full>
S3D_INLINE void load_sh(const RasterCall<float>& call, int64_t i, int n, Lanes* sh0, Lanes* shN) {
  load_rows<3, full>(call.sh0 + 3 * i, 3, n, sh0);
  const float* base = call.shN + call.shN_stride * i;
  if (call.sh_degree == 1) load_rows<9, full>(base, call.shN_stride, n, shN);
  if (call.sh_degree == 2) load_rows<24, full>(base, call.shN_stride, n, shN);
  if (call.sh_degree == 3) load_rows<45, full>(base, call.shN_stride, n, shN);
}

S3D_INLINE mask16 first_lanes(int n) { return lane_index() < f32x16(static_cast<float>(n)); }

// Tile with the first pixel centre beyond `low`, and with the last before `high`.
S3D_INLINE Lanes first_tile(Lanes low) { return -floor((f32x16(kTileSize - 0.5f + kSlack) - low) * f32x16(1.f / kTileSize)); }
S3D_INLINE Lanes last_tile(Lanes high) { return floor((high + f32x16(kSlack - 0.5f)) * f32x16(1.f / kTileSize)); }

// Tiles that the alpha = 1/255 ellipses reach. At height dy an ellipse spans dy * slope +- sqrt(spread * (1 - dy^2 /
// half_y^2)); it is widest at +-dy_widest.
S3D_INLINE void reach_tiles(const RasterCall<float>& call, const Ellipse<Lanes>& e, mask16 visible, ProjectedRows& out) {
  const f32x16 tile = static_cast<float>(kTileSize), zero = 0.f;
  const f32x16 tiles_x = static_cast<float>((call.width + kTileSize - 1) / kTileSize - 1);
  const f32x16 tiles_y = static_cast<float>((call.height + kTileSize - 1) / kTileSize - 1);
  const f32x16 x0 = max(first_tile(e.x - e.half_x), zero), x1 = min(last_tile(e.x + e.half_x), tiles_x);
  const f32x16 y0 = max(first_tile(e.y - e.half_y), zero), y1 = min(last_tile(e.y + e.half_y), tiles_y);
  store(out.tile_x0, x0), store(out.tile_x1, keep(visible, x1 + f32x16(1.f)) - f32x16(1.f));
  store(out.tile_y0, y0), store(out.tile_y1, y1);
  const f32x16 slope = e.cov[1] / e.cov[2], widest = e.half_y * e.cov[1] / sqrt(e.cov[0] * e.cov[2]);
  const f32x16 inv = f32x16(1.f) / (e.half_y * e.half_y), spread = e.det * e.half_y * e.half_y / (e.cov[2] * e.cov[2]);
  const f32x16 left_of_image = x0, right_of_image = x1;
  for (int r = 0; r < kSpanRows; r++) {
    const f32x16 row = y0 + f32x16(static_cast<float>(r));
    if (!any((y1 >= row) & visible)) return;
    const f32x16 low = max(row * tile + f32x16(0.5f - kSlack) - e.y, -e.half_y);
    const f32x16 high = min(row * tile + f32x16(kTileSize - 0.5f + kSlack) - e.y, e.half_y);
    const f32x16 root_low = sqrt(max(zero, spread * fnma(low * low, inv, 1.f)));
    const f32x16 root_high = sqrt(max(zero, spread * fnma(high * high, inv, 1.f)));
    const f32x16 right = select((widest >= low) & (high >= widest), e.half_x, max(fma(slope, low, root_low), fma(slope, high, root_high)));
    const f32x16 left = select((-widest >= low) & (high >= -widest), -e.half_x, min(fma(slope, low, -root_low), fma(slope, high, -root_high)));
    const mask16 is_reached = high >= low;
    store(out.first[r], select(is_reached, max(left_of_image, first_tile(e.x + left)), 1.f));
    store(out.last[r], keep(is_reached, min(right_of_image, last_tile(e.x + right))));
  }
}

// Asks for the spherical harmonics of sixteen Gaussians, by far the most of what they consist of.
S3D_INLINE void prefetch_sh(const RasterCall<float>& call, int64_t i) {
  const float *from = call.shN + call.shN_stride * i, *to = from + 16 * call.shN_stride;
  for (; from < to; from += 16) __builtin_prefetch(from, 0, 2);
}

// Projects Gaussians [begin, begin + n), n <= 16.
template <bool full>
S3D_INLINE void project_sixteen(const RasterCall<float>& call, int64_t begin, int n, Splat* splats, ProjectedRows& out) {
  const GaussianRow<Lanes> g = load_gaussians<full>(call, begin, n);
  if (full) prefetch_sh(call, begin);
  Ellipse<Lanes> e;
  mask16 visible = project(call.view, g, static_cast<float>(kMinAlpha), call.with_extra, e) & first_lanes(n);
  Lanes rgb[3] = {0.f, 0.f, 0.f}, sh_sum = 0.f;
  if (any(visible)) {
    Lanes sh0[3], shN[45], d[3];
    load_sh<full>(call, begin, n, sh0, shN);
    view_direction(g.mean, call.view.center, d);
    sh_color(call.sh_degree, d, sh0, shN, rgb);
    for (int k = 0; k < 3; k++) sh_sum += sh0[k];
    for (int k = 0; k < 3 * (sh_count(call.sh_degree) - 1); k++) sh_sum += shN[k];
  }
  const mask16 is_sound = is_finite(sh_sum) & is_finite_row(g) &
                          (f32x16(0.f) < abs(g.quat[0]) + abs(g.quat[1]) + abs(g.quat[2]) + abs(g.quat[3]));
  out.n_unsound = n - __builtin_popcount(bits(is_sound & first_lanes(n)));
  visible = visible & is_sound;
  store(out.x, e.x), store(out.y, e.y), store(out.det, e.det);
  store(out.half_x, keep(visible, e.half_x)), store(out.half_y, keep(visible, e.half_y));
  for (int k = 0; k < 3; k++) store(out.cov[k], e.cov[k]);
  if (!any(visible)) return;
  reach_tiles(call, e, visible, out);
  const Lanes record[16] = {e.x,     e.y,     e.l11,   e.l21,
                            e.l22,   log2(e.opacity), rgb[0],  rgb[1],
                            rgb[2],  e.depth, e.cov[1] / e.cov[0], e.cov[1] / e.cov[2],
                            e.normal[0], e.normal[1], e.normal[2], e.opacity};
  store_rows<16, full>(reinterpret_cast<float*>(splats + begin), 16, n, record);
}

static void project_rows(const RasterCall<float>& call, int64_t begin, int n, Splat* splats, ProjectedRows& out) {
  n == 16 ? project_sixteen<true>(call, begin, 16, splats, out) : project_sixteen<false>(call, begin, n, splats, out);
}

// Adds up the rows of the pairs of Gaussians [begin, end), in their order.
static void sum_pair_rows(const PairRows& pairs, int64_t begin, int64_t end, float* sums) {
  for (int64_t i = begin; i < end; i++) {
    f32x16 sum = 0.f;
    for (uint32_t p = pairs.begin[i]; p < pairs.begin[i + 1]; p++)
      if (pairs.touched[p]) sum = sum + load(pairs.rows + static_cast<int64_t>(p) * kRowFloats);
    store(sums + kRowFloats * (i - begin), sum);
  }
}

S3D_INLINE void zero_range(float* p, int64_t n) {
  if (p) std::memset(p, 0, static_cast<size_t>(n) * sizeof(float));
}

S3D_INLINE void zero_gradients(const RasterCall<float>& call, const RasterGrads<float>& out, int n) {
  zero_range(out.means, 3 * n), zero_range(out.quats, 4 * n), zero_range(out.log_scales, 3 * n);
  zero_range(out.opacity_logits, n), zero_range(out.sh0, 3 * n), zero_range(out.grad2d, n);
  if (out.shN) zero_range(out.shN, call.shN_stride * n);
}

template <int n_values, bool full>
S3D_INLINE void store_kept(float* base, int64_t stride, int n, mask16 mask, Lanes* values) {
  for (int k = 0; k < n_values; k++) values[k] = keep(mask, values[k]);
  store_rows<n_values, full>(base, stride, n, values);
}

template <bool full>
S3D_INLINE void store_sh_gradients(const RasterCall<float>& call, float* out, int n, mask16 mask, Lanes* v_shN) {
  const int used = 3 * (sh_count(call.sh_degree) - 1), all = static_cast<int>(call.shN_stride);
  for (int k = used; k < all; k++) v_shN[k] = 0.f;
  if (all == 9) store_kept<9, full>(out, all, n, mask, v_shN);
  if (all == 24) store_kept<24, full>(out, all, n, mask, v_shN);
  if (all == 45) store_kept<45, full>(out, all, n, mask, v_shN);
}

// Bit i: Gaussian begin + i has pairs.
S3D_INLINE uint32_t rows_with_pairs(const PairRows& pairs, int64_t begin, int n) {
  uint32_t rows = 0;
  for (int i = 0; i < n; i++) rows |= static_cast<uint32_t>(pairs.begin[begin + i + 1] > pairs.begin[begin + i]) << i;
  return rows;
}

// Gradients of Gaussians [begin, begin + n), n <= 16, of which those in `rows` have pairs. `pair_sums` and `out` begin
// at Gaussian `begin`. Returns those that are seen.
template <bool full>
S3D_INLINE uint32_t gradient_sixteen(const RasterCall<float>& call, const float* pair_sums, const float* v_median,
                                     int64_t begin, int n, uint32_t rows, const RasterGrads<float>& out,
                                     ViewGrad<Lanes>* v_view) {
  Lanes s[16];
  load_rows<16, full>(pair_sums, kRowFloats, n, s);
  if (v_median) s[kDepth] = s[kDepth] + load_first(v_median + begin, n);
  PixelSums<Lanes> sums;
  sums.moments = {s[kS], s[kSu], s[kSv], s[kSuu], s[kSuv], s[kSvv]};
  for (int c = 0; c < 3; c++) sums.rgb[c] = s[kRed + c], sums.normal[c] = s[kNormal + c];
  sums.depth = s[kDepth];
  const GaussianRow<Lanes> g = load_gaussians<full>(call, begin, n);
  Lanes sh0[3], shN[45];
  load_sh<full>(call, begin, n, sh0, shN);
  GaussianGrads<Lanes> v;
  ViewGrad<Lanes> v_here = {};
  for (Lanes& lane : v_here.R) lane = 0.f;
  for (Lanes& lane : v_here.t) lane = 0.f;
  const mask16 visible = gaussian_vjp(call.view, call.sh_degree, g, sh0, shN, sums, call.with_extra, v, v_view ? &v_here : nullptr) &
                         mask_of(rows);
  if (call.absgrad) v.screen = f32x16(static_cast<float>(2 * kLn2)) * sqrt(fma(s[kAbsX], s[kAbsX], s[kAbsY] * s[kAbsY]));
  store_kept<3, full>(out.means, 3, n, visible, v.row.mean);
  store_kept<4, full>(out.quats, 4, n, visible, v.row.quat);
  store_kept<3, full>(out.log_scales, 3, n, visible, v.row.log_scale);
  store_first(out.opacity_logits, keep(visible, v.row.opacity_logit), n);
  store_kept<3, full>(out.sh0, 3, n, visible, v.sh0);
  store_first(out.grad2d, keep(visible, v.screen), n);
  if (out.shN) store_sh_gradients<full>(call, out.shN, n, visible, v.shN);
  if (v_view) {
    for (int k = 0; k < 9; k++) v_view->R[k] = v_view->R[k] + keep(visible, v_here.R[k]);
    for (int k = 0; k < 3; k++) v_view->t[k] = v_view->t[k] + keep(visible, v_here.t[k]);
  }
  return bits(visible);
}

// Calls f(first Gaussian, how many, of which have pairs, sum for the view) for every sixteen of [begin, end).
template <class F>
S3D_INLINE void each_sixteen(const PairRows& pairs, int64_t begin, int64_t end, ViewGrad<float>* v_view, F f) {
  ViewGrad<Lanes> lanes;
  for (Lanes& lane : lanes.R) lane = 0.f;
  for (Lanes& lane : lanes.t) lane = 0.f;
  for (int64_t i = begin; i < end; i += 16) {
    const int n = static_cast<int>(end - i < 16 ? end - i : 16);
    f(i, n, rows_with_pairs(pairs, i, n), v_view ? &lanes : nullptr);
  }
  if (!v_view) return;
  for (int k = 0; k < 9; k++) v_view->R[k] = lane_sum(lanes.R[k]);
  for (int k = 0; k < 3; k++) v_view->t[k] = lane_sum(lanes.t[k]);
}

static void gradient_rows(const RasterCall<float>& call, const PairRows& pairs, const float* sums, int64_t begin,
                          int64_t end, const RasterGrads<float>& out, ViewGrad<float>* v_view) {
  each_sixteen(pairs, begin, end, v_view, [&](int64_t i, int n, uint32_t rows, ViewGrad<Lanes>* v_lanes) {
    const RasterGrads<float> here = out.from(i, call.shN_stride);
    const float* const mine = sums + kRowFloats * (i - begin);
    if (!rows) zero_gradients(call, here, n);
    else if (n == 16) gradient_sixteen<true>(call, mine, pairs.v_median, i, 16, rows, here, v_lanes);
    else gradient_sixteen<false>(call, mine, pairs.v_median, i, n, rows, here, v_lanes);
  });
}

}  // namespace S3D_NS
}  // namespace scene3d
