// Planes made even: every pixel takes the mean of where the planes around it pass. Planes and what is said of pixels as
// in stereo.h.
#pragma once
#include <cstdint>

#include "cpu/stereo.h"

namespace scene3d {

constexpr int kVoteReach = 4;  // every other pixel of 9x9

// One round over all pixels. All images have kVoteReach more pixels on all sides, and 16 more on the right.
struct VoteCall {
  const float* grey;    // 0 to 1
  const float* trust;   // of each pixel's plane; 0 where there is none
  const float* planes;  // [3, ...]
  int64_t stride, size;
  int width, height;
  float apart;        // planes that pass each other farther away do not belong together: share of the depth
  float* new_planes;  // [3, ...]
  bool only_slopes;
};

struct VoteSettings {
  int n_rounds;
  float apart;
};

// Makes planes [3, H, W] even in place. The first round is one of slopes alone: the others look along them.
void vote_planes(const StereoPhoto& photo, const float* trust, const VoteSettings& settings, float* planes);

}  // namespace scene3d
