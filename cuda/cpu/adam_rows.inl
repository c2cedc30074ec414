// Adam over consecutive floats: param -= step_size exp_avg / (sqrt(exp_avg_sq) root_correction + eps).
#include "cpu/adam.h"

namespace scene3d {
namespace S3D_NS {

struct AdamConstants {
  f32x16 beta1, rest1, beta2, rest2, root_correction, eps, infinity;
};

// Returns the number of gradient values that are not finite; they count as 0.
template <class Load, class Store>
S3D_INLINE int adam_vector(const AdamGroup& g, const AdamConstants& c, int64_t i, Load get, Store put) {
  f32x16 grad = get(g.grad + i);
  const mask16 is_finite = abs(grad) < c.infinity;
  const uint32_t finite_bits = bits(is_finite);
  grad = keep(is_finite, grad);
  const f32x16 m = fma(c.beta1, get(g.exp_avg + i), c.rest1 * grad);
  const f32x16 v = fma(c.beta2, get(g.exp_avg_sq + i), c.rest2 * (grad * grad));
  const f32x16 denominator = fma(sqrt(v), c.root_correction, c.eps);
  put(g.exp_avg + i, m);
  put(g.exp_avg_sq + i, v);
  put(g.param + i, fnma(f32x16(g.step_size), m / denominator, get(g.param + i)));
  return finite_bits == 0xffffu ? 0 : 16 - __builtin_popcount(finite_bits);
}

S3D_INLINE int64_t adam_range(const AdamGroup& g, const AdamConstants& c, int64_t begin, int64_t end) {
  int64_t n_bad = 0;
  int64_t i = begin;
  for (; i + 16 <= end; i += 16)
    n_bad += adam_vector(g, c, i, [](const float* p) { return load(p); }, [](float* p, f32x16 a) { store(p, a); });
  const int rest = static_cast<int>(end - i);
  if (rest > 0)
    n_bad += adam_vector(
        g, c, i, [=](const float* p) { return load_first(p, rest); }, [=](float* p, f32x16 a) { store_first(p, a, rest); });
  return n_bad;
}

static int64_t adam_rows(const AdamArgs& args, int64_t begin, int64_t end) {
  const AdamConstants c = {args.beta1,         1 - args.beta1, args.beta2, 1 - args.beta2, args.root_correction,
                           args.eps,           HUGE_VALF};
  int64_t n_bad = 0;
  for (int k = 0; k < args.n_groups; k++) {
    const AdamGroup& g = args.groups[k];
    for (int64_t row = begin; row < end;) {  // one run of visible rows after the other
      int64_t stop = row;
      while (stop < end && (!args.visible || args.visible[stop])) stop++;
      if (stop > row) n_bad += adam_range(g, c, row * g.n_columns, stop * g.n_columns);
      row = stop + 1;
    }
  }
  return n_bad;
}

}  // namespace S3D_NS
}  // namespace scene3d
