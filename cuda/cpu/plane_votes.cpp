// Rounds of votes: images with margins, rows over threads, two sets of planes in turn.
#include "cpu/plane_votes.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/surface.h"

namespace scene3d {

void vote_planes(const StereoPhoto& photo, const float* trust, const VoteSettings& settings, float* planes) {
  const int64_t width = photo.width, height = photo.height, n = width * height;
  const int64_t stride = width + 2 * kVoteReach + 16, size = stride * (height + 2 * kVoteReach);
  const size_t room = static_cast<size_t>(size);
  std::vector<float> grey(room), sure(room), first(3 * room), second(3 * room);
  const auto inner = [&](int64_t y) { return (y + kVoteReach) * stride + kVoteReach; };
  for (int64_t y = 0; y < height; y++) {
    float *const g = grey.data() + inner(y), *const t = sure.data() + inner(y);
    for (int64_t x = 0; x < width; x++) {
      const int64_t from = y * width + x;
      g[x] = static_cast<float>(photo.grey[from]) / 255.f;
      t[x] = planes[from] > 0 ? trust[from] : 0.f;
    }
    for (int64_t k = 0; k < 3; k++) std::copy_n(planes + k * n + y * width, width, first.data() + k * size + inner(y));
  }
  VoteCall call = {grey.data(), sure.data(),  nullptr,        stride,  size,
                   photo.width, photo.height, settings.apart, nullptr, false};
  float *from = first.data(), *to = second.data();
  for (int round = 0; round < settings.n_rounds; round++) {
    call.planes = from, call.new_planes = to, call.only_slopes = round == 0;
    parallel_for(height, [&](int64_t y) { surface_kernels().vote_row(call, static_cast<int>(y)); });
    std::swap(from, to);
  }
  for (int64_t k = 0; k < 3; k++)
    for (int64_t y = 0; y < height; y++) std::copy_n(from + k * size + inner(y), width, planes + k * n + y * width);
}

}  // namespace scene3d
