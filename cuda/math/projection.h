// One Gaussian to one ellipse on the screen (EWA splatting, Zwicker et al. 2002) and its vector-Jacobian product.
//
// Letters: A (2x3) = J W R S is the affine image of the unit sphere, so that the screen covariance is A A^T.
// The conic is carried as its whitening factor: u = l11 dx + l21 dy, v = l22 dy, and the exponent is -(u^2 + v^2) in
// powers of two, which needs neither the conic nor its inverse again.
#pragma once
#include "math/config.h"
#include "math/constants.h"

namespace scene3d {

template <class T>
struct View {
  T R[9];  // cam_from_world rotation, row-major
  T t[3];
  T fx, fy, cx, cy;
  T x_low, x_high, y_low, y_high;  // clamp of x/z and y/z in the Jacobian
  T center[3];                     // camera position in the world
  T near_z, far_z, eps2d;
  bool antialiased;
};

template <class T>
struct GaussianRow {
  const T* mean;
  const T* quat;
  const T* log_scale;
  T opacity_logit;
};

template <class T>
struct Ellipse {
  T x, y, depth;
  T cov[3];        // xx xy yy, dilated
  T det;           // of cov
  T compensation;  // Mip-Splatting's factor, 1 unless antialiased
  T opacity;       // sigmoid(logit) * compensation
  T l11, l21, l22;
  T half_x, half_y;  // extent of the alpha = 1/255 contour, pixels
  T normal[3];       // shortest axis, facing the camera, world
};

template <class T>
struct EllipseGrad {
  T x, y, depth;
  T cov[3];  // derivative by the symmetric matrix: xx, xy (= yx), yy
  T opacity;
  T normal[3];
};

template <class T>
struct GaussianGrad {
  T mean[3], quat[4], log_scale[3], opacity_logit;
};

// Accumulated over Gaussians: derivative by viewmat's upper 3x4.
template <class T>
struct ViewGrad {
  T R[9], t[3];
};

// Intermediates shared by project and project_vjp.
template <class T>
struct ProjectionFrame {
  T p[3];          // centre in the camera
  T tx, ty;        // x, y as the Jacobian sees them (clamped)
  bool clamped_x, clamped_y;
  T q[4], q_norm;  // unit quaternion, length
  T Rq[9];
  T scale[3];
  T J[4];      // J00, J02, J11, J12
  T G[6];      // J W
  T A[6];      // G Rq S
  int shortest;
  T normal_sign;
};

template <class T>
S3D_HD void rotation_of_quat(const T* q, T* R) {
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  R[0] = 1 - 2 * (y * y + z * z), R[1] = 2 * (x * y - w * z), R[2] = 2 * (x * z + w * y);
  R[3] = 2 * (x * y + w * z), R[4] = 1 - 2 * (x * x + z * z), R[5] = 2 * (y * z - w * x);
  R[6] = 2 * (x * z - w * y), R[7] = 2 * (y * z + w * x), R[8] = 1 - 2 * (x * x + y * y);
}

// Derivative by the unnormalised quaternion; q is the unit one and norm the length it was divided by.
template <class T>
S3D_HD void rotation_of_quat_vjp(const T* q, T norm, const T* v_R, T* v_quat) {
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  T v[4];
  v[0] = 2 * (x * (v_R[7] - v_R[5]) + y * (v_R[2] - v_R[6]) + z * (v_R[3] - v_R[1]));
  v[1] = 2 * (-2 * x * (v_R[4] + v_R[8]) + y * (v_R[3] + v_R[1]) + z * (v_R[6] + v_R[2]) + w * (v_R[7] - v_R[5]));
  v[2] = 2 * (x * (v_R[3] + v_R[1]) - 2 * y * (v_R[0] + v_R[8]) + z * (v_R[7] + v_R[5]) + w * (v_R[2] - v_R[6]));
  v[3] = 2 * (x * (v_R[6] + v_R[2]) + y * (v_R[7] + v_R[5]) - 2 * z * (v_R[0] + v_R[4]) + w * (v_R[3] - v_R[1]));
  const T along = v[0] * w + v[1] * x + v[2] * y + v[3] * z;
  for (int i = 0; i < 4; i++) v_quat[i] += (v[i] - along * q[i]) / norm;
}

template <class T>
S3D_HD bool is_finite_row(const GaussianRow<T>& g) {
  T s = g.opacity_logit;
  for (int i = 0; i < 3; i++) s += g.mean[i] + g.log_scale[i];
  for (int i = 0; i < 4; i++) s += g.quat[i];
  return s - s == T(0);
}

// False when the Gaussian is culled: depth, degenerate rotation or scale.
template <class T>
S3D_HD bool make_frame(const View<T>& view, const GaussianRow<T>& g, ProjectionFrame<T>& f) {
  const T *R = view.R, *m = g.mean;
  f.p[2] = R[6] * m[0] + R[7] * m[1] + R[8] * m[2] + view.t[2];
  if (!(f.p[2] >= view.near_z) || f.p[2] > view.far_z) return false;
  f.p[0] = R[0] * m[0] + R[1] * m[1] + R[2] * m[2] + view.t[0];
  f.p[1] = R[3] * m[0] + R[4] * m[1] + R[5] * m[2] + view.t[1];
  f.q_norm = std::sqrt(g.quat[0] * g.quat[0] + g.quat[1] * g.quat[1] + g.quat[2] * g.quat[2] + g.quat[3] * g.quat[3]);
  if (!(f.q_norm > T(0))) return false;
  for (int i = 0; i < 4; i++) f.q[i] = g.quat[i] / f.q_norm;
  rotation_of_quat(f.q, f.Rq);
  for (int i = 0; i < 3; i++) f.scale[i] = std::exp(g.log_scale[i]);
  const T inv_z = T(1) / f.p[2];
  const T x_ratio = f.p[0] * inv_z, y_ratio = f.p[1] * inv_z;
  const T x_held = x_ratio < view.x_low ? view.x_low : x_ratio > view.x_high ? view.x_high : x_ratio;
  const T y_held = y_ratio < view.y_low ? view.y_low : y_ratio > view.y_high ? view.y_high : y_ratio;
  f.clamped_x = x_held != x_ratio, f.clamped_y = y_held != y_ratio;
  f.tx = f.p[2] * x_held, f.ty = f.p[2] * y_held;
  f.J[0] = view.fx * inv_z, f.J[1] = -view.fx * x_held * inv_z;
  f.J[2] = view.fy * inv_z, f.J[3] = -view.fy * y_held * inv_z;
  for (int j = 0; j < 3; j++) {
    f.G[j] = f.J[0] * R[j] + f.J[1] * R[6 + j];
    f.G[3 + j] = f.J[2] * R[3 + j] + f.J[3] * R[6 + j];
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 3; j++)
      f.A[3 * i + j] =
          (f.G[3 * i] * f.Rq[j] + f.G[3 * i + 1] * f.Rq[3 + j] + f.G[3 * i + 2] * f.Rq[6 + j]) * f.scale[j];
  return true;
}

// Shortest axis, turned towards the camera.
template <class T>
S3D_HD void find_normal(const View<T>& view, const GaussianRow<T>& g, ProjectionFrame<T>& f) {
  const T* s = g.log_scale;
  f.shortest = s[0] <= s[1] ? (s[0] <= s[2] ? 0 : 2) : (s[1] <= s[2] ? 1 : 2);
  T facing = 0;
  for (int i = 0; i < 3; i++) facing += f.Rq[3 * i + f.shortest] * (view.center[i] - g.mean[i]);
  f.normal_sign = facing < T(0) ? T(-1) : T(1);
}

// Fills `e` and tells whether the Gaussian can be seen: in front, finite, opacity at least 1/255.
template <class T>
S3D_HD bool project(const View<T>& view, const GaussianRow<T>& g, Ellipse<T>& e, T min_opacity) {
  ProjectionFrame<T> f;
  if (!is_finite_row(g) || !make_frame(view, g, f)) return false;
  const T* A = f.A;
  const T xx = A[0] * A[0] + A[1] * A[1] + A[2] * A[2];
  const T yy = A[3] * A[3] + A[4] * A[4] + A[5] * A[5];
  const T xy = A[0] * A[3] + A[1] * A[4] + A[2] * A[5];
  // det(A A^T) as a sum of squared minors: exact for needles, where xx * yy - xy^2 cancels.
  const T m0 = A[1] * A[5] - A[2] * A[4], m1 = A[2] * A[3] - A[0] * A[5], m2 = A[0] * A[4] - A[1] * A[3];
  const T det0 = m0 * m0 + m1 * m1 + m2 * m2;
  e.cov[0] = xx + view.eps2d, e.cov[1] = xy, e.cov[2] = yy + view.eps2d;
  e.det = det0 + view.eps2d * (xx + yy) + view.eps2d * view.eps2d;
  if (!(e.det > T(0)) || !(e.det - e.det == T(0))) return false;
  e.compensation = view.antialiased ? std::sqrt(det0 / e.det) : T(1);
  e.opacity = e.compensation / (T(1) + std::exp(-g.opacity_logit));
  if (!(e.opacity >= min_opacity)) return false;
  const T inv_z = T(1) / f.p[2];
  e.x = view.fx * f.p[0] * inv_z + view.cx, e.y = view.fy * f.p[1] * inv_z + view.cy, e.depth = f.p[2];
  const T root_yy = std::sqrt(e.cov[2]), root_det = std::sqrt(e.det);
  e.l11 = T(kHalfLog2eRoot) * root_yy / root_det;
  e.l21 = -T(kHalfLog2eRoot) * e.cov[1] / (root_yy * root_det);
  e.l22 = T(kHalfLog2eRoot) / root_yy;
  const T reach = std::log(e.opacity * T(255)) * T(2);  // q = -reach/2 at alpha = 1/255
  e.half_x = std::sqrt(reach > T(0) ? reach * e.cov[0] : T(0));
  e.half_y = std::sqrt(reach > T(0) ? reach * e.cov[2] : T(0));
  find_normal(view, g, f);
  for (int i = 0; i < 3; i++) e.normal[i] = f.normal_sign * f.Rq[3 * i + f.shortest];
  return e.x - e.x == T(0) && e.y - e.y == T(0) && e.half_x - e.half_x == T(0) && e.half_y - e.half_y == T(0);
}

// Adds the derivative of sqrt(det0 / det) to v_cov (which is by cov before or after dilation: they differ by a constant).
template <class T>
S3D_HD void compensation_vjp(const View<T>& view, const T* cov, T det, T compensation, T v_compensation, T* v_cov) {
  const T xx = cov[0] - view.eps2d, yy = cov[2] - view.eps2d;
  const T det0 = compensation * compensation * det;
  if (!(det0 > T(1e-12) * det)) return;  // the square root's slope is unbounded where the ellipse is a line
  const T half = T(0.5) * v_compensation * compensation;
  v_cov[0] += half * (yy / det0 - cov[2] / det);
  v_cov[1] += half * (-cov[1] / det0 + cov[1] / det);
  v_cov[2] += half * (xx / det0 - cov[0] / det);
}

// Derivative of everything in `e` by the Gaussian's parameters and the view. `e` is what project gave.
template <class T>
S3D_HD void project_vjp(const View<T>& view, const GaussianRow<T>& g, const Ellipse<T>& e, const EllipseGrad<T>& v,
                        GaussianGrad<T>& v_g, ViewGrad<T>* v_view) {
  ProjectionFrame<T> f;
  if (!make_frame(view, g, f)) return;
  const T sigmoid = T(1) / (T(1) + std::exp(-g.opacity_logit));
  v_g.opacity_logit += v.opacity * e.compensation * sigmoid * (T(1) - sigmoid);
  T v_cov[3] = {v.cov[0], v.cov[1], v.cov[2]};
  if (view.antialiased) compensation_vjp(view, e.cov, e.det, e.compensation, v.opacity * sigmoid, v_cov);
  // cov = A A^T  ->  v_A = 2 v_cov A
  T v_A[6], v_B[6];
  for (int j = 0; j < 3; j++) {
    v_A[j] = 2 * (v_cov[0] * f.A[j] + v_cov[1] * f.A[3 + j]);
    v_A[3 + j] = 2 * (v_cov[1] * f.A[j] + v_cov[2] * f.A[3 + j]);
    v_g.log_scale[j] += v_A[j] * f.A[j] + v_A[3 + j] * f.A[3 + j];
    v_B[j] = v_A[j] * f.scale[j], v_B[3 + j] = v_A[3 + j] * f.scale[j];
  }
  // B = G Rq
  T v_Rq[9], v_G[6];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) v_Rq[3 * i + j] = f.G[i] * v_B[j] + f.G[3 + i] * v_B[3 + j];
  for (int i = 0; i < 3; i++) {
    v_G[i] = v_B[0] * f.Rq[3 * i] + v_B[1] * f.Rq[3 * i + 1] + v_B[2] * f.Rq[3 * i + 2];
    v_G[3 + i] = v_B[3] * f.Rq[3 * i] + v_B[4] * f.Rq[3 * i + 1] + v_B[5] * f.Rq[3 * i + 2];
  }
  find_normal(view, g, f);
  for (int i = 0; i < 3; i++) v_Rq[3 * i + f.shortest] += f.normal_sign * v.normal[i];
  rotation_of_quat_vjp(f.q, f.q_norm, v_Rq, v_g.quat);
  // G = J W
  const T* R = view.R;
  T v_J[4];
  v_J[0] = v_G[0] * R[0] + v_G[1] * R[1] + v_G[2] * R[2];
  v_J[1] = v_G[0] * R[6] + v_G[1] * R[7] + v_G[2] * R[8];
  v_J[2] = v_G[3] * R[3] + v_G[4] * R[4] + v_G[5] * R[5];
  v_J[3] = v_G[3] * R[6] + v_G[4] * R[7] + v_G[5] * R[8];
  const T inv_z = T(1) / f.p[2];
  T v_p[3] = {v.x * f.J[0], v.y * f.J[2], v.depth};
  v_p[2] -= (v.x * f.J[0] * f.p[0] + v.y * f.J[2] * f.p[1]) * inv_z;
  v_p[2] -= (v_J[0] * f.J[0] + v_J[2] * f.J[2]) * inv_z;
  // J02 = -fx tx / z^2 with tx = x, or with tx = z * limit
  v_p[2] -= v_J[1] * f.J[1] * inv_z * (f.clamped_x ? T(1) : T(2));
  v_p[2] -= v_J[3] * f.J[3] * inv_z * (f.clamped_y ? T(1) : T(2));
  if (!f.clamped_x) v_p[0] -= v_J[1] * f.J[0] * inv_z;
  if (!f.clamped_y) v_p[1] -= v_J[3] * f.J[2] * inv_z;
  for (int j = 0; j < 3; j++) v_g.mean[j] += R[j] * v_p[0] + R[3 + j] * v_p[1] + R[6 + j] * v_p[2];
  if (!v_view) return;
  for (int i = 0; i < 3; i++) {
    v_view->t[i] += v_p[i];
    for (int j = 0; j < 3; j++) v_view->R[3 * i + j] += v_p[i] * g.mean[j];
  }
  for (int j = 0; j < 3; j++) {
    v_view->R[j] += f.J[0] * v_G[j];
    v_view->R[3 + j] += f.J[2] * v_G[3 + j];
    v_view->R[6 + j] += f.J[1] * v_G[j] + f.J[3] * v_G[3 + j];
  }
}

// Sums over pixels of dL/dpower (natural logarithm of alpha) times 1, u, v, uu, uv, vv.
template <class T>
struct Moments {
  T s, u, v, uu, uv, vv;
};

// Moments to derivatives: with L = [[l11, l21], [0, l22]], d cov = 2 ln2^2 L^T [uu uv; uv vv] L.
template <class T>
S3D_HD void moments_vjp(const Ellipse<T>& e, const Moments<T>& m, EllipseGrad<T>& v) {
  const T ln2 = T(kLn2);
  v.x = 2 * ln2 * e.l11 * m.u;
  v.y = 2 * ln2 * (e.l21 * m.u + e.l22 * m.v);
  v.opacity = m.s / e.opacity;
  const T c = 2 * ln2 * ln2;
  v.cov[0] = c * e.l11 * e.l11 * m.uu;
  v.cov[1] = c * e.l11 * (e.l21 * m.uu + e.l22 * m.uv);
  v.cov[2] = c * (e.l21 * e.l21 * m.uu + 2 * e.l21 * e.l22 * m.uv + e.l22 * e.l22 * m.vv);
}

}  // namespace scene3d
