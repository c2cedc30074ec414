// One row of offsets: sixteen pixels at a time.
#include "cpu/offset_votes.h"
#include "cpu/simd.h"
#include "cpu/simd_int.h"
#include "cpu/simd_math.h"

namespace scene3d {
namespace S3D_NS {

// Places farther than the surface that another photo sees there by more than this are hidden, share of the depth.
constexpr float kBehind = 0.01f;
// Pixels of a patch that lie farther from the plane of its middle one belong to another surface, share of the depth.
constexpr float kOffPlane = 0.01f;
// As kLikeness of planes: pixels so unlike the middle one count less.
constexpr float kBentLikeness = 0.1f;
// Flatter than this cosine, what is moved along a ray goes too far sideways.
constexpr float kLeastCosine = 0.25f;
// Patches less alike than this say nothing.
constexpr float kLeastAlike = 0.3f;
// Photos are asked of patches of which they see so much.
constexpr float kLeastSeen = 0.5f;
// Bend of likeness over offsets, 1 / pixel^2, from which on it says no more.
constexpr float kMostBent = 1.f;
// Weight of the first and the last offset, beyond which may be better ones.
constexpr float kAtEnd = 0.1f;
// Sum over root of the sum of squares of what photos say: one photo alone has 1.
constexpr float kMoreThanOne = 1.22f;

// Cosine between rays and the normals of planes.
static inline f32x16 plane_cosine(const OffsetCall& call, const f32x16 (&plane)[3], f32x16 x, f32x16 y) {
  const f32x16 ax = x - f32x16(call.cx), ay = y - f32x16(call.cy);
  const f32x16 nx = plane[1] * f32x16(call.fx), ny = plane[2] * f32x16(call.fy),
               nz = fnma(plane[1], ax, fnma(plane[2], ay, plane[0]));
  const f32x16 u = ax * f32x16(1.f / call.fx), v = ay * f32x16(1.f / call.fy);
  const f32x16 lengths = fma(nx, nx, fma(ny, ny, nz * nz)) * fma(u, u, fma(v, v, f32x16(1.f)));
  return plane[0] / sqrt(max(lengths, f32x16(1e-30f)));
}

static inline void read_plane(const OffsetCall& call, int x, int y, int n, f32x16 (&plane)[3]) {
  const int64_t size = static_cast<int64_t>(call.width) * call.height, at = static_cast<int64_t>(y) * call.width + x;
  for (int k = 0; k < 3; k++) plane[k] = load_first(call.planes + k * size + at, n);
}

// Where places of inverse depth `near` on given rays, as another photo has them, are seen there.
struct OffsetSpot {
  f32x16 z, u, v;
};

S3D_INLINE OffsetSpot spot_of(const StereoOther& other, const f32x16 (&ray)[3], f32x16 near) {
  const f32x16 z = fma(f32x16(other.b[2]), near, ray[2]), w = reciprocal(max(z, f32x16(1e-6f)));
  return {z, fma(f32x16(other.b[0]), near, ray[0]) * w, fma(f32x16(other.b[1]), near, ray[1]) * w};
}

// The same within the photo. max before min: what is not a number becomes 0.
S3D_INLINE OffsetSpot clamped(const StereoOther& other, OffsetSpot spot) {
  const float right = static_cast<float>(other.width - 1) - 0.01f, low = static_cast<float>(other.height - 1) - 0.01f;
  return {spot.z, min(max(spot.u, f32x16(0.f)), f32x16(right)), min(max(spot.v, f32x16(0.f)), f32x16(low))};
}

// Which places of inverse depth r another photo sees.
static inline mask16 seen_at(const OffsetCall& call, int o, const OffsetSpot& spot, f32x16 r) {
  const StereoOther& other = call.others[o];
  const float last_x = static_cast<float>(other.width - 2), last_y = static_cast<float>(other.height - 2);
  mask16 seen = (r >= f32x16(1e-9f)) & (spot.z >= f32x16(1e-6f)) & (spot.u >= f32x16(1.f)) &
                (f32x16(last_x) >= spot.u) & (spot.v >= f32x16(1.f)) & (f32x16(last_y) >= spot.v);
  if (!any(seen)) return seen;
  const OffsetSpot within = clamped(other, spot);
  const f32x16 there = gather(call.nearness[o], to_int(within.v + f32x16(0.5f)) * i32x16(other.width) +
                                                    to_int(within.u + f32x16(0.5f)));
  const f32x16 its = r * reciprocal(max(spot.z, f32x16(1e-6f)));
  seen = seen & (there >= f32x16(1e-9f)) & (its >= there * f32x16(1.f - kBehind));
  return other.shown == nullptr ? seen : seen & shown_at(other, keep(seen, within.u), keep(seen, within.v));
}

static void offset_warp_row(const OffsetCall& call, int y) {
  const int n_steps = call.settings.n_steps;
  for (int x = 0; x < call.width; x += 16) {
    const int n = call.width - x < 16 ? call.width - x : 16;
    const int64_t to = (y - call.first + kPatchReach) * call.stride + x + kPatchReach;
    const f32x16 fx = f32x16(static_cast<float>(x)) + lane_index(), fy = static_cast<float>(y);
    f32x16 plane[3];
    read_plane(call, x, y, n, plane);
    // Inverse depth grows by so much where the surface comes a pixel nearer along its normal.
    const f32x16 cosine = max(plane_cosine(call, plane, fx, fy), f32x16(kLeastCosine));
    const f32x16 per_step = plane[0] * f32x16(call.settings.step / call.fx) / cosine;
    for (int o = 0; o < call.n_others; o++) {
      const StereoOther& other = call.others[o];
      f32x16 ray[3];
      for (int k = 0; k < 3; k++)
        ray[k] = fma(f32x16(other.A[3 * k]), fx, fma(f32x16(other.A[3 * k + 1]), fy, f32x16(other.A[3 * k + 2])));
      const mask16 seen = seen_at(call, o, spot_of(other, ray, plane[0]), plane[0]);
      store_first(call.seen + o * call.band + to, keep(seen, f32x16(1.f)), n);
      for (int s = 0; s < n_steps; s++) {
        const f32x16 near = fma(f32x16(static_cast<float>(s - n_steps / 2)), per_step, plane[0]);
        const OffsetSpot spot = clamped(other, spot_of(other, ray, near));
        store_first(call.values + (o * n_steps + s) * call.band + to, between(other, spot.u, spot.v), n);
      }
    }
  }
}

// A patch of a surface: pixels around the middle one, and how much they belong to it.
struct BentPatch {
  int64_t step[kMaxPatch];
  f32x16 value[kMaxPatch], weight[kMaxPatch];
  int n;
  f32x16 total;
};

static inline void read_bent_patch(const OffsetCall& call, const f32x16 (&plane)[3], int x, int y, BentPatch& p) {
  const int64_t middle = (y + kPatchReach) * call.stride + x + kPatchReach;
  const f32x16 grey = load(call.grey + middle);
  const f32x16 per_gap = f32x16(1.f / kOffPlane) * reciprocal(max(plane[0], f32x16(1e-9f)));
  p.n = 0, p.total = 0.f;
  for (int dy = -kPatchReach; dy <= kPatchReach; dy++) {
    for (int dx = -kPatchReach; dx <= kPatchReach; dx++) {
      if ((dx + dy) & 1) continue;
      const int64_t step = dy * call.stride + dx;
      const f32x16 value = load(call.grey + middle + step), unlike = (value - grey) * f32x16(1.f / kBentLikeness);
      const f32x16 on_plane =
          fma(plane[1], f32x16(static_cast<float>(dx)), fma(plane[2], f32x16(static_cast<float>(dy)), plane[0]));
      const f32x16 gap = (load(call.r + middle + step) - on_plane) * per_gap;
      const float apart = static_cast<float>(dx * dx + dy * dy) / (kPatchReach * kPatchReach);
      const f32x16 bits = f32x16(-0.5f) * fma(gap, gap, fma(unlike, unlike, f32x16(apart)));
      p.step[p.n] = step, p.value[p.n] = value, p.weight[p.n] = exp(max(bits, f32x16(-40.f)));
      p.total = p.total + p.weight[p.n++];
    }
  }
}

// Normalised cross-correlation with one other photo at every offset, and how much that photo says, 0 = nothing.
static inline f32x16 ask_photo(const OffsetCall& call, const BentPatch& patch, int o, int64_t middle,
                               f32x16 (&alike)[kMostOffsets]) {
  const float* seen = call.seen + o * call.band + middle;
  f32x16 total = 0.f, sum = 0.f, squares = 0.f, weight[kMaxPatch], weighted[kMaxPatch];
  for (int i = 0; i < patch.n; i++) {
    weight[i] = patch.weight[i] * load(seen + patch.step[i]), weighted[i] = weight[i] * patch.value[i];
    total = total + weight[i], sum = sum + weighted[i], squares = fma(weighted[i], patch.value[i], squares);
  }
  const mask16 enough = (total >= f32x16(kLeastSeen) * patch.total) & (load(seen) >= f32x16(0.5f));
  if (!any(enough)) return 0.f;
  const f32x16 per_weight = reciprocal(max(total, f32x16(1e-6f))), mean = sum * per_weight;
  const f32x16 variance = max(fnma(mean, mean, squares * per_weight), f32x16(0.f)) + f32x16(kNoise);
  f32x16 most = -1.f;
  for (int s = 0; s < call.settings.n_steps; s++) {
    const float* values = call.values + (o * call.settings.n_steps + s) * call.band + middle;
    f32x16 its_sum = 0.f, its_squares = 0.f, products = 0.f;
    for (int i = 0; i < patch.n; i++) {
      const f32x16 value = load(values + patch.step[i]), w = weight[i] * value;
      its_sum = its_sum + w, its_squares = fma(w, value, its_squares), products = fma(weighted[i], value, products);
    }
    const f32x16 its_mean = its_sum * per_weight;
    const f32x16 its_variance = max(fnma(its_mean, its_mean, its_squares * per_weight), f32x16(0.f)) + f32x16(kNoise);
    alike[s] = keep(enough, fnma(mean, its_mean, products * per_weight) / sqrt(variance * its_variance));
    most = max(most, alike[s]);
  }
  const f32x16 above = keep(enough, max(most - f32x16(kLeastAlike), f32x16(0.f)));
  return above * above;
}

// Where likeness is largest, steps from the middle one, and how much it bends there.
struct OffsetPeak {
  f32x16 most, offset, bend;
};

static inline OffsetPeak peak_of(const OffsetSettings& settings, const f32x16 (&alike)[kMostOffsets]) {
  const int last = settings.n_steps - 1;
  const float per_bend = 1.f / (settings.step * settings.step);
  OffsetPeak peak = {alike[0], -static_cast<float>(last / 2), kAtEnd};
  for (int s = 1; s <= last; s++) {
    const mask16 better = peak.most < alike[s];
    f32x16 offset = static_cast<float>(s - last / 2), bend = kAtEnd;
    if (s < last) {
      // The top of a parabola through three.
      bend = alike[s] + alike[s] - alike[s - 1] - alike[s + 1];
      const f32x16 top = (alike[s + 1] - alike[s - 1]) * f32x16(0.5f) / max(bend, f32x16(1e-9f));
      offset = offset + min(max(top, f32x16(-0.5f)), f32x16(0.5f));
      bend = min(max(bend * f32x16(per_bend), f32x16(0.f)), f32x16(kMostBent));
    }
    peak = {select(better, alike[s], peak.most), select(better, offset, peak.offset), select(better, bend, peak.bend)};
  }
  return peak;
}

static void offset_vote_row(const OffsetCall& call, int y) {
  const int n_steps = call.settings.n_steps;
  for (int x = 0; x < call.width; x += 16) {
    const int n = call.width - x < 16 ? call.width - x : 16;
    const int64_t middle = (y - call.first + kPatchReach) * call.stride + x + kPatchReach;
    f32x16 plane[3];
    read_plane(call, x, y, n, plane);
    BentPatch patch;
    read_bent_patch(call, plane, x, y, patch);
    f32x16 total = 0.f, squares = 0.f, alike[kMostOffsets], sums[kMostOffsets];
    for (f32x16& sum : sums) sum = 0.f;
    for (int o = 0; o < call.n_others; o++) {
      const f32x16 says = ask_photo(call, patch, o, middle, alike);
      if (!any(says >= f32x16(1e-9f))) continue;
      total = total + says, squares = fma(says, says, squares);
      for (int s = 0; s < n_steps; s++) sums[s] = fma(says, alike[s], sums[s]);
    }
    const mask16 heard =
        (total >= f32x16(1e-9f)) & (total * total >= f32x16(kMoreThanOne * kMoreThanOne) * squares);
    const f32x16 share = reciprocal(max(total, f32x16(1e-9f)));
    for (int s = 0; s < n_steps; s++) sums[s] = sums[s] * share;
    const OffsetPeak peak = peak_of(call.settings, sums);
    const f32x16 trust = peak.bend * max(peak.most - f32x16(kLeastAlike), f32x16(0.f));
    const int64_t at = static_cast<int64_t>(y) * call.width + x;
    store_first(call.result.offsets + at, keep(heard, peak.offset * f32x16(call.settings.step)), n);
    store_first(call.result.weights + at, keep(heard, trust), n);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
