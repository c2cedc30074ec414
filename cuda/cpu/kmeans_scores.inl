// Nearest centers: four points against thirty-two centers at a time, one multiply-add a number.
#include "cpu/kmeans.h"

namespace scene3d {
namespace S3D_NS {

constexpr int kPointsAtOnce = 4;
static_assert(kCenterLanes == 16, "a block of centers is one vector");

struct LaneBest {
  f32x16 score, slot;

  S3D_INLINE LaneBest none() { return {f32x16(-INFINITY), f32x16(0.f)}; }
};

S3D_INLINE void offer(LaneBest& best, f32x16 score, f32x16 slot) {
  const mask16 is_better = best.score < score;
  best.score = select(is_better, score, best.score);
  best.slot = select(is_better, slot, best.slot);
}

// Equal scores go to the lower slot, so that the result does not depend on how centers fall into lanes.
S3D_INLINE void merge_lanes(const LaneBest& best, int32_t first, float& score, int32_t& slot) {
  float scores[16], slots[16];
  store(scores, best.score);
  store(slots, best.slot);
  for (int lane = 0; lane < 16; lane++) {
    const int32_t found = first + static_cast<int32_t>(slots[lane]);
    if (scores[lane] > score || (scores[lane] == score && found < slot)) score = scores[lane], slot = found;
  }
}

template <int n>
S3D_INLINE void nearest_of(const NearestArgs& args, int64_t at) {
  const float* points = args.points + at * args.n_dims;
  LaneBest best[n];
  for (int p = 0; p < n; p++) best[p] = LaneBest::none();
  for (int b = 0; b < args.n_blocks; b += 2) {
    const float* block = args.blocks + static_cast<int64_t>(b) * args.n_dims * 16;
    f32x16 low[n], high[n];
    for (int p = 0; p < n; p++) low[p] = f32x16(0.f) - load(args.half_norms + b * 16);
    for (int p = 0; p < n; p++) high[p] = f32x16(0.f) - load(args.half_norms + b * 16 + 16);
    for (int d = 0; d < args.n_dims; d++) {
      const f32x16 a = load(block + d * 16), c = load(block + (args.n_dims + d) * 16);
      S3D_UNROLL
      for (int p = 0; p < n; p++) {
        const f32x16 x(points[p * args.n_dims + d]);
        low[p] = fma(x, a, low[p]);
        high[p] = fma(x, c, high[p]);
      }
    }
    const f32x16 slot = f32x16(static_cast<float>(b * 16)) + lane_index();
    for (int p = 0; p < n; p++) offer(best[p], low[p], slot);
    for (int p = 0; p < n; p++) offer(best[p], high[p], slot + f32x16(16.f));
  }
  for (int p = 0; p < n; p++) merge_lanes(best[p], args.first, args.scores[at + p], args.slots[at + p]);
}

static void nearest_centers(const NearestArgs& args) {
  int64_t at = 0;
  for (; at + kPointsAtOnce <= args.n_points; at += kPointsAtOnce) nearest_of<kPointsAtOnce>(args, at);
  for (; at < args.n_points; at++) nearest_of<1>(args, at);
}

}  // namespace S3D_NS
}  // namespace scene3d
