// From the sums of one Gaussian over the pixels of an image to the gradients of its parameters.
#pragma once
#include "cpu/raster_call.h"
#include "math/projection.h"
#include "math/sh.h"

namespace scene3d {

template <class T>
struct PixelSums {
  Moments<T> moments;
  T rgb[3], depth, normal[3];
};

template <class T>
void zero_grads(const RasterCall<T>& call, RasterGrads<T>& out, int64_t i) {
  for (int k = 0; k < 3; k++) out.means[3 * i + k] = out.log_scales[3 * i + k] = out.sh0[3 * i + k] = T(0);
  for (int k = 0; k < 4; k++) out.quats[4 * i + k] = T(0);
  out.opacity_logits[i] = T(0);
  if (out.shN)
    for (int64_t k = 0; k < call.shN_stride; k++) out.shN[call.shN_stride * i + k] = T(0);
  out.grad2d[i] = T(0);
}

// Writes the gradients of Gaussian i; adds those of the view.
template <class T>
void gaussian_backward(const RasterCall<T>& call, int64_t i, const PixelSums<T>& sums, const T* abs_grad,
                       RasterGrads<T>& out, ViewGrad<T>* v_view) {
  const GaussianRow<T> row = call.row(i);
  Ellipse<T> e;
  if (!project(call.view, row, e, T(0))) return zero_grads(call, out, i);
  EllipseGrad<T> v;
  moments_vjp(e, sums.moments, v);
  v.depth = sums.depth;
  for (int c = 0; c < 3; c++) v.normal[c] = sums.normal[c];
  out.grad2d[i] = abs_grad ? 2 * T(kLn2) * std::sqrt(abs_grad[0] * abs_grad[0] + abs_grad[1] * abs_grad[1])
                           : std::sqrt(v.x * v.x + v.y * v.y);
  GaussianGrad<T> g = {};
  project_vjp(call.view, row, e, v, g, v_view);

  T d[3], rgb[3], v_rgb[3], v_d[3] = {0, 0, 0};
  const T length = view_direction(row.mean, call.view.center, d);
  const T* sh0 = call.sh0 + 3 * i;
  const T* shN = call.shN + call.shN_stride * i;
  sh_color(call.sh_degree, d, sh0, shN, rgb);
  for (int c = 0; c < 3; c++) v_rgb[c] = rgb[c] > T(0) ? sums.rgb[c] : T(0);
  const int used = 3 * (sh_count(call.sh_degree) - 1);
  T* v_shN = out.shN ? out.shN + call.shN_stride * i : nullptr;
  sh_color_vjp(call.sh_degree, d, shN, v_rgb, out.sh0 + 3 * i, v_shN, v_d);
  if (v_shN)
    for (int64_t k = used; k < call.shN_stride; k++) v_shN[k] = T(0);
  const T along = d[0] * v_d[0] + d[1] * v_d[1] + d[2] * v_d[2];
  const T inv = length > T(0) ? T(1) / length : T(0);
  T v_offset[3];
  for (int k = 0; k < 3; k++) v_offset[k] = (v_d[k] - along * d[k]) * inv, g.mean[k] += v_offset[k];
  if (v_view) {  // the camera centre is -R^T t
    for (int r = 0; r < 3; r++)
      for (int k = 0; k < 3; k++) {
        v_view->t[r] += call.view.R[3 * r + k] * v_offset[k];
        v_view->R[3 * r + k] += call.view.t[r] * v_offset[k];
      }
  }
  for (int k = 0; k < 3; k++) out.means[3 * i + k] = g.mean[k], out.log_scales[3 * i + k] = g.log_scale[k];
  for (int k = 0; k < 4; k++) out.quats[4 * i + k] = g.quat[k];
  out.opacity_logits[i] = g.opacity_logit;
}

}  // namespace scene3d
