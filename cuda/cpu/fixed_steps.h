// Numbers of the splat codec: fixed point with 16 fractional bits, and step sizes a quarter of an octave apart.
#pragma once
#include <cstdint>

namespace scene3d {

constexpr int kStepCount = 128, kStepOne = 64;

// 2^((index - kStepOne) / 4) in fixed point, at least one unit.
inline int32_t step_size(int index) {
  constexpr int32_t kQuarter[4] = {65536, 77936, 92682, 110218};
  const int clamped = index < 0 ? 0 : index >= kStepCount ? kStepCount - 1 : index;
  const int octave = clamped / 4 - kStepOne / 4;
  const int64_t size = octave >= 0 ? static_cast<int64_t>(kQuarter[clamped & 3]) << octave : kQuarter[clamped & 3] >> -octave;
  return size < 1 ? 1 : size > 0x7FFFFFFF ? 0x7FFFFFFF : static_cast<int32_t>(size);
}

// Which of the odd thresholds |value| / step passes: 0 below a half, then up to 3; with the sign 0..6.
inline int coarse_ratio(int64_t value, int64_t step) {
  const int64_t size = value < 0 ? -value : value;
  const int level = 2 * size < step ? 0 : 2 * size < 3 * step ? 1 : size < 3 * step ? 2 : 3;
  return value < 0 ? 3 - level : 3 + level;
}

// 0..11: value / step on a roughly logarithmic scale; value >= 0.
inline int fine_ratio(int64_t value, int64_t step) {
  constexpr int kQuarters[11] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64};
  int bin = 0;
  while (bin < 11 && 4 * value >= kQuarters[bin] * step) bin++;
  return bin;
}

}  // namespace scene3d
