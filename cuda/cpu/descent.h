// One step of fitting on one photo, in one call: render, loss, gradients, Adam. Nothing but the loss comes back; the
// gradients of sixteen Gaussians live in the cache between the way back through the projection and their step of Adam.
// Against four calls from Python with arrays in between: 8.3 instead of 11.3 ms (30k Gaussians, 266x475, two threads).
#pragma once
#include <cstdint>
#include <memory>

#include "cpu/adam.h"
#include "cpu/buffer.h"
#include "cpu/loss.h"
#include "cpu/raster_tiled.h"

namespace scene3d {

struct DescentArgs {
  AdamArgs adam;  // groups: means, quats, log_scales, opacity_logits, sh0 and, beyond degree 0, shN; their grad is unused
  float opacity_reg, scale_reg;  // weights of Σ opacity and Σ scale in the loss
  float *grad_sums, *counts;     // [N]: screen gradients times half_size, and views, are added here; null = unwanted
  float half_size;
  // By group, [N, n_columns]: added to the gradients of Gaussians that are seen; null = nothing.
  const float* added[6] = {};
};

// The photo to come near to; rgb is not used.
struct DescentTarget {
  LossInput photo;
  float ssim_lambda;
  const float* transform;  // [3, 4]: colours shown are A rgb + b; null = as rendered
};

// Gradients by what is not a Gaussian; null = not wanted.
struct DescentGrads {
  float* viewmat;    // [4, 4]
  float* transform;  // [3, 4]
};

// Images kept between calls.
struct DescentImages {
  Buffer<float> rgb, alpha, shown, v_shown, v_rgb, radii;
};

// Returns the loss. Where it is not finite, nothing is changed.
double descend(const RasterCall<float>& call, const DescentTarget& target, const DescentArgs& descent,
               const DescentGrads& grads, DescentImages& images);

}  // namespace scene3d
