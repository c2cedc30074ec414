// Adam of one value.
#pragma once
#include "gpu/parameters.h"

namespace scene3d {
namespace gpu {

// Moves value i against its gradient, which must be finite.
__device__ inline void adam_value(const AdamArray& a, const AdamRule& rule, int64_t i, float grad) {
  const float m = rule.beta1 * a.exp_avg[i] + (1.f - rule.beta1) * grad;
  const float v = rule.beta2 * a.exp_avg_sq[i] + (1.f - rule.beta2) * (grad * grad);
  a.exp_avg[i] = m, a.exp_avg_sq[i] = v;
  a.param[i] -= a.step_size * (m / (sqrtf(v) * rule.root_correction + rule.eps));
}

}  // namespace gpu
}  // namespace scene3d
