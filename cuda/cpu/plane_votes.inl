// One row of one round of votes: sixteen pixels at a time.
#include "cpu/plane_votes.h"
#include "cpu/simd.h"
#include "cpu/simd_math.h"

namespace scene3d {
namespace S3D_NS {

// Deviations of the weights: pixels, brightness.
constexpr float kVoteSpread = 2.5f, kVoteLikeness = 0.1f;
// Share of the voter's slope in the line from it to the pixel, the rest is the pixel's own. Half would leave curved
// surfaces where they are. But patches show the mean of what is curved, which lies behind what bulges (rock 0.11, pear
// 0.27 pixels of a still life), and lines with more of the voter's slope lie before it (three rounds: -0.05 and 0.01
// pixels are left).
constexpr float kVoterSlope = 0.8f;

static void vote_row(const VoteCall& call, int y) {
  const int64_t row = (y + kVoteReach) * call.stride + kVoteReach;
  const float *const r = call.planes, *const rx = r + call.size, *const ry = rx + call.size;
  for (int x = 0; x < call.width; x += 16) {
    const int64_t at = row + x;
    const f32x16 own = load(r + at), own_x = load(rx + at), own_y = load(ry + at), grey = load(call.grey + at);
    const f32x16 per_gap = f32x16(1.f) / (f32x16(call.apart) * max(own, f32x16(1e-9f)));
    f32x16 total = 0.f, sum = 0.f, sum_x = 0.f, sum_y = 0.f;
    for (int dy = -kVoteReach; dy <= kVoteReach; dy += 2) {
      for (int dx = -kVoteReach; dx <= kVoteReach; dx += 2) {
        const int64_t there = at + dy * call.stride + dx;
        const f32x16 its_x = load(rx + there), its_y = load(ry + there);
        const f32x16 along_x = fma(f32x16(kVoterSlope), its_x, f32x16(1.f - kVoterSlope) * own_x),
                     along_y = fma(f32x16(kVoterSlope), its_y, f32x16(1.f - kVoterSlope) * own_y);
        const f32x16 vote = fnma(along_x, f32x16(static_cast<float>(dx)),
                                 fnma(along_y, f32x16(static_cast<float>(dy)), load(r + there)));
        const f32x16 gap = (vote - own) * per_gap,
                     unlike = (load(call.grey + there) - grey) * f32x16(1 / kVoteLikeness);
        const float apart = static_cast<float>(dx * dx + dy * dy) / (kVoteSpread * kVoteSpread);
        const f32x16 weight = load(call.trust + there) *
                              exp(f32x16(-0.5f) * fma(gap, gap, fma(unlike, unlike, f32x16(apart))));
        total = total + weight, sum = fma(weight, vote, sum);
        sum_x = fma(weight, its_x, sum_x), sum_y = fma(weight, its_y, sum_y);
      }
    }
    const mask16 heard = (total >= f32x16(1e-6f)) & (own >= f32x16(1e-9f));
    const f32x16 share = f32x16(1.f) / max(total, f32x16(1e-6f));
    const int n = call.width - x < 16 ? call.width - x : 16;
    float* const to = call.new_planes + at;
    store_first(to, call.only_slopes ? own : select(heard, sum * share, own), n);
    store_first(to + call.size, select(heard, sum_x * share, own_x), n);
    store_first(to + 2 * call.size, select(heard, sum_y * share, own_y), n);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
