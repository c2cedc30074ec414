// What the kernels with a thread a Gaussian share on the way back: from the sums of a Gaussian over its pixels to the
// gradients of its parameters, and sums over all Gaussians for the camera.
#pragma once
#include "gpu/raster.h"
#include "gpu/sh_rows.h"
#include "gpu/sum_columns.h"
#include "math/gaussian_vjp.h"

namespace scene3d {
namespace gpu {

constexpr int kGroupWarps = kGroupThreads / 32;

__device__ inline PixelSums<float> load_sums(const float* s, bool is_masked) {
  PixelSums<float> sums;
  sums.moments = {s[kSumS], s[kSumU], s[kSumV], s[kSumUU], s[kSumUV], s[kSumVV]};
  for (int c = 0; c < 3; c++) sums.rgb[c] = s[kSumRed + c], sums.normal[c] = s[kSumNormal + c];
  sums.depth = is_masked ? 0.f : s[kSumDepth];
  return sums;
}

struct RowGrads {
  GaussianRow<float> row;
  float sh0[3], screen;
};

// Gradients of Gaussian i from its row of `sums`; those of shN replace its coefficients.
template <int DEGREE>
__device__ inline void row_gradients(const RasterCall<float>& call, const float* sums, int64_t i, float* shN, RowGrads& v,
                                     ViewGrad<float>* v_view) {
  const float* const s = sums + i * kSumFloats;
  gaussian_vjp(call.view, DEGREE, call.row(i), call.sh0 + 3 * i, shN, load_sums(s, call.masks != nullptr), call.with_extra, v.row, v.screen, v.sh0, shN, v_view);
  if (call.absgrad) v.screen = static_cast<float>(2 * kLn2) * sqrtf(s[kSumAbsX] * s[kSumAbsX] + s[kSumAbsY] * s[kSumAbsY]);
}

// The block's part of the gradient of the viewmat: its first three rows.
__device__ inline void store_view_sums(const ViewGrad<float>& v_view, float* partials) {
  float terms[kColumns];
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) terms[4 * i + j] = v_view.R[3 * i + j];
    terms[4 * i + 3] = v_view.t[i];
  }
  store_column_sums<kGroupWarps>(terms, partials);
}

}  // namespace gpu
}  // namespace scene3d
