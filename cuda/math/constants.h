// Thresholds of the rasterizer, the only place where they stand. Python reads them from the module.
#pragma once

namespace scene3d {

constexpr double kMinAlpha = 1.0 / 255.0;       // contributions below are skipped
constexpr double kMaxAlpha = 0.999;             // keeps transmittance positive, as gsplat does
constexpr double kMinTransmittance = 1e-4;      // a pixel is finished below it
constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;
constexpr double kHalfLog2eRoot = 0.8493218002880191;  // sqrt(log2(e) / 2): whitened offsets give powers of two
constexpr double kLog2MinAlpha = -7.994353436858858;   // log2(1 / 255)
constexpr double kFrustumMargin = 0.3;  // the Jacobian is clamped this fraction of half the image outside of it
constexpr int kTileSize = 16;

}  // namespace scene3d
