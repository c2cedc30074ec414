// Surfaces on the CPU: the opacity of places as views see them, flat Gaussians met by rays, planes by stereo. The loops
// exist once per instruction set, as a table of functions.
#pragma once
#include <cstdint>

#include "cpu/offset_votes.h"
#include "cpu/plane_votes.h"
#include "cpu/raster_call.h"
#include "cpu/stereo.h"
#include "cpu/surfels.h"
#include "math/ray_gaussian.h"

namespace scene3d {

// Places of one tile, nearest first, and the Gaussians that reach into it, nearest first.
struct OpacityTile {
  const RayGaussian<float>* gaussians;
  const int32_t* list;
  int64_t n_list;
  const float *x, *y, *z;  // of the places: the ray (x, y, 1) and the depth [n_places]
  int64_t n_places;
  float* opacity;  // [n_places]
};

template <class T>
struct SurfelTable {
  void (*forward)(const SurfelTile<T>& tile, const SurfelImages<T>& out);
  void (*backward)(const SurfelTile<T>& tile, const SurfelImages<T>& images, const SurfelUpstream<T>& upstream, T* sums,
                   void* scratch);
};

struct SurfaceKernels {
  void (*opacity_tile)(const OpacityTile& tile);
  void (*stereo_row)(const StereoCall& call, int y);
  void (*vote_row)(const VoteCall& call, int y);
  void (*offset_warp_row)(const OffsetCall& call, int y);
  void (*offset_vote_row)(const OffsetCall& call, int y);
  SurfelTable<float> f32;
  SurfelTable<double> f64;  // of the scalar level only
};

const SurfaceKernels& scalar_surface_kernels();
const SurfaceKernels& avx2_surface_kernels();
const SurfaceKernels& avx512_surface_kernels();
const SurfaceKernels& neon_surface_kernels();
// The table of the instruction set in use.
const SurfaceKernels& surface_kernels();

// For every place in the image: opacity[i] becomes the least of itself and what the ray from the camera has gathered
// when it arrives there, and n_views[i] grows by one. Places whose opacity is `enough` or less already are left out.
void opacity_from_view(const RasterCall<float>& call, const float* places, int64_t n_places, float enough,
                       float* opacity, int32_t* n_views);

}  // namespace scene3d
