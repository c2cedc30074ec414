// Images of flat Gaussians by ray-splat intersection: tiles over threads, sixteen pixels at a time, and the way back.
// float with lanes; double one pixel at a time, the same code, for checks of gradients.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/surfel_call.h"
#include "cpu/tile_lists.h"

namespace scene3d {

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
