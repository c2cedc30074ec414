#include "cpu/raster_plain.h"

#include <algorithm>
#include <vector>

#include "math/gaussian_vjp.h"

namespace scene3d {
namespace {

template <class T>
struct Visible {
  int64_t id;
  Ellipse<T> ellipse;
  T rgb[3];
};

template <class T>
std::vector<Visible<T>> visible_by_depth(const RasterCall<T>& call, bool cutoff) {
  std::vector<Visible<T>> visible;
  for (int64_t i = 0; i < call.n; i++) {
    Visible<T> v;
    v.id = i;
    if (!project(call.view, call.row(i), cutoff ? T(kMinAlpha) : T(0), call.with_extra, v.ellipse)) continue;
    T d[3];
    view_direction(call.means + 3 * i, call.view.center, d);
    sh_color(call.sh_degree, d, call.sh0 + 3 * i, call.shN + call.shN_stride * i, v.rgb);
    visible.push_back(v);
  }
  std::stable_sort(visible.begin(), visible.end(),
                   [](const Visible<T>& a, const Visible<T>& b) { return a.ellipse.depth < b.ellipse.depth; });
  return visible;
}

// Alpha at a pixel centre, with the whitened offset.
template <class T>
T alpha_at(const Ellipse<T>& e, T px, T py, T& u, T& v) {
  const T dx = px - e.x, dy = py - e.y;
  u = e.l11 * dx + e.l21 * dy, v = e.l22 * dy;
  return e.opacity * std::exp2(-(u * u + v * v));
}

// Factor on the alpha of a Gaussian.
template <class T>
T mask_of(const RasterCall<T>& call, int64_t id) {
  return call.masks ? call.masks[id] : T(1);
}

template <class T>
void blend_pixel(const RasterCall<T>& call, const std::vector<Visible<T>>& visible, bool cutoff, int64_t p,
                 const RasterImages<T>& out) {
  const T px = T(p % call.width) + T(0.5), py = T(p / call.width) + T(0.5);
  T transmittance = 1, rgb[3] = {0, 0, 0}, depth = 0, normal[3] = {0, 0, 0}, median = 0, u, v;
  int32_t median_id = -1;
  for (const Visible<T>& s : visible) {
    const T raw = alpha_at(s.ellipse, px, py, u, v);
    if (cutoff && raw < T(kMinAlpha)) continue;
    const T weight = mask_of(call, s.id) * std::min(raw, T(kMaxAlpha)) * transmittance;
    for (int c = 0; c < 3; c++) rgb[c] += weight * s.rgb[c], normal[c] += weight * s.ellipse.normal[c];
    depth += weight * s.ellipse.depth;
    const T after = transmittance - weight;
    if (transmittance >= T(0.5) && after < T(0.5)) median = s.ellipse.depth, median_id = static_cast<int32_t>(s.id);
    transmittance = after;
    if (cutoff && transmittance < T(kMinTransmittance)) break;
  }
  for (int c = 0; c < 3; c++) out.rgb[3 * p + c] = rgb[c] + transmittance * call.background[c];
  out.alpha[p] = 1 - transmittance;
  if (!call.with_extra) return;
  out.depth[p] = depth, out.median[p] = median, out.median_id[p] = median_id;
  for (int c = 0; c < 3; c++) out.normals[3 * p + c] = normal[c];
}

template <class T>
void blend_pixel_backward(const RasterCall<T>& call, const std::vector<Visible<T>>& visible, bool cutoff, int64_t p,
                          const RasterImages<T>& images, const RasterUpstream<T>& up, std::vector<PixelSums<T>>& sums,
                          std::vector<T>& v_masks) {
  const T px = T(p % call.width) + T(0.5), py = T(p / call.width) + T(0.5);
  const T *v_rgb = up.rgb + 3 * p, alpha = images.alpha[p];
  const T v_depth = up.depth ? up.depth[p] : T(0);
  T v_normal[3] = {0, 0, 0}, v_alpha = up.alpha ? up.alpha[p] : T(0), behind = 0, transmittance = 1, u, v;
  for (int c = 0; c < 3; c++) {
    if (up.normals) v_normal[c] = up.normals[3 * p + c], behind += v_normal[c] * images.normals[3 * p + c];
    v_alpha -= v_rgb[c] * call.background[c];
    behind += v_rgb[c] * (images.rgb[3 * p + c] - (1 - alpha) * call.background[c]);
  }
  behind += v_alpha * alpha + (up.depth ? v_depth * images.depth[p] : T(0));
  for (size_t k = 0; k < visible.size(); k++) {
    const Visible<T>& s = visible[k];
    const T raw = alpha_at(s.ellipse, px, py, u, v);
    if (cutoff && raw < T(kMinAlpha)) continue;
    const T mask = mask_of(call, s.id), unmasked = std::min(raw, T(kMaxAlpha)), a = mask * unmasked, weight = a * transmittance;
    T color = v_alpha + v_depth * s.ellipse.depth;
    for (int c = 0; c < 3; c++) color += v_rgb[c] * s.rgb[c] + v_normal[c] * s.ellipse.normal[c];
    behind -= weight * color;
    // By what is blended: there is a gradient for the mask also where nothing is.
    const T v_blended = transmittance * color - behind / (1 - a), v_power = raw < T(kMaxAlpha) ? v_blended * a : T(0);
    v_masks[static_cast<size_t>(s.id)] += v_blended * unmasked;
    Moments<T>& m = sums[k].moments;
    m.s += v_power, m.u += v_power * u, m.v += v_power * v;
    m.uu += v_power * u * u, m.uv += v_power * u * v, m.vv += v_power * v * v;
    for (int c = 0; c < 3; c++) sums[k].rgb[c] += weight * v_rgb[c], sums[k].normal[c] += weight * v_normal[c];
    sums[k].depth += weight * v_depth;
    transmittance -= weight;
    if (cutoff && transmittance < T(kMinTransmittance)) break;
  }
}

void zero_grads(const RasterCall<double>& call, RasterGrads<double>& out) {
  const auto zero = [](double* p, int64_t n) {
    if (p) std::fill(p, p + n, 0.0);
  };
  zero(out.means, 3 * call.n), zero(out.quats, 4 * call.n), zero(out.log_scales, 3 * call.n);
  zero(out.opacity_logits, call.n), zero(out.sh0, 3 * call.n), zero(out.shN, call.shN_stride * call.n);
  zero(out.grad2d, call.n);
}

void write_grads(const RasterCall<double>& call, int64_t i, const GaussianGrads<double>& v, RasterGrads<double>& out) {
  for (int k = 0; k < 3; k++) out.means[3 * i + k] = v.row.mean[k], out.log_scales[3 * i + k] = v.row.log_scale[k];
  for (int k = 0; k < 4; k++) out.quats[4 * i + k] = v.row.quat[k];
  for (int k = 0; k < 3; k++) out.sh0[3 * i + k] = v.sh0[k];
  for (int k = 0; out.shN && k < 3 * (sh_count(call.sh_degree) - 1); k++) out.shN[call.shN_stride * i + k] = v.shN[k];
  out.opacity_logits[i] = v.row.opacity_logit;
  out.grad2d[i] = v.screen;
}

}  // namespace

void plain_forward(const RasterCall<double>& call, bool cutoff, const RasterImages<double>& out, double* radii) {
  const auto visible = visible_by_depth(call, cutoff);
  std::fill(radii, radii + call.n, 0.0);
  for (const auto& s : visible) radii[s.id] = std::max(s.ellipse.half_x, s.ellipse.half_y);
  for (int64_t p = 0; p < static_cast<int64_t>(call.width) * call.height; p++) blend_pixel(call, visible, cutoff, p, out);
}

void plain_backward(const RasterCall<double>& call, bool cutoff, const RasterImages<double>& images,
                    const RasterUpstream<double>& upstream, RasterGrads<double>& out) {
  const auto visible = visible_by_depth(call, cutoff);
  std::vector<PixelSums<double>> sums(visible.size());
  std::vector<double> v_median(static_cast<size_t>(call.n), 0.0), v_masks(v_median);
  for (int64_t p = 0; p < static_cast<int64_t>(call.width) * call.height; p++) {
    blend_pixel_backward(call, visible, cutoff, p, images, upstream, sums, v_masks);
    if (upstream.median && images.median_id[p] >= 0) v_median[static_cast<size_t>(images.median_id[p])] += upstream.median[p];
  }
  zero_grads(call, out);
  if (out.masks) std::copy(v_masks.begin(), v_masks.end(), out.masks);
  ViewGrad<double> v_view = {};
  for (size_t k = 0; k < visible.size(); k++) {
    const int64_t i = visible[k].id;
    sums[k].depth += v_median[static_cast<size_t>(i)];
    GaussianGrads<double> v;
    gaussian_vjp(call.view, call.sh_degree, call.row(i), call.sh0 + 3 * i, call.shN + call.shN_stride * i, sums[k],
                 call.with_extra, v, out.viewmat ? &v_view : nullptr);
    write_grads(call, i, v, out);
  }
  if (!out.viewmat) return;
  std::fill(out.viewmat, out.viewmat + 16, 0.0);
  for (int i = 0; i < 3; i++) {
    out.viewmat[4 * i + 3] = v_view.t[i];
    for (int j = 0; j < 3; j++) out.viewmat[4 * i + j] = v_view.R[3 * i + j];
  }
}

}  // namespace scene3d
