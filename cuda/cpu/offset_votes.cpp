// Offsets of all pixels: images with margins, bands in turn, rows of them over threads.
#include "cpu/offset_votes.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/surface.h"

namespace scene3d {

void vote_offsets(const StereoPhoto& photo, const OffsetOther* others, int n_others, const OffsetSettings& settings,
                  const float* planes, const OffsetResult& result) {
  const int64_t stride = photo.width + 2 * kPatchReach + 16, size = stride * (photo.height + 2 * kPatchReach);
  const int64_t band = stride * (kOffsetRows + 2 * kPatchReach);
  const size_t n = static_cast<size_t>(n_others), room = n * static_cast<size_t>(band);
  const std::vector<float> grey = padded(photo, stride);
  std::vector<float> r(static_cast<size_t>(size)), values(room * static_cast<size_t>(settings.n_steps)), seen(room);
  for (int64_t y = 0; y < photo.height; y++)
    std::copy_n(planes + y * photo.width, photo.width, r.data() + (y + kPatchReach) * stride + kPatchReach);
  std::vector<std::vector<int32_t>> codes;
  std::vector<StereoOther> asked;
  std::vector<const float*> nearness;
  for (size_t i = 0; i < n; i++) codes.push_back(codes_of(others[i].photo));
  for (size_t i = 0; i < n; i++) {
    asked.push_back(seen_by(photo, others[i].photo, codes[i].data()));
    nearness.push_back(others[i].nearness);
  }
  OffsetCall call;
  call.grey = grey.data(), call.r = r.data(), call.planes = planes;
  call.stride = stride, call.width = photo.width, call.height = photo.height;
  call.fx = static_cast<float>(photo.fx), call.fy = static_cast<float>(photo.fy);
  call.cx = static_cast<float>(photo.cx - 0.5), call.cy = static_cast<float>(photo.cy - 0.5);
  call.others = asked.data(), call.nearness = nearness.data(), call.n_others = n_others;
  call.settings = settings, call.band = band, call.values = values.data(), call.seen = seen.data();
  call.result = result;
  for (call.first = 0; call.first < photo.height; call.first += kOffsetRows) {
    std::fill(seen.begin(), seen.end(), 0.f);
    const int64_t from = std::max(call.first - kPatchReach, 0),
                  to = std::min(call.first + kOffsetRows + kPatchReach, photo.height);
    parallel_for(to - from, [&](int64_t y) { surface_kernels().offset_warp_row(call, static_cast<int>(from + y)); });
    const int64_t last = std::min(call.first + kOffsetRows, photo.height);
    parallel_for(last - call.first,
                 [&](int64_t y) { surface_kernels().offset_vote_row(call, static_cast<int>(call.first + y)); });
  }
}

}  // namespace scene3d
