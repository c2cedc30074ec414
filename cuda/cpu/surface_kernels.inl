// The surface kernels of one instruction set and their table. Included once by each surface_kernels_<level>.cpp.
#include "cpu/opacity_tiles.inl"
#include "cpu/plane_votes.inl"
#include "cpu/stereo_rows.inl"
#include "cpu/offset_votes.inl"
#include "cpu/surfel_tiles.inl"

#define S3D_JOIN_(a, b) a##b
#define S3D_JOIN(a, b) S3D_JOIN_(a, b)

namespace scene3d {

const SurfaceKernels& S3D_JOIN(S3D_NS, _surface_kernels)() {
  static constexpr SurfelTable<float> f32 = {S3D_NS::surfel_tile<float>, S3D_NS::surfel_tile_backward<float>};
#if S3D_LEVEL == 0
  static constexpr SurfelTable<double> f64 = {S3D_NS::surfel_tile<double>, S3D_NS::surfel_tile_backward<double>};
#else
  static constexpr SurfelTable<double> f64 = {};
#endif
  static constexpr SurfaceKernels table = {
      S3D_NS::opacity_tile,    S3D_NS::stereo_row,      S3D_NS::vote_row,
      S3D_NS::offset_warp_row, S3D_NS::offset_vote_row, f32,
      f64};
  return table;
}

}  // namespace scene3d
