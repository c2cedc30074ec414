// Radiance fields on grids: where a sample lies between nodes, how a feature becomes density and density becomes opacity.
// T is a number, or a pack of lanes where a comment does not say otherwise. Chen et al. 2022 (TensoRF).
#pragma once
#include "math/config.h"

namespace scene3d {

// Place on an axis of n >= 2 nodes: between nodes i and i + 1, at fraction f. T is a number.
template <class T>
struct Place {
  int i;
  T f;
};

template <class T>
S3D_HD Place<T> place_of(T nodes, int n) {
  int i = static_cast<int>(nodes);
  i = i < 0 ? 0 : (i > n - 2 ? n - 2 : i);
  return {i, nodes - static_cast<T>(i)};
}

// Weights of the four texels around a point of a plane: (a, b), (a + 1, b), (a, b + 1), (a + 1, b + 1). T is a number.
template <class T>
S3D_HD void corner_weights(Place<T> a, Place<T> b, T* weights) {
  weights[0] = (1 - a.f) * (1 - b.f), weights[1] = a.f * (1 - b.f);
  weights[2] = (1 - a.f) * b.f, weights[3] = a.f * b.f;
}

// log(1 + e) for 0 <= e <= 1; small e by its series, which keeps the digits that 1 + e would lose.
template <class T>
S3D_HD T log1p_unit(T e) {
  const T series = e * (T(1) - e * (T(0.5) - e * (T(1.0 / 3) - e * (T(0.25) - e * T(0.2)))));
  return choose(e < T(0.02), series, log2(T(1) + e) * T(0.6931471805599453));
}

// softplus(x) = log(1 + e^x)
template <class T>
S3D_HD T softplus(T x) {
  const MaskOf<T> is_negative = x < T(0);
  const T magnitude = choose(is_negative, T(0) - x, x);
  return choose(is_negative, T(0), x) + log1p_unit(exp(T(0) - magnitude));
}

// The derivative of softplus.
template <class T>
S3D_HD T sigmoid(T x) {
  return T(1) / (T(1) + exp(T(0) - x));
}

// Opacity of a stretch of length `distance`: 1 - exp(-density distance).
template <class T>
S3D_HD T opacity_of(T density, T distance) {
  return T(1) - exp(T(0) - density * distance);
}

// Parameters at which a ray enters and leaves a box, at least near and at most far; t1 < t0 where it misses. T is a
// number; a direction may have zeros.
template <class T>
S3D_HD void ray_box(const T* origin, const T* direction, const T* low, const T* high, T near, T far, T* t0, T* t1) {
  *t0 = near, *t1 = far;
  for (int axis = 0; axis < 3; axis++) {
    if (direction[axis] == 0) {
      if (!(origin[axis] >= low[axis] && origin[axis] <= high[axis])) *t1 = near - 1;
      continue;
    }
    const T a = (low[axis] - origin[axis]) / direction[axis], b = (high[axis] - origin[axis]) / direction[axis];
    const T enters = a < b ? a : b, leaves = a < b ? b : a;
    *t0 = enters > *t0 ? enters : *t0;
    *t1 = leaves < *t1 ? leaves : *t1;
  }
}

}  // namespace scene3d
