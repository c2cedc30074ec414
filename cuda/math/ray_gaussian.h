// A 3D Gaussian along a ray, without projecting it to the screen first (Yu et al. 2024, Gaussian Opacity Fields).
//
// Along the ray z (x, y, 1) the Gaussian is exp(-|e|^2 / 2) with e = W (z (x, y, 1) - p), W = S^-1 R^T in the camera.
// e is written about the ray of the centre: differences of large numbers would leave nothing of thin Gaussians in float.
#pragma once
#include "math/projection.h"

namespace scene3d {

template <class S>
struct RayGaussian {
  S x0, y0, z0;            // the centre is z0 (x0, y0, 1)
  S u[3], wx[3], wy[3];    // W (x0, y0, 1), W's first two columns
  S opacity, reach;        // reach: depth over which it is more than 1/255
};

// From a frame of make_frame. The rasterizer's blur widens axes across the line of sight; along it, where it would push
// surfaces towards the camera, nothing is added.
template <class S>
S3D_HD void make_ray_gaussian(const View<S>& view, const ProjectionFrame<S>& f, S opacity, RayGaussian<S>& g) {
  g.z0 = f.p[2], g.x0 = f.p[0] / f.p[2], g.y0 = f.p[1] / f.p[2];
  const S pixel = f.p[2] * f.p[2] / (view.fx * view.fy), blur = view.eps2d * pixel;
  S longest = 0;
  for (int k = 0; k < 3; k++) {
    S axis[3];
    for (int i = 0; i < 3; i++)
      axis[i] = view.R[3 * i] * f.Rq[k] + view.R[3 * i + 1] * f.Rq[3 + k] + view.R[3 * i + 2] * f.Rq[6 + k];
    const S along = axis[0] * g.x0 + axis[1] * g.y0 + axis[2];
    const S across = S(1) - along * along / (g.x0 * g.x0 + g.y0 * g.y0 + S(1));
    const S s = sqrt(f.scale[k] * f.scale[k] + blur * choose(S(0) < across, across, S(0))), inv = S(1) / s;
    longest = choose(longest < s, s, longest);
    g.wx[k] = axis[0] * inv, g.wy[k] = axis[1] * inv, g.u[k] = along * inv;
  }
  g.opacity = opacity;
  g.reach = S(3.4) * longest;
}

// Opacity that the Gaussian has gathered where the ray through (x, y, 1) has come to depth z: that of its peak if the
// ray has passed it. T: lanes or a scalar, S: that of the Gaussian.
template <class T, class S>
S3D_HD T opacity_until(const RayGaussian<S>& g, T x, T y, T z) {
  const T dx = x - T(g.x0), dy = y - T(g.y0);
  T gk[3], dd = T(0), du = T(0);
  for (int k = 0; k < 3; k++) {
    gk[k] = T(g.wx[k]) * dx + T(g.wy[k]) * dy;
    const T d = T(g.u[k]) + gk[k];
    dd += d * d, du += d * T(g.u[k]);
  }
  const T peak = T(g.z0) * du / dd, s = choose(peak < z, peak, z);
  T power = T(0);
  for (int k = 0; k < 3; k++) {
    const T e = T(g.u[k]) * (s - T(g.z0)) + gk[k] * s;
    power += e * e;
  }
  return T(g.opacity) * exp(T(-0.5) * power);
}

}  // namespace scene3d
