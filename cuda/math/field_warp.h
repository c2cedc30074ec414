// Frames in which fields without bounds live. A ray is straight in them, piece by piece, and on each piece distances follow
// from perspective-correct interpolation; so cells are walked as in a box.
//
// y = frame_from_world (x, 1) is a similarity. What lies outside of a near region is divided by a weight w:
//   cube     w = max |y_i|; where w <= 1, u = y, else u_j = sign(y_j) (2 - 1 / w) on the largest axis, y_l / w on the others
//            (Reiser et al. 2023, MERF, equation 5: a contraction that keeps lines straight in each of its seven regions)
//   frustum  w = y_z >= 1; u = (y_x / w, y_y / w, 1 - 1 / w): normalised device coordinates (Mildenhall et al. 2020)
#pragma once
#include "math/field_walk.h"

namespace scene3d {

enum class WarpKind { none = 0, cube = 1, frustum = 2 };

constexpr int kMaxPieces = 9;  // of a ray: six planes between regions, two faces of the cube

template <class T>
struct Warp {
  WarpKind kind = WarpKind::none;
  T frame_from_world[3][4] = {};
};

// u = origin + s direction for s from 0 to length; 1 / w and t / w (t: distance in the world) are linear in s.
template <class T>
struct WarpPiece {
  T origin[3], direction[3], length;
  T inverse_w, inverse_w_slope, t_over_w, t_over_w_slope;

  // Things farther than that many times the near region count as that far.
  S3D_WALK_MEMBER T distance(T s) const {
    const T inverse = inverse_w + inverse_w_slope * s;
    return (t_over_w + t_over_w_slope * s) / (inverse > T(0.01) ? inverse : T(0.01));
  }
};

// One end of a piece in the region where `axis` is the largest; axis -1: within the cube.
template <class T>
struct WarpPoint {
  T u[3], inverse_w, t_over_w;
};

template <class T>
struct WarpedRay {
  static constexpr T kEndless = T(1e9);  // distances beyond have no end
  WarpKind kind;
  T origin[3], direction[3];  // in the frame before division; the direction is as long as the similarity makes it
  WarpPiece<T> pieces[kMaxPieces];
  int n = 0;

  S3D_WALK_MEMBER WarpedRay(const Warp<T>& warp, const FieldRay<T>& ray, T near, T far) : kind(warp.kind) {
    for (int i = 0; i < 3; i++) {
      const T* const m = warp.frame_from_world[i];
      origin[i] = m[0] * ray.origin[0] + m[1] * ray.origin[1] + m[2] * ray.origin[2] + m[3];
      direction[i] = m[0] * ray.direction[0] + m[1] * ray.direction[1] + m[2] * ray.direction[2];
    }
    if (near < 0) near = 0;
    if (kind == WarpKind::frustum) add_frustum(near, far);
    else add_cube(near, far);
  }

  S3D_WALK_MEMBER void add_frustum(T near, T far) {
    const T crossing = (1 - origin[2]) / direction[2];
    if (direction[2] > 0) near = crossing > near ? crossing : near;
    else if (direction[2] < 0) far = crossing < far ? crossing : far;
    else if (origin[2] < 1) return;
    if (far >= kEndless && !(direction[2] > 0)) return;
    add_piece(2, near, far);
  }

  S3D_WALK_MEMBER void add_cube(T near, T far) {
    T cuts[kMaxPieces + 1] = {near};
    int n_cuts = 1;
    const auto cut = [&](T t) {
      if (!(t > near && t < far && t < kEndless)) return;
      int i = n_cuts++;
      for (; cuts[i - 1] > t; i--) cuts[i] = cuts[i - 1];
      cuts[i] = t;
    };
    const T low[3] = {-1, -1, -1}, high[3] = {1, 1, 1};
    T enters, leaves;
    ray_box(origin, direction, low, high, T(-1e30), T(1e30), &enters, &leaves);
    if (enters < leaves) cut(enters), cut(leaves);
    for (int i = 0; i < 3; i++) {
      const int j = (i + 1) % 3;
      for (int sign = -1; sign <= 1; sign += 2) {
        const T t = (static_cast<T>(sign) * origin[j] - origin[i]) / (direction[i] - static_cast<T>(sign) * direction[j]);
        if (!(t > enters && t < leaves)) cut(t);
      }
    }
    for (int i = 0; i < n_cuts; i++) {
      const bool is_last = i + 1 == n_cuts;
      const T end = is_last ? far : cuts[i + 1];
      add_piece(largest_axis(end >= kEndless ? 2 * cuts[i] + 1 : (cuts[i] + end) / 2), cuts[i], end);
    }
  }

  S3D_WALK_MEMBER int largest_axis(T t) const {
    T y[3];
    for (int i = 0; i < 3; i++) {
      const T value = origin[i] + direction[i] * t;
      y[i] = value < 0 ? -value : value;
    }
    const int axis = y[0] > y[1] ? (y[0] > y[2] ? 0 : 2) : (y[1] > y[2] ? 1 : 2);
    return y[axis] > 1 ? axis : -1;
  }

  S3D_WALK_MEMBER WarpPoint<T> point_at(int axis, T t) const {
    const bool is_endless = t >= kEndless;
    WarpPoint<T> out;
    T y[3];
    for (int i = 0; i < 3; i++) y[i] = is_endless ? direction[i] : origin[i] + direction[i] * t;
    const T side = axis >= 0 && y[axis] < 0 ? T(-1) : T(1), inverse = axis >= 0 ? side / y[axis] : T(1);
    for (int i = 0; i < 3; i++) out.u[i] = y[i] * inverse;
    out.inverse_w = is_endless ? T(0) : inverse, out.t_over_w = is_endless ? inverse : t * inverse;
    if (axis >= 0) out.u[axis] = kind == WarpKind::frustum ? 1 - out.inverse_w : side * (2 - out.inverse_w);
    return out;
  }

  S3D_WALK_MEMBER void add_piece(int axis, T begin, T end) {
    if (!(end > begin)) return;
    const WarpPoint<T> a = point_at(axis, begin), b = point_at(axis, end);
    WarpPiece<T>& piece = pieces[n];
    T square = 0;
    for (int i = 0; i < 3; i++) {
      piece.origin[i] = a.u[i], piece.direction[i] = b.u[i] - a.u[i];
      square += piece.direction[i] * piece.direction[i];
    }
    piece.length = sqrt(square);
    if (!(piece.length > T(1e-6))) return;  // shorter than any step
    const T scale = T(1) / piece.length;
    for (T& d : piece.direction) d *= scale;
    piece.inverse_w = a.inverse_w, piece.inverse_w_slope = (b.inverse_w - a.inverse_w) * scale;
    piece.t_over_w = a.t_over_w, piece.t_over_w_slope = (b.t_over_w - a.t_over_w) * scale;
    n++;
  }
};

}  // namespace scene3d
