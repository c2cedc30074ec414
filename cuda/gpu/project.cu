// Per-Gaussian kernels on the shared maths: projection with colour, and the way back from pixel sums to parameters.
// One thread a Gaussian. The blending kernels and the binding follow; until then this file keeps cuda/math compiling
// for every target.
#include <cstdint>

#include "cpu/raster_call.h"
#include "math/gaussian_vjp.h"

namespace scene3d {
namespace gpu {

__global__ void project_gaussians(RasterCall<float> call, Ellipse<float>* ellipses, float* rgb, uint8_t* visible) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= call.n) return;
  Ellipse<float> e;
  visible[i] = project(call.view, call.row(i), static_cast<float>(kMinAlpha), call.with_extra, e);
  if (!visible[i]) return;
  float d[3];
  view_direction(call.means + 3 * i, call.view.center, d);
  sh_color(call.sh_degree, d, call.sh0 + 3 * i, call.shN + call.shN_stride * i, rgb + 3 * i);
  ellipses[i] = e;
}

__global__ void gaussian_gradients(RasterCall<float> call, const PixelSums<float>* sums, const uint8_t* visible,
                                   GaussianGrads<float>* grads) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= call.n || !visible[i]) return;
  gaussian_vjp(call.view, call.sh_degree, call.row(i), call.sh0 + 3 * i, call.shN + call.shN_stride * i, sums[i],
               call.with_extra, grads[i], static_cast<ViewGrad<float>*>(nullptr));
}

}  // namespace gpu
}  // namespace scene3d
