// What one call of a rasterizer takes, for both the tiled (float) and the plain (any type) one.
#pragma once
#include <cstdint>

#include "math/projection.h"

namespace scene3d {

template <class T>
struct RasterCall {
  View<T> view;
  int width, height, sh_degree;
  int64_t n;
  int64_t shN_stride;  // numbers per Gaussian in shN
  const T *means, *quats, *log_scales, *opacity_logits, *sh0, *shN;
  const T* masks = nullptr;  // [N], 0 to 1: factors on alpha after it was cut off; null = 1, and no depth or normals with them
  T background[3];
  bool with_extra, absgrad;

  S3D_HD_MEMBER GaussianRow<T> row(int64_t i) const {
    const T *m = means + 3 * i, *q = quats + 4 * i, *s = log_scales + 3 * i;
    return {{m[0], m[1], m[2]}, {q[0], q[1], q[2], q[3]}, {s[0], s[1], s[2]}, opacity_logits[i]};
  }
};

// Images, [H, W, ...]; those of with_extra may be null without it. Depth is sum w z.
template <class T>
struct RasterImages {
  T *rgb, *alpha, *depth, *normals, *median;
  int32_t* median_id;
};

// Upstream gradients; null means zero, but for rgb.
template <class T>
struct RasterUpstream {
  const T *rgb, *alpha, *depth, *normals, *median;
};

// Gradients, every element written; shN may be null when the degree is 0.
template <class T>
struct RasterGrads {
  T *means, *quats, *log_scales, *opacity_logits, *sh0, *shN;
  T* viewmat;  // [4, 4], null = not wanted
  T* grad2d;   // [N]
  T* masks = nullptr;  // [N]; also of those whose mask is 0

  // The same arrays from Gaussian i on.
  S3D_HD_MEMBER RasterGrads from(int64_t i, int64_t shN_stride) const {
    return {means + 3 * i, quats + 4 * i, log_scales + 3 * i, opacity_logits + i,
            sh0 + 3 * i,   shN ? shN + shN_stride * i : nullptr, viewmat, grad2d + i,
            masks ? masks + i : nullptr};
  }
};

// viewmat [4, 4] and K [3, 3] to a View.
template <class T>
View<T> make_view(const double* viewmat, const double* K, int width, int height, double near_z, double far_z,
                  double eps2d, bool antialiased) {
  View<T> v;
  for (int i = 0; i < 3; i++) {
    v.t[i] = static_cast<T>(viewmat[4 * i + 3]);
    for (int j = 0; j < 3; j++) v.R[3 * i + j] = static_cast<T>(viewmat[4 * i + j]);
  }
  for (int j = 0; j < 3; j++) {
    double c = 0;
    for (int i = 0; i < 3; i++) c -= viewmat[4 * i + j] * viewmat[4 * i + 3];
    v.center[j] = static_cast<T>(c);
  }
  const double fx = K[0], fy = K[4], cx = K[2], cy = K[5];
  const double margin_x = kFrustumMargin * 0.5 * width / fx, margin_y = kFrustumMargin * 0.5 * height / fy;
  v.fx = static_cast<T>(fx), v.fy = static_cast<T>(fy), v.cx = static_cast<T>(cx), v.cy = static_cast<T>(cy);
  v.x_low = static_cast<T>(-cx / fx - margin_x), v.x_high = static_cast<T>((width - cx) / fx + margin_x);
  v.y_low = static_cast<T>(-cy / fy - margin_y), v.y_high = static_cast<T>((height - cy) / fy + margin_y);
  v.near_z = static_cast<T>(near_z), v.far_z = static_cast<T>(far_z), v.eps2d = static_cast<T>(eps2d);
  v.antialiased = antialiased;
  return v;
}

}  // namespace scene3d
