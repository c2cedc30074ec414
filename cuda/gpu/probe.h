// See probe.cu.
#pragma once

namespace scene3d {
namespace gpu {

// Sums over 32 lanes of n_terms values each, [32, n_terms] to [n_terms]; false where n_terms is not 1 to 20.
bool probe_sum(int n_terms, const float* values, float* sums);
// out[i] = values[(i + 1) % 64], through shared memory.
void probe_neighbors(bool has_barrier, const float* values, float* out);
// Kernels that break the rules; each must raise.
void probe_fault(int fault);

}  // namespace gpu
}  // namespace scene3d
