// Adam over arrays whose rows are Gaussians (Kingma and Ba 2015; selective: Mallick et al. 2024). Bound by memory: 28
// bytes a value, none but the mask for rows that are not visible.
#include <stdexcept>

#include "gpu/adam_value.h"
#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256, kValuesPerThread = 4, kBlockValues = kThreads * kValuesPerThread;

struct AdamTable {
  AdamArray arrays[kMaxAdamArrays];
  unsigned first_block[kMaxAdamArrays + 1];
  int n_arrays;
  unsigned n_rows;
  const uint8_t* visible;
  AdamRule rule;
  unsigned int* n_bad;
};

__global__ void __launch_bounds__(kThreads) adam_kernel(AdamTable table) {
  int k = 0;
  while (blockIdx.x >= table.first_block[k + 1]) k++;
  const AdamArray a = table.arrays[k];
  const unsigned n_columns = static_cast<unsigned>(a.n_columns), n_values = table.n_rows * n_columns;
  const unsigned begin = (blockIdx.x - table.first_block[k]) * kBlockValues + threadIdx.x;
  unsigned n_bad = 0;
#pragma unroll
  for (int j = 0; j < kValuesPerThread; j++) {
    const unsigned i = begin + static_cast<unsigned>(j) * kThreads;
    if (i >= n_values || (table.visible && !table.visible[i / n_columns])) continue;
    const float grad = a.grad[i];
    const bool is_bad = !is_finite(grad);
    n_bad += is_bad;
    adam_value(a, table.rule, i, is_bad ? 0.f : grad);
  }
  n_bad = warp_sum(n_bad);
  if (n_bad && threadIdx.x % 32 == 0) atomicAdd(table.n_bad, n_bad);
}

}  // namespace

void adam_step(const std::vector<AdamArray>& arrays, int64_t n_rows, const uint8_t* visible, const AdamRule& rule,
               unsigned int* n_bad, Stream stream) {
  if (arrays.size() > kMaxAdamArrays) throw std::invalid_argument("adam: expected at most 16 arrays");
  AdamTable table = {};
  table.n_arrays = static_cast<int>(arrays.size()), table.n_rows = static_cast<unsigned>(n_rows);
  table.visible = visible, table.rule = rule, table.n_bad = n_bad;
  for (size_t k = 0; k < arrays.size(); k++) {
    const int64_t n_values = n_rows * arrays[k].n_columns;
    if (n_values >= INT64_C(1) << 32) throw std::invalid_argument("adam: an array has more than 2^32 values");
    table.arrays[k] = arrays[k];
    table.first_block[k + 1] = table.first_block[k] + static_cast<unsigned>(blocks_for(n_values, kBlockValues));
  }
  const unsigned n_blocks = table.first_block[arrays.size()];
  if (n_blocks > 0) S3D_LAUNCH(adam_kernel, n_blocks, kThreads, stream, table);
}

}  // namespace gpu
}  // namespace scene3d
