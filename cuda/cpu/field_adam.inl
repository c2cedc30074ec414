// Adam over the nodes that rays of this step touched; the others keep values and moments. The gradient is cleared where
// it is used, so that no pass over the whole grid is needed.
#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

// A node belongs to the cells whose lowest node it is, or the one before it along each axis.
S3D_INLINE bool is_touched(const uint8_t* cells, int64_t row, int64_t width) {
  if (width == 0) return cells[row];
  const bool has_left = row % width > 0;
  bool any = cells[row] || (has_left && cells[row - 1]);
  if (row >= width) any = any || cells[row - width] || (has_left && cells[row - width - 1]);
  return any;
}

template <class T>
static int64_t field_adam_rows(const FieldAdam<T>& adam, int group, int64_t begin, int64_t end) {
  using V = typename LanesOf<T>::type;
  const V beta1 = V(adam.beta1), rest1 = V(1 - adam.beta1), beta2 = V(adam.beta2), rest2 = V(1 - adam.beta2);
  const V infinity = V(static_cast<T>(HUGE_VAL)), zero = V(T(0)), l1 = V(adam.l1);
  const uint8_t* const touched = adam.touched + group * adam.n_rows;
  int64_t n_bad = 0;
  for (int64_t row = begin; row < end; row++) {
    if (!is_touched(touched, row, adam.width)) continue;
    const int64_t at = row * adam.rank + kLanes * group;
    const V value = load(adam.values + at), raw = load(adam.grads + at);
    store(adam.grads + at, zero);
    const auto is_finite = abs(raw) < infinity;
    V grad = choose(is_finite, raw, zero);
    n_bad += kLanes - static_cast<int64_t>(lane_sum(choose(is_finite, V(T(1)), zero)));
    grad = grad + choose(value < zero, zero - l1, l1);
    const V exp_avg = fma(beta1, load(adam.exp_avg + at), rest1 * grad);
    const V exp_avg_sq = fma(beta2, load(adam.exp_avg_sq + at), rest2 * (grad * grad));
    store(adam.exp_avg + at, exp_avg), store(adam.exp_avg_sq + at, exp_avg_sq);
    const V denominator = fma(sqrt(exp_avg_sq), V(adam.root_correction), V(adam.eps));
    store(adam.values + at, value - V(adam.step_size) * (exp_avg / denominator));
  }
  return n_bad;
}

}  // namespace S3D_NS
}  // namespace scene3d
