// Rounds of stereo: photos to what the kernels read, rows over threads, two
// sets of planes in turn.
#include "cpu/stereo.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/surface.h"

namespace scene3d {
namespace {

// How far planes are looked for, in turn.
constexpr int kHops[] = {1, 4, 2, 9, 1, 3};

}  // namespace

std::vector<float> padded(const StereoPhoto& photo, int64_t stride) {
  std::vector<float> grey(static_cast<size_t>(stride) * static_cast<size_t>(photo.height + 2 * kPatchReach));
  for (int64_t y = 0; y < photo.height + 2 * kPatchReach; y++) {
    const int64_t from = std::min<int64_t>(std::max<int64_t>(y - kPatchReach, 0), photo.height - 1);
    for (int64_t x = 0; x < stride; x++) {
      const int64_t column = std::min<int64_t>(std::max<int64_t>(x - kPatchReach, 0), photo.width - 1);
      grey[static_cast<size_t>(y * stride + x)] = static_cast<float>(photo.grey[from * photo.width + column]) / 255.f;
    }
  }
  return grey;
}

std::vector<int32_t> codes_of(const StereoPhoto& photo) {
  std::vector<int32_t> codes(static_cast<size_t>(photo.width) * static_cast<size_t>(photo.height));
  for (int64_t y = 0; y < photo.height; y++) {
    for (int64_t x = 0; x < photo.width; x++) {
      const int64_t right = std::min<int64_t>(x + 1, photo.width - 1),
                    below = std::min<int64_t>(y + 1, photo.height - 1);
      const auto value = [&](int64_t j, int64_t i) { return static_cast<uint32_t>(photo.grey[j * photo.width + i]); };
      codes[static_cast<size_t>(y * photo.width + x)] =
          static_cast<int32_t>(value(y, x) | value(y, right) << 8 | value(below, x) << 16 | value(below, right) << 24);
    }
  }
  return codes;
}

StereoOther seen_by(const StereoPhoto& photo, const StereoPhoto& other, const int32_t* codes) {
  const double *m = photo.cam_from_world, *o = other.cam_from_world;
  // Other camera from this one: R = Ro Rm^T, t = to - R tm.
  double R[9], t[3];
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) {
      R[3 * i + j] = 0;
      for (int k = 0; k < 3; k++) R[3 * i + j] += o[4 * i + k] * m[4 * j + k];
    }
    t[i] = o[4 * i + 3] - (R[3 * i] * m[3] + R[3 * i + 1] * m[7] + R[3 * i + 2] * m[11]);
  }
  // Rays of pixels counted from the middle of the first one.
  const double inverse[9] = {
      1 / photo.fx, 0, (0.5 - photo.cx) / photo.fx, 0, 1 / photo.fy, (0.5 - photo.cy) / photo.fy, 0, 0, 1};
  const double K[9] = {other.fx, 0, other.cx - 0.5, 0, other.fy, other.cy - 0.5, 0, 0, 1};
  double rays[9];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++)
      rays[3 * i + j] = R[3 * i] * inverse[j] + R[3 * i + 1] * inverse[3 + j] + R[3 * i + 2] * inverse[6 + j];
  StereoOther result;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++)
      result.A[3 * i + j] =
          static_cast<float>(K[3 * i] * rays[j] + K[3 * i + 1] * rays[3 + j] + K[3 * i + 2] * rays[6 + j]);
    result.b[i] = static_cast<float>(K[3 * i] * t[0] + K[3 * i + 1] * t[1] + K[3 * i + 2] * t[2]);
  }
  result.codes = codes, result.shown = other.shown, result.width = other.width, result.height = other.height;
  return result;
}

void match_planes(const StereoPhoto& photo, const StereoPhoto* others, int n_others, const StereoSettings& settings,
                  float* planes, float* costs) {
  const int64_t stride = photo.width + 2 * kPatchReach + 16, size = static_cast<int64_t>(photo.width) * photo.height;
  const std::vector<float> grey = padded(photo, stride);
  std::vector<std::vector<int32_t>> codes;
  std::vector<StereoOther> seen;
  for (int i = 0; i < n_others; i++) codes.push_back(codes_of(others[i]));
  for (int i = 0; i < n_others; i++) seen.push_back(seen_by(photo, others[i], codes[static_cast<size_t>(i)].data()));
  std::vector<float> spare(static_cast<size_t>(4 * size));
  StereoCall call;
  call.grey = grey.data(), call.stride = stride, call.width = photo.width, call.height = photo.height;
  call.fx = static_cast<float>(photo.fx), call.fy = static_cast<float>(photo.fy);
  call.cx = static_cast<float>(photo.cx - 0.5), call.cy = static_cast<float>(photo.cy - 0.5);
  call.others = seen.data(), call.n_others = n_others;
  call.spread = settings.spread, call.tilt = settings.tilt;
  float *from = planes, *from_costs = costs, *to = spare.data(), *to_costs = spare.data() + 3 * size;
  for (int round = 0; round <= settings.n_rounds; round++) {
    call.first = round == 0;
    call.hop = kHops[round % 6], call.seed = settings.seed + static_cast<uint32_t>(round);
    call.planes = from, call.costs = from_costs, call.new_planes = to, call.new_costs = to_costs;
    parallel_for(photo.height, [&](int64_t y) { surface_kernels().stereo_row(call, static_cast<int>(y)); });
    std::swap(from, to), std::swap(from_costs, to_costs);
    if (round > 0) call.spread *= 0.5f, call.tilt *= 0.5f;
  }
  if (from != planes) std::copy(from, from + 3 * size, planes), std::copy(from_costs, from_costs + size, costs);
}

}  // namespace scene3d
