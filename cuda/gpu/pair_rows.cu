#include "gpu/pair_rows.h"

#include "gpu/raster.h"
#include "gpu/surfels.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256;

// Adds the rows of each item in their order.
template <int WIDTH>
__global__ void add_rows_kernel(int64_t n_visible, Seen seen, Lists lists, PairRows rows, float* sums) {
  const int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x, r = k / WIDTH, slot = k % WIDTH;
  if (r >= n_visible) return;
  const uint32_t end = r + 1 < n_visible ? lists.offsets[r + 1] : static_cast<uint32_t>(lists.band.n_pairs);
  float* const to = sums + static_cast<int64_t>(seen.order[r]) * WIDTH + slot;
  float sum = *to;
  for (uint32_t pair = lists.offsets[r]; pair < end; pair++)
    if (rows.touched[pair]) sum += rows.rows[static_cast<int64_t>(pair) * WIDTH + slot];
  *to = sum;
}

template <int WIDTH>
__global__ void clear_sums_kernel(int64_t n_visible, const uint32_t* order, float* sums) {
  const int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x, r = k / WIDTH;
  if (r < n_visible) sums[static_cast<int64_t>(order[r]) * WIDTH + k % WIDTH] = 0.f;
}

}  // namespace

template <int WIDTH>
PairRows take_pair_rows(const RasterOptions& options, const Band& band, const Memory& memory, Stream stream) {
  if (!options.is_ordered) return {nullptr, nullptr};
  const PairRows rows = {memory.take<float>(band.n_pairs * WIDTH, false), memory.take<uint8_t>(band.n_pairs, false)};
  set_zero(rows.touched, band.n_pairs, stream);
  return rows;
}

template <int WIDTH>
void add_rows(const TileState& state, const Lists& lists, const PairRows& rows, float* sums, Stream stream) {
  if (!rows.rows) return;
  S3D_LAUNCH((add_rows_kernel<WIDTH>), blocks_for(state.n_visible * WIDTH, kThreads), kThreads, stream, state.n_visible,
             state.seen, lists, rows, sums);
}

template <int WIDTH>
void clear_sums(const TileState& state, float* sums, Stream stream) {
  if (state.n_visible == 0) return;
  S3D_LAUNCH((clear_sums_kernel<WIDTH>), blocks_for(state.n_visible * WIDTH, kThreads), kThreads, stream, state.n_visible,
             state.seen.order, sums);
}

#define S3D_INSTANTIATE(WIDTH)                                                                            \
  template PairRows take_pair_rows<WIDTH>(const RasterOptions&, const Band&, const Memory&, Stream);      \
  template void add_rows<WIDTH>(const TileState&, const Lists&, const PairRows&, float*, Stream);         \
  template void clear_sums<WIDTH>(const TileState&, float*, Stream);
S3D_INSTANTIATE(kSumFloats)
S3D_INSTANTIATE(kDiscFloats)
#undef S3D_INSTANTIATE

}  // namespace gpu
}  // namespace scene3d
