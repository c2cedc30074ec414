#include "cpu/descent.h"

#include <cmath>
#include <vector>

#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kPixelGrain = 1 << 13;

// shown = A rgb + b.
void transform_colors(const float* transform, const float* rgb, int64_t n_pixels, float* shown) {
  parallel_ranges(n_pixels, kPixelGrain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++)
      for (int i = 0; i < 3; i++) {
        const float* row = transform + 4 * i;
        shown[3 * p + i] = row[0] * rgb[3 * p] + row[1] * rgb[3 * p + 1] + row[2] * rgb[3 * p + 2] + row[3];
      }
  });
}

// v_rgb = A^T v_shown; v_transform = Σ v_shown [rgb 1]^T, added up range by range.
void transform_colors_vjp(const float* transform, const float* rgb, const float* v_shown, int64_t n_pixels, float* v_rgb,
                          float* v_transform) {
  std::vector<double> sums(static_cast<size_t>((n_pixels + kPixelGrain - 1) / kPixelGrain * 12));
  parallel_ranges(n_pixels, kPixelGrain, [&](int64_t begin, int64_t end) {
    float sum[12] = {};
    for (int64_t p = begin; p < end; p++) {
      const float *x = rgb + 3 * p, *v = v_shown + 3 * p;
      for (int j = 0; j < 3; j++) v_rgb[3 * p + j] = transform[j] * v[0] + transform[4 + j] * v[1] + transform[8 + j] * v[2];
      for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) sum[4 * i + j] += v[i] * x[j];
        sum[4 * i + 3] += v[i];
      }
    }
    for (int k = 0; k < 12; k++) sums[static_cast<size_t>(begin / kPixelGrain * 12 + k)] = sum[k];
  });
  for (int k = 0; k < 12; k++) {
    double total = 0;
    for (size_t i = static_cast<size_t>(k); i < sums.size(); i += 12) total += sums[i];
    v_transform[k] = static_cast<float>(total);
  }
}

}  // namespace

double descend(const RasterCall<float>& call, const DescentTarget& target, const DescentArgs& descent,
               const DescentGrads& grads, DescentImages& images) {
  const int64_t n_pixels = int64_t{call.width} * call.height;
  const size_t n_values = static_cast<size_t>(3 * n_pixels);
  const RasterImages<float> out = {images.rgb.reserve(n_values), images.alpha.reserve(static_cast<size_t>(n_pixels)),
                                   nullptr, nullptr, nullptr, nullptr};
  const auto state = borrow_state();
  tiled_forward(call, *state, out, images.radii.reserve(static_cast<size_t>(call.n)));

  Stopwatch watch;
  LossInput input = target.photo;
  input.rgb = out.rgb;
  float* v_rgb = images.v_rgb.reserve(n_values);
  double loss;
  if (target.transform) {
    float *shown = images.shown.reserve(n_values), *v_shown = images.v_shown.reserve(n_values);
    transform_colors(target.transform, out.rgb, n_pixels, shown);
    input.rgb = shown;
    loss = l1_ssim(input, target.ssim_lambda, v_shown).loss;
    transform_colors_vjp(target.transform, out.rgb, v_shown, n_pixels, v_rgb, grads.transform);
  } else {
    loss = l1_ssim(input, target.ssim_lambda, v_rgb).loss;
  }
  watch.lap(kTimeLoss);
  if (!std::isfinite(loss)) return loss;
  const RasterUpstream<float> upstream = {v_rgb, nullptr, nullptr, nullptr, nullptr};
  tiled_descend(call, *state, out, upstream, descent, grads.viewmat);
  return loss;
}

}  // namespace scene3d
