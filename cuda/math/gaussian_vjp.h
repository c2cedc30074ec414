// From the sums of one Gaussian over the pixels of an image to the gradients of its parameters.
#pragma once
#include "math/projection.h"
#include "math/sh.h"

namespace scene3d {

template <class T>
struct PixelSums {
  Moments<T> moments;
  T rgb[3], depth, normal[3];
};

template <class T>
struct GaussianGrads {
  GaussianRow<T> row;
  T sh0[3], shN[45];
  T screen;  // length of the gradient by the centre on the screen
};

// Writes the gradients of one Gaussian (v_sh0 [3]; v_shN as far as the degree goes, it may be shN itself) and `screen`,
// and adds to v_view if given. False where the Gaussian is not seen: the numbers are then without meaning.
template <class T, class S>
S3D_HD MaskOf<T> gaussian_vjp(const View<S>& view, int degree, const GaussianRow<T>& row, const T* sh0, const T* shN,
                              const PixelSums<T>& sums, bool with_normal, GaussianRow<T>& v_row, T& screen, T* v_sh0,
                              T* v_shN, ViewGrad<T>* v_view) {
  Ellipse<T> e;
  const MaskOf<T> visible = project(view, row, S(0), with_normal, e);
  EllipseGrad<T> v;
  moments_vjp(e, sums.moments, v);
  v.depth = sums.depth;
  for (int c = 0; c < 3; c++) v.normal[c] = sums.normal[c];
  screen = sqrt(v.x * v.x + v.y * v.y);
  for (int k = 0; k < 3; k++) v_row.mean[k] = v_row.log_scale[k] = T(0);
  for (int k = 0; k < 4; k++) v_row.quat[k] = T(0);
  v_row.opacity_logit = T(0);
  project_vjp(view, row, e, v, with_normal, v_row, v_view);

  T d[3], rgb[3], v_rgb[3], v_d[3] = {T(0), T(0), T(0)};
  const T length = view_direction(row.mean, view.center, d);
  sh_color(degree, d, sh0, shN, rgb);
  for (int c = 0; c < 3; c++) v_rgb[c] = choose(T(0) < rgb[c], sums.rgb[c], T(0));
  sh_color_vjp(degree, d, shN, v_rgb, v_sh0, v_shN, v_d);
  const T along = d[0] * v_d[0] + d[1] * v_d[1] + d[2] * v_d[2];
  const T inv = choose(T(0) < length, T(1) / length, T(0));
  T v_offset[3];
  for (int k = 0; k < 3; k++) v_offset[k] = (v_d[k] - along * d[k]) * inv, v_row.mean[k] += v_offset[k];
  if (!v_view) return visible;
  for (int r = 0; r < 3; r++)  // the camera centre is -R^T t
    for (int k = 0; k < 3; k++) {
      v_view->t[r] += T(view.R[3 * r + k]) * v_offset[k];
      v_view->R[3 * r + k] += T(view.t[r]) * v_offset[k];
    }
  return visible;
}

// The same into one record.
template <class T, class S>
S3D_HD MaskOf<T> gaussian_vjp(const View<S>& view, int degree, const GaussianRow<T>& row, const T* sh0, const T* shN,
                              const PixelSums<T>& sums, bool with_normal, GaussianGrads<T>& out, ViewGrad<T>* v_view) {
  return gaussian_vjp(view, degree, row, sh0, shN, sums, with_normal, out.row, out.screen, out.sh0, out.shN, v_view);
}

}  // namespace scene3d
