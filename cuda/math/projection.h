// One Gaussian to one ellipse on the screen (EWA splatting, Zwicker et al. 2002) and its vector-Jacobian product.
//
// Letters: A (2x3) = J W R S is the affine image of the unit sphere, so that the screen covariance is A A^T.
// The conic is carried as its whitening factor: u = l11 dx + l21 dy, v = l22 dy, and the exponent is -(u^2 + v^2) in
// powers of two, which needs neither the conic nor its inverse again.
// T is the number type of the Gaussian (a scalar or lanes), S that of the view (always a scalar).
#pragma once
#include "math/config.h"
#include "math/constants.h"

namespace scene3d {

template <class S>
struct View {
  S R[9];  // cam_from_world rotation, row-major
  S t[3];
  S fx, fy, cx, cy;
  S x_low, x_high, y_low, y_high;  // clamp of x/z and y/z in the Jacobian
  S center[3];                     // camera position in the world
  S near_z, far_z, eps2d;
  bool antialiased;
};

template <class T>
struct GaussianRow {
  T mean[3], quat[4], log_scale[3], opacity_logit;
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

// Accumulated over Gaussians: derivative by viewmat's upper 3x4.
template <class T>
struct ViewGrad {
  T R[9], t[3];
};

// Intermediates shared by project and project_vjp.
template <class T>
struct ProjectionFrame {
  T p[3];                 // centre in the camera
  T x_free, y_free;       // 1 where x/z (y/z) is not clamped in the Jacobian, else 0
  T q[4], q_norm;         // unit quaternion, length
  T Rq[9];
  T scale[3];
  T J[4];                 // J00, J02, J11, J12
  T G[6];                 // J W
  T A[6];                 // G Rq S
  T shortest[3], facing;  // 1 for the shortest axis; its sign towards the camera
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
  const T along = v[0] * w + v[1] * x + v[2] * y + v[3] * z, inv = T(1) / norm;
  for (int i = 0; i < 4; i++) v_quat[i] += (v[i] - along * q[i]) * inv;
}

template <class T>
S3D_HD MaskOf<T> is_finite_row(const GaussianRow<T>& g) {
  T s = g.opacity_logit;
  for (int i = 0; i < 3; i++) s += g.mean[i] + g.log_scale[i];
  for (int i = 0; i < 4; i++) s += g.quat[i];
  return is_finite(s);
}

// False where the Gaussian is culled: not finite, too near or far, no rotation.
template <class T, class S>
S3D_HD MaskOf<T> make_frame(const View<S>& view, const GaussianRow<T>& g, ProjectionFrame<T>& f) {
  const S* R = view.R;
  for (int i = 0; i < 3; i++)
    f.p[i] = T(R[3 * i]) * g.mean[0] + T(R[3 * i + 1]) * g.mean[1] + T(R[3 * i + 2]) * g.mean[2] + T(view.t[i]);
  f.q_norm = sqrt(g.quat[0] * g.quat[0] + g.quat[1] * g.quat[1] + g.quat[2] * g.quat[2] + g.quat[3] * g.quat[3]);
  const T inv_norm = T(1) / f.q_norm, inv_z = T(1) / f.p[2];
  for (int i = 0; i < 4; i++) f.q[i] = g.quat[i] * inv_norm;
  rotation_of_quat(f.q, f.Rq);
  for (int i = 0; i < 3; i++) f.scale[i] = exp(g.log_scale[i]);
  const T x = f.p[0] * inv_z, y = f.p[1] * inv_z;
  const T x_held = choose(x < T(view.x_low), T(view.x_low), choose(T(view.x_high) < x, T(view.x_high), x));
  const T y_held = choose(y < T(view.y_low), T(view.y_low), choose(T(view.y_high) < y, T(view.y_high), y));
  f.x_free = choose((x_held >= x) & (x >= x_held), T(1), T(0));
  f.y_free = choose((y_held >= y) & (y >= y_held), T(1), T(0));
  f.J[0] = T(view.fx) * inv_z, f.J[1] = -(f.J[0] * x_held);
  f.J[2] = T(view.fy) * inv_z, f.J[3] = -(f.J[2] * y_held);
  for (int j = 0; j < 3; j++) {
    f.G[j] = f.J[0] * T(R[j]) + f.J[1] * T(R[6 + j]);
    f.G[3 + j] = f.J[2] * T(R[3 + j]) + f.J[3] * T(R[6 + j]);
  }
  for (int i = 0; i < 6; i += 3)
    for (int j = 0; j < 3; j++)
      f.A[i + j] = (f.G[i] * f.Rq[j] + f.G[i + 1] * f.Rq[3 + j] + f.G[i + 2] * f.Rq[6 + j]) * f.scale[j];
  return is_finite_row(g) & (f.p[2] >= T(view.near_z)) & (T(view.far_z) >= f.p[2]) & (T(0) < f.q_norm);
}

// Shortest axis (the first among equals), turned towards the camera.
template <class T, class S>
S3D_HD void find_normal(const View<S>& view, const GaussianRow<T>& g, ProjectionFrame<T>& f) {
  const T* s = g.log_scale;
  f.shortest[0] = choose((s[1] >= s[0]) & (s[2] >= s[0]), T(1), T(0));
  f.shortest[1] = (T(1) - f.shortest[0]) * choose(s[2] >= s[1], T(1), T(0));
  f.shortest[2] = T(1) - f.shortest[0] - f.shortest[1];
  T along = 0;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) along += f.shortest[j] * f.Rq[3 * i + j] * (T(view.center[i]) - g.mean[i]);
  f.facing = choose(along < T(0), T(-1), T(1));
}

// Fills `e` and tells whether the Gaussian can be seen: in front, finite, opacity at least min_opacity.
template <class T, class S>
S3D_HD MaskOf<T> project(const View<S>& view, const GaussianRow<T>& g, S min_opacity, bool with_normal, Ellipse<T>& e) {
  ProjectionFrame<T> f;
  MaskOf<T> visible = make_frame(view, g, f);
  const T* A = f.A;
  const T xx = A[0] * A[0] + A[1] * A[1] + A[2] * A[2];
  const T yy = A[3] * A[3] + A[4] * A[4] + A[5] * A[5];
  const T xy = A[0] * A[3] + A[1] * A[4] + A[2] * A[5];
  // det(A A^T) as a sum of squared minors: exact for needles, where xx * yy - xy^2 cancels.
  const T m0 = A[1] * A[5] - A[2] * A[4], m1 = A[2] * A[3] - A[0] * A[5], m2 = A[0] * A[4] - A[1] * A[3];
  const T det0 = m0 * m0 + m1 * m1 + m2 * m2, eps = T(view.eps2d);
  e.cov[0] = xx + eps, e.cov[1] = xy, e.cov[2] = yy + eps;
  e.det = det0 + eps * (xx + yy) + eps * eps;
  e.compensation = view.antialiased ? sqrt(det0 / e.det) : T(1);
  e.opacity = e.compensation / (T(1) + exp(-g.opacity_logit));
  visible = visible & (T(0) < e.det) & is_finite(e.det) & (e.opacity >= T(min_opacity));
  const T inv_z = T(1) / f.p[2];
  e.x = T(view.fx) * f.p[0] * inv_z + T(view.cx), e.y = T(view.fy) * f.p[1] * inv_z + T(view.cy), e.depth = f.p[2];
  const T root_yy = sqrt(e.cov[2]), root_det = sqrt(e.det), whiten = T(kHalfLog2eRoot);
  e.l11 = whiten * root_yy / root_det;
  e.l21 = -(whiten * e.cov[1]) / (root_yy * root_det);
  e.l22 = whiten / root_yy;
  // alpha = 1/255 where d^T conic d = 2 ln(255 opacity)
  const T reach = T(2 * kLn2) * (log2(e.opacity) - T(kLog2MinAlpha));
  const T reach_held = choose(T(0) < reach, reach, T(0));
  e.half_x = sqrt(reach_held * e.cov[0]), e.half_y = sqrt(reach_held * e.cov[2]);
  if (with_normal) {
    find_normal(view, g, f);
    for (int i = 0; i < 3; i++)
      e.normal[i] = f.facing * (f.shortest[0] * f.Rq[3 * i] + f.shortest[1] * f.Rq[3 * i + 1] + f.shortest[2] * f.Rq[3 * i + 2]);
  } else {
    for (int i = 0; i < 3; i++) e.normal[i] = T(0);
  }
  return visible & is_finite(e.x + e.y) & is_finite(e.half_x + e.half_y);
}

// Adds the derivative of sqrt(det0 / det), det0 = |m|^2 with the minors m of A and det = det0 + eps (xx + yy + eps), to
// v_cov (through xx + yy) and to v_A (through the minors, which do not cancel where the ellipse is a needle).
template <class T, class S>
S3D_HD void compensation_vjp(const View<S>& view, const Ellipse<T>& e, const T* A, T v_compensation, T* v_cov, T* v_A) {
  const T eps = T(view.eps2d), inv_det = T(1) / e.det;
  const T m0 = A[1] * A[5] - A[2] * A[4], m1 = A[2] * A[3] - A[0] * A[5], m2 = A[0] * A[4] - A[1] * A[3];
  const T det0 = m0 * m0 + m1 * m1 + m2 * m2;
  // m / |m| has no direction where the ellipse is a line: no gradient there.
  const T root = sqrt(det0 * e.det), inv_root = choose(T(0) < root, T(1) / root, T(0));
  const T trace = e.cov[0] + e.cov[2] - eps;  // xx + yy + eps
  const T c = v_compensation * eps * trace * inv_det * inv_root;
  const T v0 = c * m0, v1 = c * m1, v2 = c * m2;
  v_A[0] += v2 * A[4] - v1 * A[5], v_A[3] += v1 * A[2] - v2 * A[1];
  v_A[1] += v0 * A[5] - v2 * A[3], v_A[4] += v2 * A[0] - v0 * A[2];
  v_A[2] += v1 * A[3] - v0 * A[4], v_A[5] += v0 * A[1] - v1 * A[0];
  const T half = T(0.5) * v_compensation * e.compensation * eps * inv_det;
  v_cov[0] -= half, v_cov[2] -= half;
}

// Derivative of everything in `e` by the Gaussian's parameters, added to v_g, and by the view, added to v_view if given.
template <class T, class S>
S3D_HD void project_vjp(const View<S>& view, const GaussianRow<T>& g, const Ellipse<T>& e, const EllipseGrad<T>& v,
                        bool with_normal, GaussianRow<T>& v_g, ViewGrad<T>* v_view) {
  ProjectionFrame<T> f;
  make_frame(view, g, f);
  const T sigmoid = T(1) / (T(1) + exp(-g.opacity_logit));
  v_g.opacity_logit += v.opacity * e.compensation * sigmoid * (T(1) - sigmoid);
  T v_cov[3] = {v.cov[0], v.cov[1], v.cov[2]};
  T v_A[6] = {T(0), T(0), T(0), T(0), T(0), T(0)};
  if (view.antialiased) compensation_vjp(view, e, f.A, v.opacity * sigmoid, v_cov, v_A);
  // cov = A A^T  ->  v_A = 2 v_cov A
  T v_B[6];
  for (int j = 0; j < 3; j++) {
    const T v_A0 = v_A[j] + 2 * (v_cov[0] * f.A[j] + v_cov[1] * f.A[3 + j]);
    const T v_A1 = v_A[3 + j] + 2 * (v_cov[1] * f.A[j] + v_cov[2] * f.A[3 + j]);
    v_g.log_scale[j] += v_A0 * f.A[j] + v_A1 * f.A[3 + j];
    v_B[j] = v_A0 * f.scale[j], v_B[3 + j] = v_A1 * f.scale[j];
  }
  // B = G Rq
  T v_Rq[9], v_G[6];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) v_Rq[3 * i + j] = f.G[i] * v_B[j] + f.G[3 + i] * v_B[3 + j];
  for (int i = 0; i < 3; i++) {
    v_G[i] = v_B[0] * f.Rq[3 * i] + v_B[1] * f.Rq[3 * i + 1] + v_B[2] * f.Rq[3 * i + 2];
    v_G[3 + i] = v_B[3] * f.Rq[3 * i] + v_B[4] * f.Rq[3 * i + 1] + v_B[5] * f.Rq[3 * i + 2];
  }
  if (with_normal) {
    find_normal(view, g, f);
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++) v_Rq[3 * i + j] += f.facing * v.normal[i] * f.shortest[j];
  }
  rotation_of_quat_vjp(f.q, f.q_norm, v_Rq, v_g.quat);
  // G = J W
  const S* R = view.R;
  T v_J[4];
  v_J[0] = v_G[0] * T(R[0]) + v_G[1] * T(R[1]) + v_G[2] * T(R[2]);
  v_J[1] = v_G[0] * T(R[6]) + v_G[1] * T(R[7]) + v_G[2] * T(R[8]);
  v_J[2] = v_G[3] * T(R[3]) + v_G[4] * T(R[4]) + v_G[5] * T(R[5]);
  v_J[3] = v_G[3] * T(R[6]) + v_G[4] * T(R[7]) + v_G[5] * T(R[8]);
  const T inv_z = T(1) / f.p[2];
  T v_p[3] = {v.x * f.J[0], v.y * f.J[2], v.depth};
  v_p[2] -= (v.x * f.J[0] * f.p[0] + v.y * f.J[2] * f.p[1]) * inv_z;
  v_p[2] -= (v_J[0] * f.J[0] + v_J[2] * f.J[2]) * inv_z;
  // J02 = -fx tx / z^2 with tx = x, or with tx = z * limit
  v_p[2] -= (v_J[1] * f.J[1] * (T(1) + f.x_free) + v_J[3] * f.J[3] * (T(1) + f.y_free)) * inv_z;
  v_p[0] -= f.x_free * v_J[1] * f.J[0] * inv_z;
  v_p[1] -= f.y_free * v_J[3] * f.J[2] * inv_z;
  for (int j = 0; j < 3; j++) v_g.mean[j] += T(R[j]) * v_p[0] + T(R[3 + j]) * v_p[1] + T(R[6 + j]) * v_p[2];
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
