// Offsets: how far before or behind a surface its photos show it, pixel by pixel. All pixels of a photo are moved along
// their rays at once, a few steps of so many pixels along the normal, and are looked up in other photos; then patches
// are compared, each bent as the surface is. What is said of planes and photos as in stereo.h.
#pragma once
#include <cstdint>

#include "cpu/stereo.h"

namespace scene3d {

constexpr int kMostOffsets = 9;
// Rows that are looked up at once: what is kept of them fits into a cache.
constexpr int kOffsetRows = 32;

// A photo, and how near the surface is there.
struct OffsetOther {
  StereoPhoto photo;
  const float* nearness;  // inverse depth of the surface, 0 = none [H, W]
};

struct OffsetSettings {
  int n_steps;  // odd, at most kMostOffsets
  float step;   // pixels
};

struct OffsetResult {
  float* offsets;  // towards the camera along the normal, pixels [H, W]
  float* weights;  // 0 = nothing is known [H, W]
};

// What the kernels read and write. Images with margins have kPatchReach more pixels on all sides and 16 more on the
// right; bands are such images of kOffsetRows rows, the first of them `first` of the whole.
struct OffsetCall {
  const float* grey;  // 0 to 1, with margins
  const float* r;     // inverse depth of the surface, 0 = none, with margins
  const float* planes;  // the surface [3, H, W]
  int64_t stride;
  int width, height;
  float fx, fy, cx, cy;  // cx, cy counted like pixels here
  const StereoOther* others;
  const float* const* nearness;  // of each other
  int n_others;
  OffsetSettings settings;
  int first;
  int64_t band;   // size of one
  float* values;  // of each other and step a band
  float* seen;    // of each other a band, 0 or 1
  OffsetResult result;
};

// Offsets of a photo's pixels from a surface, planes [3, H, W], and how much they are to be believed.
void vote_offsets(const StereoPhoto& photo, const OffsetOther* others, int n_others, const OffsetSettings& settings,
                  const float* planes, const OffsetResult& result);

}  // namespace scene3d
