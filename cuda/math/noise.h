// Position noise of Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024, equation 8):
// means += R S S R^T z scale sigmoid(100 (0.005 - opacity)).
//
// z comes from a counter-based generator keyed by (seed, step) and counted by the Gaussian, so that nothing depends on
// the order of the work, and Gaussians that are opaque cost nothing.
#pragma once
#include <cstdint>

#include "math/projection.h"

namespace scene3d {

constexpr float kNoiseSlope = 100.f, kFaintOpacity = 0.005f;
// Logits from here on have opacities above 0.171, where the gate is below 2^-24.
constexpr float kOpaqueLogit = -1.57f;

struct Draw {
  uint32_t word[4];
};

// Philox 4x32-10 (Salmon et al. 2011).
S3D_HD Draw philox(uint64_t counter_low, uint64_t counter_high, uint64_t key) {
  uint32_t c0 = static_cast<uint32_t>(counter_low), c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high), c3 = static_cast<uint32_t>(counter_high >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53u} * c0, b = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Three standard normal numbers (Box and Muller 1958).
S3D_HD void normal_numbers(const Draw& draw, float* z) {
  constexpr float unit = 1.f / (1 << 24);
  for (int i = 0; i < 2; i++) {
    const float uniform = static_cast<float>((draw.word[2 * i] >> 8) + 1) * unit;  // in (0, 1]
    const float angle = static_cast<float>(draw.word[2 * i + 1] >> 8) * (unit * 6.28318531f);
    const float radius = sqrtf(-2.f * logf(uniform));
    z[2 * i] = radius * cosf(angle);
    if (i == 0) z[1] = radius * sinf(angle);
  }
}

struct NoiseArgs {
  float* means;
  const float *quats, *log_scales, *opacity_logits;
  float scale;
  uint64_t seed, step;
};

// Moves Gaussian i.
S3D_HD void add_noise(const NoiseArgs& args, int64_t i) {
  if (!(args.opacity_logits[i] < kOpaqueLogit)) return;
  const float* const quat = args.quats + 4 * i;
  const float norm = sqrtf(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
  if (!(norm > 0)) return;
  const float unit[4] = {quat[0] / norm, quat[1] / norm, quat[2] / norm, quat[3] / norm};
  float R[9], z[3], shift[3] = {0.f, 0.f, 0.f};
  rotation_of_quat(unit, R);
  normal_numbers(philox(static_cast<uint64_t>(i), args.step, args.seed), z);
  const float opacity = 1.f / (1.f + expf(-args.opacity_logits[i]));
  const float strength = args.scale / (1.f + expf(kNoiseSlope * (opacity - kFaintOpacity)));
  for (int axis = 0; axis < 3; axis++) {
    const float along = R[axis] * z[0] + R[3 + axis] * z[1] + R[6 + axis] * z[2];
    const float length = expf(2.f * args.log_scales[3 * i + axis]) * along * strength;
    for (int j = 0; j < 3; j++) shift[j] += R[3 * j + axis] * length;
  }
  if (!is_finite(shift[0]) || !is_finite(shift[1]) || !is_finite(shift[2])) return;
  for (int j = 0; j < 3; j++) args.means[3 * i + j] += shift[j];
}

}  // namespace scene3d
