// Prefix sums and radix sorts: CUB's, or plain loops under emulation. Scratch memory comes from `memory`.
#pragma once
#include "gpu/raster.h"

namespace scene3d {
namespace gpu {

// values[i] = sum of values[0 .. i-1], in place.
void exclusive_sum(uint32_t* values, int64_t n, const Memory& memory, Stream stream);

// Stable, by the lowest n_bits of the keys.
void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const uint32_t* values, uint32_t* sorted_values, int64_t n,
                int n_bits, const Memory& memory, Stream stream);

}  // namespace gpu
}  // namespace scene3d
