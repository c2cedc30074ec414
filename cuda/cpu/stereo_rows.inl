// One row of one round of stereo: sixteen pixels at a time, each with its own
// planes. 1.1 ns per pixel of a patch, plane and photo with AVX-512.
#include "cpu/simd.h"
#include "cpu/simd_int.h"
#include "cpu/simd_math.h"
#include "cpu/stereo.h"

namespace scene3d {
namespace S3D_NS {

constexpr int kMaxPatch = (2 * kPatchReach + 1) * (2 * kPatchReach + 1) / 2 + 1;
// Pixels of other brightness than the middle one belong to other surfaces as
// often as not.
constexpr float kLikeness = 0.15f;
// Variance of the rounding of photos, several times: patches with less say
// nothing.
constexpr float kNoise = 1e-5f;
constexpr float kUnseen = 2.f;
// For each photo of the best three in which a place is not seen.
constexpr float kMissing = 0.1f;
// A plane is only left for one that is this much better.
constexpr float kBetter = 1e-3f;
// Planes seen at a flatter angle than 84 degrees are none.
constexpr float kFlattest = 0.1f;

struct StereoPlane {
  f32x16 r, rx, ry;
};

struct StereoPatch {
  f32x16 value[kMaxPatch], weight[kMaxPatch];
  float dx[kMaxPatch], dy[kMaxPatch];
  int n;
  f32x16 per_weight, mean, variance;
};

static inline void read_patch(const StereoCall& call, int x, int y, StereoPatch& p) {
  const float* at = call.grey + (y + kPatchReach) * call.stride + x + kPatchReach;
  const f32x16 middle = load(at);
  f32x16 total = 0.f, sum = 0.f, squares = 0.f;
  p.n = 0;
  for (int dy = -kPatchReach; dy <= kPatchReach; dy++) {
    for (int dx = -kPatchReach; dx <= kPatchReach; dx++) {
      if ((dx + dy) & 1) continue;
      const f32x16 value = load(at + dy * call.stride + dx), gap = value - middle;
      const float apart = static_cast<float>(dx * dx + dy * dy) / (2.f * kPatchReach * kPatchReach);
      const f32x16 weight = exp(fnma(gap * gap, f32x16(0.5f / (kLikeness * kLikeness)), f32x16(-apart)));
      p.value[p.n] = value, p.weight[p.n] = weight;
      p.dx[p.n] = static_cast<float>(dx), p.dy[p.n] = static_cast<float>(dy);
      p.n++;
      total = total + weight, sum = fma(weight, value, sum), squares = fma(weight * value, value, squares);
    }
  }
  p.per_weight = reciprocal(total);
  p.mean = sum * p.per_weight;
  p.variance = max(fnma(p.mean, p.mean, squares * p.per_weight), f32x16(0.f));
}

// Brightness between pixels, 0 to 1.
S3D_INLINE f32x16 between(const StereoOther& other, f32x16 x, f32x16 y) {
  const i32x16 left = to_int(x), top = to_int(y), byte = 255;
  const i32x16 code = gather(other.codes, top * i32x16(other.width) + left);
  const f32x16 fx = x - to_float(left), fy = y - to_float(top);
  const f32x16 a = to_float(code & byte), b = to_float(shift_down<8>(code) & byte),
               c = to_float(shift_down<16>(code) & byte), d = to_float(shift_down<24>(code) & byte);
  const f32x16 upper = fma(fx, b - a, a), lower = fma(fx, d - c, c);
  return fma(fy, lower - upper, upper) * f32x16(1.f / 255.f);
}

// Which places in a photo are part of the scene.
S3D_INLINE mask16 shown_at(const StereoOther& other, f32x16 x, f32x16 y) {
  alignas(64) float px[16], py[16];
  store(px, x), store(py, y);
  uint32_t shown = 0;
  for (int i = 0; i < 16; i++) {
    const int64_t row = static_cast<int>(py[i] + 0.5f), column = static_cast<int>(px[i] + 0.5f);
    shown |= static_cast<uint32_t>(other.shown[row * other.width + column] != 0) << i;
  }
  return mask_of(shown);
}

// 1 - weighted normalised cross-correlation with one other photo.
static inline f32x16 unlikeness(const StereoPatch& patch, const StereoOther& o, const StereoPlane& plane, f32x16 x,
                                f32x16 y) {
  f32x16 at[3], by_x[3], by_y[3];
  for (int k = 0; k < 3; k++) {
    at[k] = fma(f32x16(o.A[3 * k]), x,
                fma(f32x16(o.A[3 * k + 1]), y, fma(f32x16(o.b[k]), plane.r, f32x16(o.A[3 * k + 2]))));
    by_x[k] = fma(f32x16(o.b[k]), plane.rx, f32x16(o.A[3 * k]));
    by_y[k] = fma(f32x16(o.b[k]), plane.ry, f32x16(o.A[3 * k + 1]));
  }
  const float last_x = static_cast<float>(o.width - 1), last_y = static_cast<float>(o.height - 1);
  const f32x16 z = select(at[2] >= f32x16(1e-6f), at[2], f32x16(1.f)), u = at[0] / z, v = at[1] / z;
  mask16 seen = (at[2] >= f32x16(1e-6f)) & (u >= f32x16(1.f)) & (f32x16(last_x - 1.f) >= u) & (v >= f32x16(1.f)) &
                (f32x16(last_y - 1.f) >= v);
  if (!any(seen)) return kUnseen;
  if (o.shown != nullptr) seen = seen & shown_at(o, select(seen, u, f32x16(0.f)), select(seen, v, f32x16(0.f)));
  f32x16 sum = 0.f, squares = 0.f, products = 0.f;
  for (int i = 0; i < patch.n; i++) {
    const f32x16 dx = patch.dx[i], dy = patch.dy[i];
    const f32x16 q = fma(dx, by_x[2], fma(dy, by_y[2], at[2]));
    const f32x16 w = reciprocal(max(q, f32x16(1e-6f)));
    const f32x16 px = fma(dx, by_x[0], fma(dy, by_y[0], at[0])) * w, py = fma(dx, by_x[1], fma(dy, by_y[1], at[1])) * w;
    // max before min: what is not a number becomes 0.
    const f32x16 value = between(o, min(max(px, f32x16(0.f)), f32x16(last_x - 0.01f)),
                                 min(max(py, f32x16(0.f)), f32x16(last_y - 0.01f)));
    const f32x16 weighted = patch.weight[i] * value;
    sum = sum + weighted, squares = fma(weighted, value, squares), products = fma(weighted, patch.value[i], products);
  }
  const f32x16 mean = sum * patch.per_weight;
  const f32x16 variance = max(fnma(mean, mean, squares * patch.per_weight), f32x16(0.f));
  const f32x16 together = fnma(mean, patch.mean, products * patch.per_weight);
  const f32x16 noise = kNoise;
  const f32x16 cost = f32x16(1.f) - together / sqrt((variance + noise) * (patch.variance + noise));
  return select(seen, cost, f32x16(kUnseen));
}

// The mean over the three photos in which patches look most alike: what is
// hidden in the others is not counted.
static inline f32x16 cost_of(const StereoCall& call, const StereoPatch& patch, const StereoPlane& plane, f32x16 x,
                             f32x16 y) {
  const f32x16 unseen = kUnseen, limit = 1.99f;
  f32x16 best[3] = {unseen, unseen, unseen};
  for (int o = 0; o < call.n_others; o++) {
    const f32x16 cost = unlikeness(patch, call.others[o], plane, x, y);
    const f32x16 second = max(best[0], cost), third = max(best[1], second);
    best[0] = min(best[0], cost), best[1] = min(best[1], second), best[2] = min(best[2], third);
  }
  const f32x16 three = (best[0] + best[1] + best[2]) * f32x16(1.f / 3), two = (best[0] + best[1]) * f32x16(0.5f);
  const f32x16 fewer = select(best[1] >= limit, best[0] + f32x16(2 * kMissing), two + f32x16(kMissing));
  const f32x16 cost = select(best[2] >= limit, fewer, three);
  // Normals (rx fx, ry fy, what is left of r in the middle of the image) and
  // rays (x - cx, y - cy, f).
  const f32x16 ax = x - f32x16(call.cx), ay = y - f32x16(call.cy);
  const f32x16 nx = plane.rx * f32x16(call.fx), ny = plane.ry * f32x16(call.fy),
               nz = fnma(plane.rx, ax, fnma(plane.ry, ay, plane.r));
  const f32x16 rx = ax * f32x16(1.f / call.fx), ry = ay * f32x16(1.f / call.fy);
  const f32x16 lengths = fma(nx, nx, fma(ny, ny, nz * nz)) * fma(rx, rx, fma(ry, ry, f32x16(1.f)));
  const mask16 sound = (plane.r >= f32x16(1e-9f)) & (plane.r * plane.r >= lengths * f32x16(kFlattest * kFlattest));
  return select(sound, min(cost, unseen), unseen);
}

// -1 to 1, one number for every pixel, round and k.
static inline f32x16 random_lanes(const StereoCall& call, int x, int y, uint32_t k) {
  alignas(64) float lanes[16];
  for (uint32_t i = 0; i < 16; i++) {
    uint32_t h = (static_cast<uint32_t>(x) + i) * 0x9E3779B1u ^ static_cast<uint32_t>(y) * 0x85EBCA77u ^
                 (call.seed * 8 + k) * 0xC2B2AE3Du;
    h ^= h >> 15, h *= 0x2C1B3C6Du, h ^= h >> 12, h *= 0x297A2D39u, h ^= h >> 15;
    lanes[i] = static_cast<float>(static_cast<int32_t>(h >> 8)) * (2.f / 16777216.f) - 1.f;
  }
  return load(lanes);
}

static void stereo_row(const StereoCall& call, int y) {
  const int64_t size = static_cast<int64_t>(call.width) * call.height, row = static_cast<int64_t>(y) * call.width;
  for (int x = 0; x < call.width; x += 16) {
    const int n = call.width - x < 16 ? call.width - x : 16;
    const int64_t at = row + x;
    StereoPlane best = {load_first(call.planes + at, n), load_first(call.planes + size + at, n),
                        load_first(call.planes + 2 * size + at, n)};
    const f32x16 fx = f32x16(static_cast<float>(x)) + lane_index(), fy = static_cast<float>(y);
    StereoPatch patch;
    read_patch(call, x, y, patch);
    f32x16 cost;
    if (call.first) {
      cost = cost_of(call, patch, best, fx, fy);
    } else {
      cost = load_first(call.costs + at, n);
      const auto consider = [&](const StereoPlane& plane) {
        const f32x16 other = cost_of(call, patch, plane, fx, fy);
        const mask16 better = other + f32x16(kBetter) < cost;
        best = {select(better, plane.r, best.r), select(better, plane.rx, best.rx), select(better, plane.ry, best.ry)};
        cost = select(better, other, cost);
      };
      const int hops[4][2] = {{-call.hop, 0}, {call.hop, 0}, {0, -call.hop}, {0, call.hop}};
      for (const auto& hop : hops) {
        const int sy = y + hop[1];
        if (sy < 0 || sy >= call.height) continue;
        alignas(64) float from[3][16] = {};
        for (int i = 0; i < n; i++) {
          const int sx = x + i + hop[0];
          if (sx < 0 || sx >= call.width) continue;
          for (int k = 0; k < 3; k++) from[k][i] = call.planes[k * size + static_cast<int64_t>(sy) * call.width + sx];
        }
        StereoPlane plane = {load(from[0]), load(from[1]), load(from[2])};
        const mask16 known = plane.r >= f32x16(1e-9f);
        if (!any(known)) continue;
        plane.r = keep(known, fnma(plane.rx, f32x16(static_cast<float>(hop[0])),
                                   fnma(plane.ry, f32x16(static_cast<float>(hop[1])), plane.r)));
        consider(plane);
      }
      if (any(best.r >= f32x16(1e-9f))) {
        const f32x16 nearer = fma(random_lanes(call, x, y, 0), f32x16(call.spread), f32x16(1.f));
        const f32x16 tilt_x = random_lanes(call, x, y, 1) * f32x16(call.tilt / call.fx),
                     tilt_y = random_lanes(call, x, y, 2) * f32x16(call.tilt / call.fy);
        consider({best.r * nearer, best.rx * nearer, best.ry * nearer});
        consider({best.r, fma(best.r, tilt_x, best.rx), fma(best.r, tilt_y, best.ry)});
        const f32x16 other = fma(random_lanes(call, x, y, 3), f32x16(call.spread), f32x16(1.f));
        consider({best.r * other, fma(best.r, tilt_y, best.rx), fma(best.r, tilt_x, best.ry)});
      }
    }
    store_first(call.new_planes + at, best.r, n);
    store_first(call.new_planes + size + at, best.rx, n);
    store_first(call.new_planes + 2 * size + at, best.ry, n);
    store_first(call.new_costs + at, cost, n);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
