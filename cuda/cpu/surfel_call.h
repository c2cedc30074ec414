// What one call that draws flat Gaussians takes, on the CPU and on a GPU.
#pragma once
#include <cstdint>

#include "math/surfel.h"

namespace scene3d {

// Numbers of an image besides colour and normal.
template <class T>
struct SurfelImages {
  T *rgb, *normals;                            // [H, W, 3]; colours over black
  T *alpha, *depth, *median, *distortion;      // [H, W]; depth is sum w z
  T *first, *second, *anchor;                  // [H, W], for the way back: sums of w m and w m^2, m less the anchor
};

template <class T>
struct SurfelUpstream {
  const T *rgb, *normals, *alpha, *depth, *distortion;
};

template <class T>
struct SurfelCall {
  SurfelView<T> view;
  int width, height;
  int64_t n;
  const T *matrices, *opacities, *rgb, *normals;  // [N, 9], [N], [N, 3], [N, 3]
  T unit;         // m = -unit / z of the distortion
  bool cutoff;    // false: every disc in every pixel, however faint, so that images are smooth
};

}  // namespace scene3d
