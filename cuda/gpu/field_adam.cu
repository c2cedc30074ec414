// Adam over the nodes of a field that rays reached, all factors in one launch; the CPU's is cuda/cpu/field_adam.inl.
#include <stdexcept>
#include <string>

#include "gpu/field.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256, kValuesPerThread = 4, kBlockValues = kThreads * kValuesPerThread, kMaxArrays = kFieldSets * kFieldSlabs;

struct FieldAdamTable {
  FieldAdamArray arrays[kMaxArrays];
  int64_t first_block[kMaxArrays + 1];
  FieldAdamRule rule;
  unsigned int* n_bad;
};

// A node belongs to the cells whose lowest node it is, or the one before it along each axis.
__device__ inline bool is_touched(const uint8_t* cells, int64_t row, int64_t width) {
  const bool has_left = row % width > 0;
  bool any = cells[row] || (has_left && cells[row - 1]);
  if (row >= width) any = any || cells[row - width] || (has_left && cells[row - width - 1]);
  return any;
}

__global__ void __launch_bounds__(kThreads) field_adam_kernel(FieldAdamTable table) {
  int k = 0;
  while (blockIdx.x >= table.first_block[k + 1]) k++;
  const FieldAdamArray a = table.arrays[k];
  const FieldAdamRule rule = table.rule;
  const int64_t begin = (blockIdx.x - table.first_block[k]) * kBlockValues + threadIdx.x;
  unsigned n_bad = 0;
  for (int j = 0; j < kValuesPerThread; j++) {
    const int64_t i = begin + j * kThreads, row = i / a.rank;
    if (row >= a.n_rows || !is_touched(a.touched + i % a.rank / kRankLanes * a.n_rows, row, a.width)) continue;
    const float raw = a.grads[i], value = a.values[i];
    a.grads[i] = 0.f;
    const bool is_bad = !is_finite(raw);
    n_bad += is_bad;
    const float grad = (is_bad ? 0.f : raw) + (value < 0.f ? -a.l1 : a.l1);
    const float m = rule.beta1 * a.exp_avg[i] + (1.f - rule.beta1) * grad;
    const float v = rule.beta2 * a.exp_avg_sq[i] + (1.f - rule.beta2) * (grad * grad);
    a.exp_avg[i] = m, a.exp_avg_sq[i] = v;
    a.values[i] = value - rule.step_size * (m / (sqrtf(v) * rule.root_correction + rule.eps));
  }
  n_bad = warp_sum(n_bad);
  if (n_bad && threadIdx.x % 32 == 0) atomicAdd(table.n_bad, n_bad);
}

}  // namespace

void field_adam_step(const std::vector<FieldAdamArray>& arrays, const FieldAdamRule& rule, unsigned int* n_bad, Stream stream) {
  if (arrays.size() > kMaxArrays) throw std::invalid_argument("field_adam: expected at most " + std::to_string(kMaxArrays) + " arrays");
  FieldAdamTable table = {};
  table.rule = rule, table.n_bad = n_bad;
  int64_t n_blocks = 0;
  for (size_t k = 0; k < arrays.size(); k++) {
    table.arrays[k] = arrays[k];
    n_blocks += blocks_for(arrays[k].n_rows * arrays[k].rank, kBlockValues);
    table.first_block[k + 1] = n_blocks;
  }
  if (n_blocks > 0) S3D_LAUNCH(field_adam_kernel, n_blocks, kThreads, stream, table);
}

}  // namespace gpu
}  // namespace scene3d
