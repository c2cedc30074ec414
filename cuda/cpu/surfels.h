// Images of flat Gaussians by ray-splat intersection: tiles over threads, sixteen pixels at a time, and the way back.
// float with lanes; double one pixel at a time, the same code, for checks of gradients.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/tile_lists.h"
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

// One tile of a call.
template <class T>
struct SurfelTile {
  const SurfelCall<T>* call;
  const Surfel<T>* surfels;
  const T* rows;  // first and last row of each that it reaches [N, 2]
  const int32_t* list;
  int64_t n_list;
  int x0, y0;
};

template <class T>
struct SurfelState {
  Buffer<Surfel<T>> surfels;
  Buffer<T> rows;
  TileLists lists;
};

template <class T>
void surfels_forward(const SurfelCall<T>& call, SurfelState<T>& state, const SurfelImages<T>& out, T* radii);

// Gradients, every element written: by the matrices [N, 9], opacities [N], colours and normals [N, 3].
template <class T>
void surfels_backward(const SurfelCall<T>& call, const SurfelState<T>& state, const SurfelImages<T>& images,
                      const SurfelUpstream<T>& upstream, T* v_matrices, T* v_opacities, T* v_rgb, T* v_normals);

}  // namespace scene3d
