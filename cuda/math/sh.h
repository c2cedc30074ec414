// View-dependent colour by real spherical harmonics, degree 0 to 3, in the order and signs of 3D Gaussian Splatting.
#pragma once
#include "math/config.h"

namespace scene3d {

S3D_HD int sh_count(int degree) { return (degree + 1) * (degree + 1); }

// Basis functions at a unit direction. Y[(degree+1)^2]
template <class T>
S3D_HD void sh_basis(int degree, const T* d, T* Y) {
  Y[0] = T(0.28209479177387814);
  if (degree < 1) return;
  const T x = d[0], y = d[1], z = d[2];
  const T c1 = T(0.4886025119029199);
  Y[1] = -c1 * y, Y[2] = c1 * z, Y[3] = -c1 * x;
  if (degree < 2) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  Y[4] = T(1.0925484305920792) * x * y, Y[5] = T(-1.0925484305920792) * y * z;
  Y[6] = T(0.31539156525252005) * (2 * zz - xx - yy);
  Y[7] = T(-1.0925484305920792) * x * z, Y[8] = T(0.5462742152960396) * (xx - yy);
  if (degree < 3) return;
  Y[9] = T(-0.5900435899266435) * y * (3 * xx - yy), Y[10] = T(2.890611442640554) * x * y * z;
  Y[11] = T(-0.4570457994644658) * y * (4 * zz - xx - yy), Y[12] = T(0.3731763325901154) * z * (2 * zz - 3 * xx - 3 * yy);
  Y[13] = T(-0.4570457994644658) * x * (4 * zz - xx - yy), Y[14] = T(1.445305721320277) * z * (xx - yy);
  Y[15] = T(-0.5900435899266435) * x * (xx - 3 * yy);
}

// Adds Σ_k v_Y[k] dY[k]/dd to v_d.
template <class T>
S3D_HD void sh_basis_vjp(int degree, const T* d, const T* v, T* v_d) {
  if (degree < 1) return;
  const T x = d[0], y = d[1], z = d[2];
  const T c1 = T(0.4886025119029199);
  T gx = -c1 * v[3], gy = -c1 * v[1], gz = c1 * v[2];
  if (degree >= 2) {
    const T a = T(1.0925484305920792), b = T(0.31539156525252005), c = T(0.5462742152960396);
    gx += a * (y * v[4] - z * v[7]) - 2 * b * x * v[6] + 2 * c * x * v[8];
    gy += a * (x * v[4] - z * v[5]) - 2 * b * y * v[6] - 2 * c * y * v[8];
    gz += -a * (y * v[5] + x * v[7]) + 4 * b * z * v[6];
  }
  if (degree >= 3) {
    const T xx = x * x, yy = y * y, zz = z * z;
    const T a = T(-0.5900435899266435), b = T(2.890611442640554), c = T(-0.4570457994644658);
    const T e = T(0.3731763325901154), h = T(1.445305721320277);
    gx += a * 6 * x * y * v[9] + b * y * z * v[10] - c * 2 * x * y * v[11] - e * 6 * x * z * v[12];
    gx += c * (4 * zz - 3 * xx - yy) * v[13] + h * 2 * x * z * v[14] + a * 3 * (xx - yy) * v[15];
    gy += a * 3 * (xx - yy) * v[9] + b * x * z * v[10] + c * (4 * zz - xx - 3 * yy) * v[11] - e * 6 * y * z * v[12];
    gy += -c * 2 * x * y * v[13] - h * 2 * y * z * v[14] - a * 6 * x * y * v[15];
    gz += b * x * y * v[10] + c * 8 * y * z * v[11] + e * 3 * (2 * zz - xx - yy) * v[12] + c * 8 * x * z * v[13];
    gz += h * (xx - yy) * v[14];
  }
  v_d[0] += gx, v_d[1] += gy, v_d[2] += gz;
}

// Unit direction from the camera to the Gaussian and the distance.
template <class T, class S>
S3D_HD T view_direction(const T* mean, const S* center, T* d) {
  T sum = 0;
  for (int i = 0; i < 3; i++) d[i] = mean[i] - T(center[i]), sum += d[i] * d[i];
  const T length = sqrt(sum);
  const T inv = choose(T(0) < length, T(1) / length, T(0));
  for (int i = 0; i < 3; i++) d[i] = d[i] * inv;
  return length;
}

// rgb = max(Σ_k Y_k c_k + 1/2, 0)
template <class T>
S3D_HD void sh_color(int degree, const T* d, const T* sh0, const T* shN, T* rgb) {
  T Y[16];
  sh_basis(degree, d, Y);
  for (int c = 0; c < 3; c++) rgb[c] = Y[0] * sh0[c] + T(0.5);
  const int n = sh_count(degree);
  for (int k = 1; k < n; k++)
    for (int c = 0; c < 3; c++) rgb[c] += Y[k] * shN[3 * (k - 1) + c];
  for (int c = 0; c < 3; c++) rgb[c] = choose(T(0) < rgb[c], rgb[c], T(0));
}

// v_rgb is zero already where the colour was clamped. Writes v_sh0 and v_shN[: n-1], adds to v_d (by the unit direction).
// v_shN may be shN itself.
template <class T>
S3D_HD void sh_color_vjp(int degree, const T* d, const T* shN, const T* v_rgb, T* v_sh0, T* v_shN, T* v_d) {
  T Y[16], v_Y[16] = {};
  sh_basis(degree, d, Y);
  for (int c = 0; c < 3; c++) v_sh0[c] = Y[0] * v_rgb[c];
  const int n = sh_count(degree);
  for (int k = 1; k < n; k++) {
    v_Y[k] = 0;
    for (int c = 0; c < 3; c++) {
      const T coefficient = shN[3 * (k - 1) + c];
      v_shN[3 * (k - 1) + c] = Y[k] * v_rgb[c];
      v_Y[k] += v_rgb[c] * coefficient;
    }
  }
  sh_basis_vjp(degree, d, v_Y, v_d);
}

}  // namespace scene3d
