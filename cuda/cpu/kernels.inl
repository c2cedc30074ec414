// The kernels of one instruction set and their table. Included once by each kernels_<level>.cpp.
#include "cpu/kernels.h"
#include "cpu/simd.h"

#include "cpu/raster_call.h"
#include "cpu/gaussian_rows.inl"
#include "cpu/raster_tiles.inl"
#include "cpu/loss_tiles.inl"
#include "cpu/adam_rows.inl"
#include "cpu/descent_rows.inl"
#include "cpu/grid_sort_rows.inl"
#include "cpu/kmeans_scores.inl"
#include "cpu/simd_probe.inl"

#define S3D_STRING_(x) #x
#define S3D_STRING(x) S3D_STRING_(x)
#define S3D_JOIN_(a, b) a##b
#define S3D_JOIN(a, b) S3D_JOIN_(a, b)

namespace scene3d {

const Kernels& S3D_JOIN(S3D_NS, _kernels)() {
  static constexpr Kernels table = {S3D_STRING(S3D_NS),    S3D_NS::raster_forward_tile, S3D_NS::raster_backward_tile,
                                    S3D_NS::project_rows,  S3D_NS::sum_pair_rows,       S3D_NS::gradient_rows,
                                    S3D_NS::descend_rows,  S3D_NS::loss_tile,           S3D_NS::adam_rows,
                                    S3D_NS::grid_blur_line, S3D_NS::grid_reorder,      S3D_NS::nearest_centers,
                                    S3D_NS::simd_probe};
  return table;
}

}  // namespace scene3d
