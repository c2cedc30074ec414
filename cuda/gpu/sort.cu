#include "gpu/sort.h"

#if !defined(S3D_EMULATE)
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#else
#include <algorithm>
#include <numeric>
#endif

namespace scene3d {
namespace gpu {

#if !defined(S3D_EMULATE)

void exclusive_sum(uint32_t* values, int64_t n, const Memory& memory, Stream stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  size_t n_bytes = 0;
  check(cub::DeviceScan::ExclusiveSum(nullptr, n_bytes, values, values, n, s), "size of prefix sum");
  void* scratch = memory.allocate(static_cast<int64_t>(n_bytes), false);
  check(cub::DeviceScan::ExclusiveSum(scratch, n_bytes, values, values, n, s), "prefix sum");
}

void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const uint32_t* values, uint32_t* sorted_values, int64_t n,
                int n_bits, const Memory& memory, Stream stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const auto call = [&](void* scratch, size_t& n_bytes) {
    return cub::DeviceRadixSort::SortPairs(scratch, n_bytes, keys, sorted_keys, values, sorted_values, n, 0, n_bits, s);
  };
  size_t n_bytes = 0;
  check(call(nullptr, n_bytes), "size of radix sort");
  void* scratch = memory.allocate(static_cast<int64_t>(n_bytes), false);
  check(call(scratch, n_bytes), "radix sort");
}

#else

void exclusive_sum(uint32_t* values, int64_t n, const Memory&, Stream) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t value = values[i];
    values[i] = sum;
    sum += value;
  }
}

void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const uint32_t* values, uint32_t* sorted_values, int64_t n,
                int n_bits, const Memory&, Stream) {
  const uint32_t mask = n_bits >= 32 ? ~0u : (1u << n_bits) - 1;
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
  for (int64_t i = 0; i < n; i++) {
    const int64_t from = order[static_cast<size_t>(i)];
    sorted_keys[i] = keys[from], sorted_values[i] = values[from];
  }
}

#endif

}  // namespace gpu
}  // namespace scene3d
