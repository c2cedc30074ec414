// One step of fitting on one photo, all on one stream: render, loss, gradients, Adam. The host waits twice, for the
// number of pairs and for the loss, and the second time the GPU still has the way back to do.
//
// The last kernel goes from the sums of a Gaussian over its pixels to its gradients and from these to Adam: the 59
// gradients of a Gaussian never go to memory, which is 240 bytes written and 240 read of about 1,300.
#pragma once
#include "gpu/loss.h"
#include "gpu/mailbox.h"
#include "gpu/parameters.h"
#include "gpu/raster.h"

namespace scene3d {
namespace gpu {

constexpr int kDescentArrays = 6;  // means, quats, log_scales, opacity_logits, sh0, shN

struct DescentArgs {
  AdamArray arrays[kDescentArrays];  // their grad is unused
  AdamRule rule;
  float opacity_reg, scale_reg;  // weights of Σ opacity and Σ scale in the loss
  float *grad_sums, *counts;     // [N]: screen gradients times half_size, and views, are added here; null = unwanted
  float half_size;
  // By array: added to the gradients of Gaussians that are seen; null = nothing.
  const float* added[kDescentArrays];
  float* v_masks;  // [N], written for Gaussians that are seen; null = there are no masks
};

// The photo to come near to; rgb is not used.
struct DescentTarget {
  LossInput photo;
  const float* transform;  // [3, 4]: colours shown are A rgb + b; null = as rendered
};

// Gradients by what is not a Gaussian; null = not wanted. Written only where the loss is finite.
struct DescentGrads {
  float* viewmat;    // [4, 4]
  float* transform;  // [3, 4]
};

// Returns the loss. Where it is not finite, nothing is changed.
float descend(const RasterCall<float>& call, const RasterOptions& options, const DescentTarget& target,
              const DescentArgs& descent, const DescentGrads& grads, const Memory& memory, Mailbox& mailbox, Stream stream);

// Parts of descent.cu, each in the file of its name.
void show_colors(const float* transform, const float* rgb, int64_t n_pixels, float* shown, Stream stream);
// v_rgb may be v_shown.
void show_colors_vjp(const float* transform, const float* rgb, const float* v_shown, int64_t n_pixels, const float* loss,
                     float* partials, float* v_rgb, float* v_transform, Stream stream);
int64_t color_partial_floats(int64_t n_pixels);
void descend_gaussians(const RasterCall<float>& call, const uint32_t* tiles_of, const float* sums, const float* loss,
                       const DescentArgs& descent, float* view_partials, float* v_viewmat, Stream stream);

}  // namespace gpu
}  // namespace scene3d
