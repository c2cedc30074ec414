// L1 + (1 - SSIM) of two images and its gradient by the first, in one call.
//
// The image is cut into tiles. A tile blurs rows of 16 * n floats that are kept lane-major: lane l holds the pixel
// columns [l S, (l + 1) S), so that horizontal neighbours are neighbouring vectors and both directions of the blur
// work on whole aligned vectors. Rows pass through rings of three blocks of five rows (five = half the window), which
// stay in L2:
//   rows of both images -> vertical blur of x, y, xx + yy, xy -> horizontal blur -> SSIM and its three derivative maps
//   -> horizontal blur -> vertical blur -> gradient.
// Each blur uses the window's symmetry: six multiplications and five additions per output.
// 270x480 on one core, Zen 4: 1.5 ms with AVX-512, 2.6 ms with AVX2; on two 0.75 ms and 1.3 ms.
#pragma once
#include <cstdint>

namespace scene3d {

constexpr int kLossHalf = 5;           // half the SSIM window, 11 taps
constexpr int kLossMaxColumns = 512;   // of a tile, halo included
constexpr int kLossTileRows = 120;     // a multiple of kLossHalf

// Where l1 and ssim are means over pixels and channels, weighted where weights are given:
// loss = (1 - ssim_lambda) l1 + ssim_lambda (1 - ssim).
struct LossArgs {
  const float* rgb;            // [H, W, 3]
  const float* target;         // [H, W, 3], or nullptr
  const uint8_t* target_bytes;  // [H, W, 3], 255 = 1; used when target is nullptr
  const float* weight;         // [H, W], or nullptr
  int height, width;
  float l1_scale, ssim_scale;  // what a pixel's |x - y| and ssim add to the loss, per unit of weight
  float* v_rgb;                // [H, W, 3]
  int tiles_x, tile_width;
  double* sums;                // [n_tiles, 2]: sums of |x - y| and ssim
};

struct LossParts {
  double loss, l1, ssim;
};

struct LossInput {
  const float* rgb;
  const float* target;
  const uint8_t* target_bytes;
  const float* weight;
  int height, width;
};

// Weights of 0 everywhere: loss, l1 and ssim are 0 and so is the gradient.
LossParts l1_ssim(const LossInput& input, float ssim_lambda, float* v_rgb);

// Floats of scratch memory of one tile.
constexpr int64_t kLossMaxVectors = 3 * ((kLossMaxColumns + 15) / 16);   // of one row
constexpr int64_t kLossStride = 16 * (kLossMaxVectors + 1 + 30);          // floats of one row with its halo
constexpr int64_t kLossScratch = kLossStride * (3 * 15 + 3 * 15 + 4 * 5 + 3 + 5 + 4);

}  // namespace scene3d
