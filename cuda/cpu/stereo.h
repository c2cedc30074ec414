// Stereo: the plane behind every pixel of a photo, such that patches look alike
// in other photos (PatchMatch: Bleyer et al. 2011; all pixels at once, so that
// results do not depend on threads). A plane is the inverse depth at its pixel
// and how that changes from pixel to pixel: inverse depth is linear in the
// pixel, and so is where a plane is seen elsewhere.
#pragma once
#include <cstdint>
#include <vector>

namespace scene3d {

constexpr int kPatchReach = 3;  // patches are 7x7 pixels, every other one of them
constexpr int kMaxStereoOthers = 8;

// Pixel p = (x, y) at inverse depth r is seen in another photo at the first two
// of A (x, y, 1) + r b over the third, x and y counted from the middle of the
// first pixel in both.
struct StereoOther {
  float A[9], b[3];
  const int32_t* codes;  // of each pixel: itself, right, below, below right, 8 bits each
  const uint8_t* shown;  // of each pixel: 0 = something else is before the scene there; null: none is
  int width, height;
};

// One round over all pixels.
struct StereoCall {
  const float* grey;  // 0 to 1, with kPatchReach more pixels on all sides and 16
                      // more on the right
  int64_t stride;
  int width, height;
  float fx, fy, cx, cy;  // cx, cy counted like pixels here
  const StereoOther* others;
  int n_others;
  const float* planes;  // inverse depth (0 = unknown) and its steps by x and y [3, H, W]
  const float* costs;   // of these [H, W]
  float* new_planes;
  float* new_costs;
  int hop;  // how far away planes are looked for, pixels
  float spread,
      tilt;  // random changes: of depth, as a share of it; of slope, tangents
  uint32_t seed;
  bool first;  // costs are not known yet: only these are found
};

struct StereoSettings {
  int n_rounds;
  float spread, tilt;
  uint32_t seed;
};

struct StereoPhoto {
  const uint8_t* grey;  // [H, W]
  int width, height;
  double fx, fy, cx, cy;
  const double* cam_from_world;  // [4, 4]
  const uint8_t* shown;          // [H, W], see StereoOther
};

// Brightness, 0 to 1, with kPatchReach more pixels on all sides and the rest of each stride on the right.
std::vector<float> padded(const StereoPhoto& photo, int64_t stride);
// See StereoOther.
std::vector<int32_t> codes_of(const StereoPhoto& photo);
// From pixels of a photo, with inverse depth, to pixels of another one.
StereoOther seen_by(const StereoPhoto& photo, const StereoPhoto& other, const int32_t* codes);

// Betters planes [3, H, W] in place and tells how unlike the patches are: costs
// [H, W], 0 to 2.
void match_planes(const StereoPhoto& photo, const StereoPhoto* others, int n_others, const StereoSettings& settings,
                  float* planes, float* costs);

}  // namespace scene3d
