// L1 + (1 - SSIM) of two images and its gradient by the first; the definition stands in cpu/loss.h and render/loss.py.
//
// Two passes over 16x16 tiles, both blurred in shared memory first along rows, then along columns:
//   images -> blurs of x, y, xx + yy, xy -> SSIM and what the loss changes by per change of the blurred x, xx and xy
//   those three maps -> blurs -> gradient.
#pragma once
#include "gpu/platform.h"

namespace scene3d {
namespace gpu {

struct LossInput {
  const float* rgb;             // [H, W, 3]
  const float* target;          // [H, W, 3], or null
  const uint8_t* target_bytes;  // [H, W, 3], 255 = 1; used when target is null
  const float* weight;          // [H, W], or null
  int height, width;
  float ssim_lambda;
};

// Floats of scratch memory.
int64_t loss_scratch_floats(int height, int width);

// Writes v_rgb [H, W, 3] and parts [3]: loss, l1, ssim. Sums are in a fixed order.
void l1_ssim(const LossInput& input, float* scratch, float* v_rgb, float* parts, Stream stream);

}  // namespace gpu
}  // namespace scene3d
