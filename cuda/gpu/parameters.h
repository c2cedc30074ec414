// What a step of fitting does to parameters: Adam and noise.
#pragma once
#include <vector>

#include "gpu/platform.h"
#include "math/noise.h"

namespace scene3d {
namespace gpu {

// One array of [N, n_columns] with its gradient and moments.
struct AdamArray {
  float* param;
  const float* grad;
  float *exp_avg, *exp_avg_sq;
  int n_columns;
  float step_size;  // lr / (1 - beta1^step)
};

struct AdamRule {
  float beta1, beta2;
  float root_correction;  // 1 / sqrt(1 - beta2^step)
  float eps;
};

constexpr int kMaxAdamArrays = 16;

// One launch for all arrays; rows whose `visible` is 0 keep values and moments. n_bad: number on the device of gradient
// values that are not finite, which count as 0; it is added to.
void adam_step(const std::vector<AdamArray>& arrays, int64_t n_rows, const uint8_t* visible, const AdamRule& rule,
               unsigned int* n_bad, Stream stream);

void mcmc_noise(const NoiseArgs& args, int64_t n, Stream stream);

}  // namespace gpu
}  // namespace scene3d
