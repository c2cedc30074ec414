// One tile of the loss; see loss.h for the idea. Rows are counted from the tile's first; `n` is vectors per row.
#include "cpu/loss.h"

namespace scene3d {
namespace S3D_NS {

constexpr int kHalo = 3 * kLossHalf;  // vectors on either side of a row that is blurred horizontally
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

// The half window, edge to centre: exp(-i^2 / (2 * 1.5^2)), normalised to a sum of 1 over the 11 taps.
constexpr float kTaps[6] = {0.00102838008f, 0.00759875814f, 0.0360007721f, 0.10936069f, 0.213005538f, 0.266011725f};

struct LossTile {
  explicit LossTile(const LossArgs& args) : args(args) {}

  const LossArgs& args;
  int x0, x1, y0, y1;   // pixels that the tile owns
  int load_x0, load_x1;  // pixels that it reads: halo columns only where a neighbouring tile is
  int S, n;              // columns per lane, vectors per row
  int64_t stride;        // floats from one row to the next: an odd number of cache lines
  float *x, *y, *w;      // rings of 15 rows; w is the weight
  float *a, *b, *c;      // rings of 15 rows: horizontally blurred derivatives by the blurred x, xx and xy
  float* blurred;        // 4 x 5 rows with halo: vertically blurred x, y, xx + yy, xy
  float* maps;           // 3 rows with halo: derivative maps
  float* v;              // 5 rows of the gradient
  float *flat, *inside, *own;  // one row: scratch in image order; 1 where there are pixels; 1 where they are the tile's
  double l1 = 0, ssim = 0;
};

// out[t] = sum over taps k of window[k] in[t + k], for T outputs at once so that they share what is loaded.
template <int T>
S3D_INLINE void blur(const f32x16 (&in)[T + 10], f32x16 (&out)[T]) {
S3D_UNROLL
  for (int t = 0; t < T; t++) {
    f32x16 sum = in[t + 5] * f32x16(kTaps[5]);
S3D_UNROLL
    for (int k = 0; k < 5; k++) sum = fma(in[t + k] + in[t + 10 - k], f32x16(kTaps[k]), sum);
    out[t] = sum;
  }
}

template <int T>
S3D_INLINE void blur_columns(const float* row, f32x16 (&out)[T]) {  // T columns of one channel, from `row` on
  f32x16 in[T + 10];
S3D_UNROLL
  for (int i = 0; i < T + 10; i++) in[i] = load(row + 16 * 3 * (i - kLossHalf));
  blur<T>(in, out);
}

// Image order to lane-major and back. Whole blocks of 16 vectors are moved: rows have room behind their last vector, and
// what a lane writes beyond its end is overwritten by the next lane, as the last block goes first.
static void to_lanes(const LossTile& t, const float* flat, float* lanes) {
  f32x16 block[16];
  for (int j = 0; j < t.n; j += 16) {
    for (int l = 0; l < 16; l++) block[l] = load(flat + l * t.n + j);
    transpose(block);
    for (int i = 0; i < 16; i++) store(lanes + 16 * (j + i), block[i]);
  }
}

static void from_lanes(const LossTile& t, const float* lanes, float* flat) {
  f32x16 block[16];
  for (int j = (t.n - 1) / 16 * 16; j >= 0; j -= 16) {
    for (int i = 0; i < 16; i++) block[i] = load(lanes + 16 * (j + i));
    transpose(block);
    for (int l = 0; l < 16; l++) store(flat + l * t.n + j, block[l]);
  }
}

S3D_INLINE void clear(float* row, int64_t n_floats) { std::memset(row, 0, sizeof(float) * n_floats); }

// Asks for what a row needs, a block of rows ahead of its use; beyond the image this does no harm.
static void prefetch_row(const LossTile& t, int row) {
  const LossArgs& args = t.args;
  if (row < 0 || row >= args.height) return;
  const int64_t first = 3 * (int64_t{row} * args.width + t.load_x0), last = first + 3 * (t.load_x1 - t.load_x0);
  for (int64_t i = first; i < last; i += 16) {
    __builtin_prefetch(args.rgb + i, 0, 2);
    if (args.target) __builtin_prefetch(args.target + i, 0, 2);
  }
}

// The tail of the flat row is 0: it was cleared when the tile began.
static void load_row(const LossTile& t, int row, int slot) {
  const LossArgs& args = t.args;
  float* const x = t.x + slot * t.stride;
  float* const y = t.y + slot * t.stride;
  float* const w = t.w + slot * t.stride;
  if (row < 0 || row >= args.height) {
    clear(x, 16 * t.n);
    clear(y, 16 * t.n);
    if (args.weight) clear(w, 16 * t.n);
    return;
  }
  const int64_t first = int64_t{row} * args.width + t.load_x0;
  const int n_floats = 3 * (t.load_x1 - t.load_x0);
  std::memcpy(t.flat, args.rgb + 3 * first, sizeof(float) * n_floats);
  to_lanes(t, t.flat, x);
  if (args.target) {
    std::memcpy(t.flat, args.target + 3 * first, sizeof(float) * n_floats);
  } else {
    const uint8_t* const bytes = args.target_bytes + 3 * first;
    for (int i = 0; i < n_floats; i++) t.flat[i] = static_cast<float>(bytes[i]) * (1.f / 255.f);
  }
  to_lanes(t, t.flat, y);
  if (!args.weight) return;
  for (int i = 0; i < n_floats / 3; i++)
    for (int channel = 0; channel < 3; channel++) t.flat[3 * i + channel] = args.weight[first + i];
  to_lanes(t, t.flat, w);
}

// Vertically blurred x, y, xx + yy and xy of five rows, whose windows span the 15 rows of the ring from `slot` on.
static void blur_inputs(const LossTile& t, int slot) {
  const float *x[15], *y[15];
  for (int i = 0; i < 15; i++) {
    const int64_t offset = (slot + i) % 15 * t.stride;
    x[i] = t.x + offset;
    y[i] = t.y + offset;
  }
  f32x16 in[15], out[5];
  const int64_t plane = 5 * t.stride;
  for (int64_t j = 0; j < 16 * t.n; j += 16) {
    float* const to = t.blurred + 16 * kHalo + j;
    for (int i = 0; i < 15; i++) in[i] = load(x[i] + j);
    blur<5>(in, out);
    for (int i = 0; i < 5; i++) store(to + i * t.stride, out[i]);
    for (int i = 0; i < 15; i++) in[i] = load(y[i] + j);
    blur<5>(in, out);
    for (int i = 0; i < 5; i++) store(to + plane + i * t.stride, out[i]);
    for (int i = 0; i < 15; i++) {
      const f32x16 xi = load(x[i] + j), yi = load(y[i] + j);
      in[i] = fma(xi, xi, yi * yi);
    }
    blur<5>(in, out);
    for (int i = 0; i < 5; i++) store(to + 2 * plane + i * t.stride, out[i]);
    for (int i = 0; i < 15; i++) in[i] = load(x[i] + j) * load(y[i] + j);
    blur<5>(in, out);
    for (int i = 0; i < 5; i++) store(to + 3 * plane + i * t.stride, out[i]);
  }
}

// Lane l continues where lane l - 1 ends and ends where lane l + 1 begins; beyond the first and last there is nothing.
static void fill_halo(const LossTile& t, float* row) {
  for (int i = 0; i < kHalo; i++) {
    store(row + 16 * i, shift_up(load(row + 16 * (t.n + i))));
    store(row + 16 * (kHalo + t.n + i), shift_down(load(row + 16 * (kHalo + i))));
  }
}

// SSIM of T columns and what the loss changes by per change of blurred x, xx and xy.
template <int T>
S3D_INLINE void ssim_columns(const LossTile& t, const float* blurred, const float* weight, int64_t j, f32x16& sum) {
  const int64_t plane = 5 * t.stride;
  f32x16 p[T], q[T], pp[T], pq[T];
  blur_columns<T>(blurred + j, p);
  blur_columns<T>(blurred + plane + j, q);
  blur_columns<T>(blurred + 2 * plane + j, pp);
  blur_columns<T>(blurred + 3 * plane + j, pq);
  const f32x16 c1 = kC1, c2 = kC2, scale = t.args.ssim_scale, zero = 0.f;
S3D_UNROLL
  for (int i = 0; i < T; i++) {
    const int64_t k = j + 48 * i;
    const f32x16 product = p[i] * q[i], squares = fma(p[i], p[i], q[i] * q[i]);
    const f32x16 top1 = fma(product, f32x16(2.f), c1), top2 = fma(pq[i] - product, f32x16(2.f), c2);
    // Rounding could make the variance of bright flat parts negative, and the quotient explode.
    const f32x16 bottom1 = squares + c1, bottom2 = max(pp[i] - squares, zero) + c2;
    const f32x16 r = f32x16(1.f) / (bottom1 * bottom2);
    const f32x16 ssim = top1 * top2 * r;
    const f32x16 w = load(weight + k);
    sum = fma(ssim, w * load(t.own + k), sum);
    const f32x16 v = w * (r * scale), v2 = v + v;
    float* const map = t.maps + 16 * kHalo + k;
    store(map, v2 * fnma(p[i] * ssim, bottom2 - bottom1, q[i] * (top2 - top1)));
    store(map + t.stride, (zero - v) * (ssim * bottom1));
    store(map + 2 * t.stride, v2 * top1);
  }
}

template <int T>
S3D_INLINE void blur_maps(const LossTile& t, int64_t slot, int64_t j) {
  float* const rings[3] = {t.a, t.b, t.c};
  f32x16 out[T];
  for (int m = 0; m < 3; m++) {
    blur_columns<T>(t.maps + m * t.stride + 16 * kHalo + j, out);
    for (int i = 0; i < T; i++) store(rings[m] + slot * t.stride + j + 48 * i, out[i]);
  }
}

S3D_INLINE double sum_lanes(f32x16 a) {
  alignas(64) float lanes[16];
  store(lanes, a);
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

// Image row `row`: i-th of the blurred rows -> row `slot` of the rings a, b, c.
static void ssim_row(LossTile& t, int row, int i, int slot) {
  float* const rings[3] = {t.a, t.b, t.c};
  if (row < 0 || row >= t.args.height) {
    for (float* ring : rings) clear(ring + slot * t.stride, 16 * t.n);
    return;
  }
  for (int q = 0; q < 4; q++) fill_halo(t, t.blurred + (5 * q + i) * t.stride);
  const float* const blurred = t.blurred + i * t.stride + 16 * kHalo;
  const float* const weight = t.args.weight ? t.w + (slot + 5) % 15 * t.stride : t.inside;
  const int blocks = t.S / 5 * 5;
  f32x16 sum = 0.f;
  for (int channel = 0; channel < 3; channel++) {
    for (int s = 0; s < blocks; s += 5) ssim_columns<5>(t, blurred, weight, 16 * (3 * s + channel), sum);
    for (int s = blocks; s < t.S; s++) ssim_columns<1>(t, blurred, weight, 16 * (3 * s + channel), sum);
  }
  if (row >= t.y0 && row < t.y1) t.ssim += sum_lanes(sum);
  for (int m = 0; m < 3; m++) fill_halo(t, t.maps + m * t.stride);
  for (int channel = 0; channel < 3; channel++) {
    for (int s = 0; s < blocks; s += 5) blur_maps<5>(t, slot, 16 * (3 * s + channel));
    for (int s = blocks; s < t.S; s++) blur_maps<1>(t, slot, 16 * (3 * s + channel));
  }
}

// The gradient of five rows, image row `row` on: the five of the rings x, y, w from `slot` on. The rings a, b, c hold
// the rows of their windows, the newest five from `slot` on.
static void loss_gradient_rows(LossTile& t, int row, int slot) {
  const LossArgs& args = t.args;
  int64_t offsets[15];
  for (int i = 0; i < 15; i++) offsets[i] = (slot + 5 + i) % 15 * t.stride;
  const float* const rings[3] = {t.a, t.b, t.c};
  f32x16 in[15], blurred[3][5], sums[5];
  for (f32x16& sum : sums) sum = f32x16(0.f);
  const f32x16 l1_scale = args.l1_scale, zero = 0.f;
  for (int64_t j = 0; j < 16 * t.n; j += 16) {
    for (int m = 0; m < 3; m++) {
      for (int i = 0; i < 15; i++) in[i] = load(rings[m] + offsets[i] + j);
      blur<5>(in, blurred[m]);
    }
    const f32x16 own = load(t.own + j);
    for (int i = 0; i < 5; i++) {
      const int64_t k = (slot + i) * t.stride + j;
      const f32x16 x = load(t.x + k), y = load(t.y + k), w = load(args.weight ? t.w + k : t.inside + j);
      const f32x16 difference = x - y, step = w * l1_scale;
      const f32x16 sign = keep(zero < difference, step) - keep(difference < zero, step);
      sums[i] = fma(abs(difference), w * own, sums[i]);
      store(t.v + i * t.stride + j, blurred[0][i] + fma(x + x, blurred[1][i], fma(y, blurred[2][i], sign)));
    }
  }
  for (int i = 0; i < 5 && row + i < t.y1; i++) {
    t.l1 += sum_lanes(sums[i]);
    from_lanes(t, t.v + i * t.stride, t.flat);
    std::memcpy(args.v_rgb + 3 * ((row + i) * int64_t{args.width} + t.x0), t.flat + 3 * (t.x0 - t.load_x0),
                sizeof(float) * 3 * (t.x1 - t.x0));
  }
  clear(t.flat + 3 * (t.load_x1 - t.load_x0), 16 * t.n - 3 * (t.load_x1 - t.load_x0));
}

static LossTile begin_loss_tile(const LossArgs& args, int64_t tile, float* scratch) {
  const int halo = 2 * kLossHalf;
  const auto least = [](int a, int b) { return a < b ? a : b; };
  LossTile t(args);
  t.x0 = static_cast<int>(tile % args.tiles_x) * args.tile_width;
  t.y0 = static_cast<int>(tile / args.tiles_x) * kLossTileRows;
  t.x1 = least(t.x0 + args.tile_width, args.width), t.y1 = least(t.y0 + kLossTileRows, args.height);
  t.load_x0 = t.x0 < halo ? 0 : t.x0 - halo, t.load_x1 = least(t.x1 + halo, args.width);
  t.S = (t.load_x1 - t.load_x0 + 15) / 16;
  if (t.S < kLossHalf) t.S = kLossHalf;  // a window must not reach past the neighbouring lane
  t.n = 3 * t.S;
  t.stride = 16 * (int64_t{t.n + 2 * kHalo} | 1);
  const auto take = [&](int rows) {
    float* const p = scratch;
    scratch += rows * t.stride;
    return p;
  };
  t.x = take(15), t.y = take(15), t.w = take(15);
  t.a = take(15), t.b = take(15), t.c = take(15);
  t.blurred = take(20), t.maps = take(3), t.v = take(5);
  t.flat = take(2), t.inside = take(1), t.own = take(1);
  clear(t.flat, 2 * t.stride);
  for (int i = 0; i < 3 * (t.load_x1 - t.load_x0); i++) t.flat[i] = 1.f;
  to_lanes(t, t.flat, t.inside);
  clear(t.flat, t.stride);
  for (int i = 3 * (t.x0 - t.load_x0); i < 3 * (t.x1 - t.load_x0); i++) t.flat[i] = 1.f;
  to_lanes(t, t.flat, t.own);
  clear(t.flat, t.stride);
  return t;
}

// Block m of the image rings is rows y0 - 10 + 5 m on, of the map rings y0 - 5 + 5 m on; both live in slots 5 (m % 3) on.
static void loss_tile(const LossArgs& args, int64_t tile, float* scratch) {
  LossTile t = begin_loss_tile(args, tile, scratch);
  const int n_blocks = (t.y1 - t.y0 + 4) / 5;
  const auto load_block = [&](int m) {
    for (int i = 0; i < 5; i++) {
      load_row(t, t.y0 - 10 + 5 * m + i, 5 * (m % 3) + i);
      prefetch_row(t, t.y0 - 5 + 5 * m + i);
    }
  };
  load_block(0);
  load_block(1);
  for (int m = 0; m < n_blocks + 2; m++) {
    load_block(m + 2);
    blur_inputs(t, 5 * (m % 3));
    for (int i = 0; i < 5; i++) ssim_row(t, t.y0 - 5 + 5 * m + i, i, 5 * (m % 3) + i);
    // The newest map block is m; rows y0 + 5 (m - 2) on need the blocks m - 2, m - 1 and m.
    if (m >= 2) loss_gradient_rows(t, t.y0 + 5 * (m - 2), 5 * (m % 3));
  }
  args.sums[2 * tile] = t.l1;
  args.sums[2 * tile + 1] = t.ssim;
}

}  // namespace S3D_NS
}  // namespace scene3d
