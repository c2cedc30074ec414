// A flat Gaussian met by rays (Huang et al. 2024, 2D Gaussian Splatting), and the vector-Jacobian product.
//
// In the camera the disc is {p + u t + v s}: t and s are its axes times its scales. The ray z (x, y, 1) meets it where
// u = a.r / c.r, v = b.r / c.r, z = det / c.r with a = s x p, b = p x t, c = t x s, det = p.c: linear forms of the pixel.
// Seen edge-on, or when smaller than a pixel, it is a round blur of deviation sqrt(1/2) pixels about its centre instead.
#pragma once
#include "math/config.h"
#include "math/constants.h"

namespace scene3d {

// How pixels become rays, and what reaches how far.
template <class S>
struct SurfelView {
  S fx, fy, cx, cy, near_z;
};

template <class S>
struct Surfel {
  S a[3], b[3], c[3], det;
  S x, y, z;       // of the centre: the ray (x, y, 1) and the depth
  S opacity;
  S rgb[3], normal[3];
};

constexpr int kSurfelSums = 20;
// Where in the sums over pixels which derivative stands: by a, b, c, det, centre (x, y, z), opacity, rgb, normal.
enum SurfelSum { kDiscA = 0, kDiscB = 3, kDiscC = 6, kDiscDet = 9, kDiscCentre = 10, kDiscOpacity = 13, kDiscRgb = 14, kDiscNormal = 17 };

// Where sixteen or one pixels meet a disc.
template <class T>
struct SurfelHit {
  T u, v, inv_c, z, power;
  T is_disc;  // 1 where the disc counts, 0 where its blur does
};

template <class T>
S3D_HD void cross3(const T* a, const T* b, T* out) {
  out[0] = a[1] * b[2] - a[2] * b[1], out[1] = a[2] * b[0] - a[0] * b[2], out[2] = a[0] * b[1] - a[1] * b[0];
}

// columns: t, s, p by rows of the 3x3 matrix [t s p]. False where the centre is not before the camera.
template <class S>
S3D_HD bool make_surfel(const SurfelView<S>& view, const S* matrix, Surfel<S>& g) {
  S t[3], s[3], p[3];
  for (int i = 0; i < 3; i++) t[i] = matrix[3 * i], s[i] = matrix[3 * i + 1], p[i] = matrix[3 * i + 2];
  cross3(s, p, g.a), cross3(p, t, g.b), cross3(t, s, g.c);
  g.det = p[0] * g.c[0] + p[1] * g.c[1] + p[2] * g.c[2];
  g.z = p[2], g.x = p[0] / p[2], g.y = p[1] / p[2];
  return p[2] >= view.near_z && is_finite(g.det + g.x + g.y);
}

// Half sides and middle, pixels, of the box around {u^2 + v^2 <= reach}; false where the disc crosses the plane of the
// camera, where it has no box.
template <class S>
S3D_HD bool surfel_box(const SurfelView<S>& view, const S* matrix, S reach, S* middle, S* half) {
  const S* m = matrix;
  const S w = reach * (m[6] * m[6] + m[7] * m[7]) - m[8] * m[8];
  if (!(w < S(0))) return false;
  const S focal[2] = {view.fx, view.fy}, centre[2] = {view.cx, view.cy};
  for (int k = 0; k < 2; k++) {
    const S* r = m + 3 * k;
    const S mixed = (reach * (r[0] * m[6] + r[1] * m[7]) - r[2] * m[8]) / w;
    const S own = (reach * (r[0] * r[0] + r[1] * r[1]) - r[2] * r[2]) / w;
    const S square = mixed * mixed - own;
    middle[k] = mixed * focal[k] + centre[k];
    half[k] = sqrt(choose(S(0) < square, square, S(0))) * focal[k];
  }
  return true;
}

// The box in pixels of what is not below the least alpha, of the disc or of its blur, whichever is larger; false where
// there is none.
template <class S>
S3D_HD bool surfel_bounds(const SurfelView<S>& view, const S* matrix, const Surfel<S>& g, S* low, S* high) {
  const S reach = S(2 * kLn2) * log2(g.opacity / S(kMinAlpha));
  if (!(S(0) < reach)) return false;
  S middle[2], half[2];
  if (!surfel_box(view, matrix, reach, middle, half)) return false;
  const S centre[2] = {g.x * view.fx + view.cx, g.y * view.fy + view.cy}, blur = sqrt(reach / S(2));
  for (int k = 0; k < 2; k++) {
    const S left = middle[k] - half[k], right = middle[k] + half[k];
    low[k] = choose(left < centre[k] - blur, left, centre[k] - blur);
    high[k] = choose(centre[k] + blur < right, right, centre[k] + blur);
    if (!is_finite(low[k] + high[k])) return false;
  }
  return true;
}

// dx, dy: the ray less that of the centre.
template <class T, class S>
S3D_HD void meet(const SurfelView<S>& view, const Surfel<S>& g, T dx, T dy, SurfelHit<T>& hit) {
  const T c = T(g.det / g.z) + T(g.c[0]) * dx + T(g.c[1]) * dy;
  const T safe = choose((c < T(1e-30f)) & (T(-1e-30f) < c), T(1e-30f), c);
  hit.inv_c = T(1) / safe;
  hit.u = (T(g.a[0]) * dx + T(g.a[1]) * dy) * hit.inv_c, hit.v = (T(g.b[0]) * dx + T(g.b[1]) * dy) * hit.inv_c;
  const T disc = hit.u * hit.u + hit.v * hit.v, px = dx * T(view.fx), py = dy * T(view.fy);
  const T blur = T(2) * (px * px + py * py);
  const T z = T(g.det) * hit.inv_c;
  // The far side of the plane of the disc, behind the camera, is no hit; NaN compares false.
  const auto is_disc = (disc < blur) & (T(view.near_z) < z);
  hit.is_disc = choose(is_disc, T(1), T(0));
  hit.power = choose(is_disc, disc, blur), hit.z = choose(is_disc, z, T(g.z));
  hit.u = choose(is_disc, hit.u, T(0)), hit.v = choose(is_disc, hit.v, T(0));
  hit.inv_c = choose(is_disc, hit.inv_c, T(0));
}

// Adds the derivatives of power and z to the first 13 sums. x, y: the ray.
template <class T, class S>
S3D_HD void meet_vjp(const SurfelView<S>& view, const Surfel<S>& g, const SurfelHit<T>& hit, T x, T y, T v_power, T v_z,
                     T* sums) {
  const T na = T(2) * hit.u * hit.inv_c * v_power, nb = T(2) * hit.v * hit.inv_c * v_power;
  const T v_disc_z = v_z * hit.is_disc;
  const T nc = -(hit.u * na + hit.v * nb) - v_disc_z * hit.z * hit.inv_c;
  sums[kDiscA] += na * x, sums[kDiscA + 1] += na * y, sums[kDiscA + 2] += na;
  sums[kDiscB] += nb * x, sums[kDiscB + 1] += nb * y, sums[kDiscB + 2] += nb;
  sums[kDiscC] += nc * x, sums[kDiscC + 1] += nc * y, sums[kDiscC + 2] += nc;
  sums[kDiscDet] += v_disc_z * hit.inv_c;
  const T v_blur = (T(1) - hit.is_disc) * v_power * T(-4);
  sums[kDiscCentre] += v_blur * (x - T(g.x)) * T(view.fx * view.fx);
  sums[kDiscCentre + 1] += v_blur * (y - T(g.y)) * T(view.fy * view.fy);
  sums[kDiscCentre + 2] += v_z - v_disc_z;
}

// From the first 13 sums to the derivative by the matrix [t s p], by rows, added to v_matrix.
template <class S>
S3D_HD void make_surfel_vjp(const S* matrix, const Surfel<S>& g, const S* sums, S* v_matrix) {
  S t[3], s[3], p[3], v_t[3], v_s[3], v_p[3], v_c[3], more[3];
  for (int i = 0; i < 3; i++) t[i] = matrix[3 * i], s[i] = matrix[3 * i + 1], p[i] = matrix[3 * i + 2];
  for (int i = 0; i < 3; i++) v_c[i] = sums[kDiscC + i] + sums[kDiscDet] * p[i];
  // w = x × y: v_x = y × v_w, v_y = v_w × x.
  cross3(p, sums + kDiscA, v_s), cross3(sums + kDiscA, s, v_p);
  cross3(sums + kDiscB, p, v_t), cross3(t, sums + kDiscB, more);
  for (int i = 0; i < 3; i++) v_p[i] += more[i] + sums[kDiscDet] * g.c[i];
  cross3(s, v_c, more);
  for (int i = 0; i < 3; i++) v_t[i] += more[i];
  cross3(v_c, t, more);
  for (int i = 0; i < 3; i++) v_s[i] += more[i];
  const S inv = S(1) / g.z, v_x = sums[kDiscCentre], v_y = sums[kDiscCentre + 1];
  v_p[0] += v_x * inv, v_p[1] += v_y * inv;
  v_p[2] += sums[kDiscCentre + 2] - (v_x * g.x + v_y * g.y) * inv;
  for (int i = 0; i < 3; i++) v_matrix[3 * i] += v_t[i], v_matrix[3 * i + 1] += v_s[i], v_matrix[3 * i + 2] += v_p[i];
}

}  // namespace scene3d
