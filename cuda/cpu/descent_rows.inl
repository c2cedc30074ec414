// Gradients of sixteen Gaussians and their step of Adam while both are in the cache: gradients never go to memory.
#include "cpu/descent.h"

namespace scene3d {
namespace S3D_NS {

// Gradients of sixteen Gaussians, one array after another.
struct GradientBlock {
  alignas(64) float means[48], quats[64], log_scales[48], opacity_logits[16], sh0[48], shN[16 * 45], grad2d[16];
};

// Asks for the parameters and moments of sixteen rows, which are needed a few thousand cycles later.
S3D_INLINE void prefetch_rows(const DescentArgs& descent, int64_t row, int n) {
  for (int k = 0; k < descent.adam.n_groups; k++) {
    const AdamGroup& g = descent.adam.groups[k];
    const int64_t first = row * g.n_columns, last = (row + n) * g.n_columns;
    for (int64_t i = first; i < last; i += 16) {
      __builtin_prefetch(g.exp_avg + i, 1, 2);
      __builtin_prefetch(g.exp_avg_sq + i, 1, 2);
    }
  }
}

// Adds the gradients of opacity_reg Σ opacity + scale_reg Σ scale.
S3D_INLINE void regularize(const RasterCall<float>& call, const DescentArgs& descent, int64_t i, int n, GradientBlock& v) {
  if (descent.opacity_reg > 0) {
    const f32x16 opacity = f32x16(1.f) / (f32x16(1.f) + exp(-load_first(call.opacity_logits + i, n)));
    store(v.opacity_logits, fma(f32x16(descent.opacity_reg), opacity * (f32x16(1.f) - opacity), load(v.opacity_logits)));
  }
  if (descent.scale_reg <= 0) return;
  for (int k = 0; k < 3 * n; k += 16) {
    const int some = 3 * n - k < 16 ? 3 * n - k : 16;
    const f32x16 scale = exp(load_first(call.log_scales + 3 * i + k, some));
    store(v.log_scales + k, fma(f32x16(descent.scale_reg), scale, load(v.log_scales + k)));
  }
}

// Adds gradients that a method has worked out for itself.
S3D_INLINE void add_gradients(const float* added, int64_t n_values, float* gradient) {
  for (int64_t k = 0; k < n_values; k += 16) {
    const int some = n_values - k < 16 ? static_cast<int>(n_values - k) : 16;
    store(gradient + k, load(gradient + k) + load_first(added + k, some));
  }
}

S3D_INLINE void note_screen_gradients(const DescentArgs& descent, int64_t i, int n, uint32_t rows, const GradientBlock& v) {
  const f32x16 sums = load_first(descent.grad_sums + i, n), counts = load_first(descent.counts + i, n);
  store_first(descent.grad_sums + i, fma(load(v.grad2d), f32x16(descent.half_size), sums), n);
  store_first(descent.counts + i, counts + keep(mask_of(rows), f32x16(1.f)), n);
}

static void descend_rows(const RasterCall<float>& call, const PairRows& pairs, const float* sums, int64_t begin,
                         int64_t end, const DescentArgs& descent, ViewGrad<float>* v_view) {
  const AdamConstants constants = adam_constants(descent.adam);
  GradientBlock v;
  const RasterGrads<float> out = {v.means, v.quats, v.log_scales, v.opacity_logits, v.sh0, call.shN_stride ? v.shN : nullptr,
                                  nullptr, v.grad2d};
  float* const gradients[6] = {v.means, v.quats, v.log_scales, v.opacity_logits, v.sh0, v.shN};
  int64_t n_bad = 0;
  each_sixteen(pairs, begin, end, v_view, [&](int64_t i, int n, uint32_t rows, ViewGrad<Lanes>* v_lanes) {
    if (!rows) return;
    if (n == 16) prefetch_sh(call, i);
    prefetch_rows(descent, i, n);
    const float* const mine = sums + kRowFloats * (i - begin);
    if (n == 16) gradient_sixteen<true>(call, mine, nullptr, i, 16, rows, out, v_lanes);
    else gradient_sixteen<false>(call, mine, nullptr, i, n, rows, out, v_lanes);
    regularize(call, descent, i, n, v);
    if (descent.grad_sums) note_screen_gradients(descent, i, n, rows, v);
    for (int k = 0; k < descent.adam.n_groups; k++) {
      const AdamGroup& g = descent.adam.groups[k];
      const int64_t first = i * g.n_columns;
      if (descent.added[k]) add_gradients(descent.added[k] + first, n * g.n_columns, gradients[k]);
      const AdamGroup here = {g.param + first, gradients[k], g.exp_avg + first, g.exp_avg_sq + first, g.n_columns, g.step_size};
      adam_block(here, constants, 0, n, rows, n_bad);
    }
  });
}

}  // namespace S3D_NS
}  // namespace scene3d
