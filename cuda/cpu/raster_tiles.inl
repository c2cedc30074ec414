// Blending of one 16x16 tile, forward and backward, on f32x16.
//
// A tile is 16 blocks of 4x4 pixels; the 16 lanes are either the pixels of one block (blending) or the blocks of the
// tile (which blocks does this ellipse reach). Exponents are powers of two: alpha = 2^(log2 o - u^2 - v^2).
//
// Forward walks, per chunk of entries, block after block with the state in registers. Backward walks splat after splat
// with the blocks' state in the first-level cache: the sums over a splat's blocks then stay in registers and are
// reduced across lanes once per (splat, tile), not once per (splat, block).
#include "cpu/raster.h"
#include "cpu/simd_math.h"
#include "math/constants.h"

namespace scene3d {
namespace S3D_NS {

constexpr int kChunk = 256;

// Lane i of the result is the sum of the lanes of v[i]; v has n rows, the other lanes are 0.
template <int n>
S3D_INLINE f32x16 sum_rows(const f32x16* v) {
#if S3D_LEVEL == 2
  const __m512 zero = _mm512_setzero_ps();
  __m512 two[8], four[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    const __m512 a = 2 * i < n ? v[2 * i < n ? 2 * i : 0].v : zero, b = 2 * i + 1 < n ? v[2 * i + 1 < n ? 2 * i + 1 : 0].v : zero;
    two[i] = 2 * i < n ? _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)) : zero;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(two[2 * i]), b = _mm512_castps_pd(two[2 * i + 1]);
    four[i] = 4 * i < n ? _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
                        : zero;
  }
  const __m512 x = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88), _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const __m512 y =
      n > 8 ? _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88), _mm512_shuffle_f32x4(four[2], four[3], 0xdd)) : zero;
  return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
#elif S3D_LEVEL == 1
  f32x16 result(0.f);
  for (int half = 0; half < 2 && 8 * half < n; half++) {
    __m256 h[8];
    for (int i = 0; i < 8; i++) {
      const int row = 8 * half + i;
      h[i] = row < n ? _mm256_add_ps(v[row < n ? row : 0].v[0], v[row < n ? row : 0].v[1]) : _mm256_setzero_ps();
    }
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(h[0], h[1]), _mm256_hadd_ps(h[2], h[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(h[4], h[5]), _mm256_hadd_ps(h[6], h[7]));
    result.v[half] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  return result;
#else
  alignas(64) float lanes[16] = {}, row[16];
  for (int i = 0; i < n; i++) {
    store(row, v[i]);
    for (int k = 8; k > 0; k /= 2)
      for (int j = 0; j < k; j++) row[j] += row[j + k];
    lanes[i] = row[0];
  }
  return load(lanes);
#endif
}

// Indices i < n whose mask has bit b set, in order.
S3D_INLINE int list_block(const uint16_t* masks, int n, int b, uint16_t* list) {
  int count = 0;
#if S3D_LEVEL == 2
  const __m256i bit = _mm256_set1_epi16(static_cast<short>(1 << b));
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int i = 0; i < n; i += 16) {  // masks are padded with zeros to a multiple of 16
    const __mmask16 hit = _mm256_test_epi16_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks + i)), bit);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(list + count),
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(hit, index)));
    count += __builtin_popcount(hit);
    index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
  }
#else
  for (int i = 0; i < n; i++) {
    list[count] = static_cast<uint16_t>(i);
    count += (masks[i] >> b) & 1;
  }
#endif
  return count;
}

// Pixel centres of the blocks' lanes, relative to the tile's corner.
struct LaneCoords {
  f32x16 x, y;            // of the 16 pixels of block 0
  f32x16 block_x, block_y;  // left and upper pixel centres of the 16 blocks
};

S3D_INLINE LaneCoords lane_coords() {
  alignas(64) float x[16], y[16];
  for (int i = 0; i < 16; i++) x[i] = static_cast<float>(i & 3), y[i] = static_cast<float>(i >> 2);
  LaneCoords c;
  c.x = load(x) + f32x16(0.5f), c.y = load(y) + f32x16(0.5f);
  c.block_x = load(x) * f32x16(4.f) + f32x16(0.5f), c.block_y = load(y) * f32x16(4.f) + f32x16(0.5f);
  return c;
}

// Blocks whose rectangle of pixel centres holds a point with alpha >= 1/255. The exponent is convex: on a rectangle it
// is least at the centre, or on the edge nearest in x, or on the edge nearest in y.
S3D_INLINE uint32_t reached_blocks(const Splat& s, float tile_x, float tile_y, const LaneCoords& c) {
  const f32x16 x0 = c.block_x - f32x16(s.x - tile_x), y0 = c.block_y - f32x16(s.y - tile_y);
  const f32x16 x1 = x0 + f32x16(3.f), y1 = y0 + f32x16(3.f), zero = 0.f;
  const f32x16 x = max(x0, min(x1, zero)), y = max(y0, min(y1, zero));
  const f32x16 y_at_x = max(y0, min(y1, x * f32x16(s.slope_x)));
  const f32x16 x_at_y = max(x0, min(x1, y * f32x16(s.slope_y)));
  const f32x16 u1 = fma(f32x16(s.l11), x, f32x16(s.l21) * y_at_x), v1 = f32x16(s.l22) * y_at_x;
  const f32x16 u2 = fma(f32x16(s.l11), x_at_y, f32x16(s.l21) * y), v2 = f32x16(s.l22) * y;
  const f32x16 least = min(fma(u1, u1, v1 * v1), fma(u2, u2, v2 * v2));
  return bits(f32x16(s.log2_opacity - static_cast<float>(kLog2MinAlpha)) >= least);
}

// Blocks of the tile that have at least one pixel in the image.
S3D_INLINE uint32_t blocks_in_image(const RasterTileArgs& a, int x0, int y0) {
  uint32_t live = 0;
  for (int b = 0; b < kBlocks; b++)
    if (x0 + (b & 3) * 4 < a.width && y0 + (b >> 2) * 4 < a.height) live |= 1u << b;
  return live;
}

// Calls f(lane, pixel index) for the pixels of block b that are in the image.
template <class F>
S3D_INLINE void each_pixel(const RasterTileArgs& a, int x0, int y0, int b, F f) {
  const int bx = x0 + (b & 3) * 4, by = y0 + (b >> 2) * 4;
  for (int y = 0; y < 4 && by + y < a.height; y++)
    for (int x = 0; x < 4 && bx + x < a.width; x++) f(4 * y + x, static_cast<int64_t>(by + y) * a.width + bx + x);
}

// A splat relative to its tile, one cache line.
struct alignas(64) LocalSplat {
  float u0, v0, l11, l21, l22, log2_opacity, r, g, b, depth, nx, ny, nz;
  int32_t id;
  float mask;
};

struct ForwardTile {
  alignas(64) float T[kBlocks][16], rgb[3][kBlocks][16], depth[kBlocks][16], normal[3][kBlocks][16], median[kBlocks][16];
  LocalSplat local[kChunk];
  alignas(64) uint16_t masks[kChunk + 16];
  alignas(64) uint16_t list[kChunk + 32];
};

// Blends the listed splats into block b; gives the number of list items after which every pixel was finished.
template <bool EXTRA, bool MASKED>
S3D_INLINE int blend_block(ForwardTile& w, int b, int n, const f32x16 px, const f32x16 py) {
  const f32x16 floor_q = static_cast<float>(kLog2MinAlpha), max_alpha = static_cast<float>(kMaxAlpha);
  const f32x16 min_T = static_cast<float>(kMinTransmittance);
  f32x16 T = load(w.T[b]), R = load(w.rgb[0][b]), G = load(w.rgb[1][b]), B = load(w.rgb[2][b]);
  f32x16 D, NX, NY, NZ, M;
  if (EXTRA) D = load(w.depth[b]), NX = load(w.normal[0][b]), NY = load(w.normal[1][b]), NZ = load(w.normal[2][b]), M = load(w.median[b]);
  int done = n, i = 0;
  while (i < n) {
    const int stop = i + 4 < n ? i + 4 : n;
    for (; i < stop; i++) {
      const LocalSplat& s = w.local[w.list[i]];
      const f32x16 u = fma(f32x16(s.l11), px, fma(f32x16(s.l21), py, s.u0)), v = fma(f32x16(s.l22), py, s.v0);
      const f32x16 q = fnma(u, u, fnma(v, v, s.log2_opacity));
      f32x16 alpha = keep(q >= floor_q, min(exp2_fast(q), max_alpha));
      if (MASKED) alpha = alpha * f32x16(s.mask);
      const f32x16 weight = alpha * T;
      const f32x16 after = T - weight;
      R = fma(weight, s.r, R), G = fma(weight, s.g, G), B = fma(weight, s.b, B);
      if (EXTRA) {
        D = fma(weight, s.depth, D);
        NX = fma(weight, s.nx, NX), NY = fma(weight, s.ny, NY), NZ = fma(weight, s.nz, NZ);
        float id;
        std::memcpy(&id, &s.id, 4);
        M = select((T >= f32x16(0.5f)) & (after < f32x16(0.5f)), id, M);
      }
      T = after;
    }
    if (!any(T >= min_T)) {
      done = i;
      break;
    }
  }
  store(w.T[b], T), store(w.rgb[0][b], R), store(w.rgb[1][b], G), store(w.rgb[2][b], B);
  if (EXTRA) store(w.depth[b], D), store(w.normal[0][b], NX), store(w.normal[1][b], NY), store(w.normal[2][b], NZ), store(w.median[b], M);
  return any(T >= min_T) ? n + 1 : done;
}

template <bool EXTRA>
S3D_INLINE void write_tile(const RasterTileArgs& a, const ForwardTile& w, int x0, int y0, uint32_t blocks) {
  for (uint32_t rest = blocks; rest; rest &= rest - 1) {
    const int b = __builtin_ctz(rest);
    each_pixel(a, x0, y0, b, [&](int lane, int64_t pixel) {
      const float T = w.T[b][lane];
      for (int c = 0; c < 3; c++) a.rgb[3 * pixel + c] = w.rgb[c][b][lane] + T * a.background[c];
      a.alpha[pixel] = 1.f - T;
      if (!EXTRA) return;
      a.depth[pixel] = w.depth[b][lane];
      for (int c = 0; c < 3; c++) a.normals[3 * pixel + c] = w.normal[c][b][lane];
      int32_t id;
      std::memcpy(&id, &w.median[b][lane], 4);
      a.median_id[pixel] = id;
      a.median[pixel] = id < 0 ? 0.f : a.splats[id].depth;
    });
  }
}

template <bool EXTRA>
S3D_INLINE void begin_tile(const RasterTileArgs& a, ForwardTile& w, int x0, int y0) {
  const int32_t none = -1;
  float no_id;
  std::memcpy(&no_id, &none, 4);
  for (int b = 0; b < kBlocks; b++) {
    for (int lane = 0; lane < 16; lane++) w.T[b][lane] = 0.f, w.median[b][lane] = no_id;
    each_pixel(a, x0, y0, b, [&](int lane, int64_t) { w.T[b][lane] = 1.f; });
  }
  std::memset(w.rgb, 0, sizeof(w.rgb));
  if (EXTRA) std::memset(w.depth, 0, sizeof(w.depth)), std::memset(w.normal, 0, sizeof(w.normal));
}

S3D_INLINE void make_local(const Splat& s, uint32_t id, float tile_x, float tile_y, LocalSplat& o) {
  const float dx = tile_x - s.x, dy = tile_y - s.y;
  o.u0 = s.l11 * dx + s.l21 * dy, o.v0 = s.l22 * dy;
  o.l11 = s.l11, o.l21 = s.l21, o.l22 = s.l22, o.log2_opacity = s.log2_opacity;
  o.r = s.rgb[0], o.g = s.rgb[1], o.b = s.rgb[2], o.depth = s.depth;
  o.nx = s.normal[0], o.ny = s.normal[1], o.nz = s.normal[2], o.id = static_cast<int32_t>(id);
}

template <bool EXTRA, bool MASKED>
S3D_INLINE void forward_tile(const RasterTileArgs& a, int64_t tile) {
  ForwardTile w;
  const LaneCoords lanes = lane_coords();
  const int x0 = static_cast<int>(tile % a.tiles_x) * kTileSize, y0 = static_cast<int>(tile / a.tiles_x) * kTileSize;
  const uint32_t in_image = blocks_in_image(a, x0, y0);
  uint32_t live = in_image;
  begin_tile<EXTRA>(a, w, x0, y0);
  const uint32_t begin = a.offsets[tile], end = a.offsets[tile + 1];
  uint32_t k = begin;
  for (; k < end && live; k += kChunk) {
    const int n = static_cast<int>(end - k < kChunk ? end - k : kChunk);
    for (int i = 0; i < n; i++) {
      if (k + i + 16 < end) __builtin_prefetch(&a.splats[a.entries[k + i + 16].id]);
      const Splat& s = a.splats[a.entries[k + i].id];
      w.masks[i] = static_cast<uint16_t>(reached_blocks(s, static_cast<float>(x0), static_cast<float>(y0), lanes) & live);
      make_local(s, a.entries[k + i].id, static_cast<float>(x0), static_cast<float>(y0), w.local[i]);
      if (MASKED) w.local[i].mask = a.alpha_masks[a.entries[k + i].id];
    }
    for (int i = n; i < n + 16; i++) w.masks[i] = 0;
    for (uint32_t rest = live; rest; rest &= rest - 1) {
      const int b = __builtin_ctz(rest);
      const int count = list_block(w.masks, n, b, w.list);
      if (!count) continue;
      const f32x16 px = lanes.x + f32x16(static_cast<float>((b & 3) * 4)), py = lanes.y + f32x16(static_cast<float>((b >> 2) * 4));
      const int done = blend_block<EXTRA, MASKED>(w, b, count, px, py);
      if (done > count) continue;
      live &= ~(1u << b);
      for (int i = done < count ? w.list[done] : n; i < n; i++) w.masks[i] &= static_cast<uint16_t>(~(1u << b));
    }
    std::memcpy(a.masks + k, w.masks, 2 * static_cast<size_t>(n));
  }
  if (k < end) std::memset(a.masks + k, 0, 2 * static_cast<size_t>(end - k));
  write_tile<EXTRA>(a, w, x0, y0, in_image);
}

struct BackwardTile {
  alignas(64) float T[kBlocks][16];
  alignas(64) float behind[kBlocks][16];  // gradient-weighted colour of what is still to come
  alignas(64) float v_rgb[3][kBlocks][16], v_alpha[kBlocks][16], v_depth[kBlocks][16], v_normal[3][kBlocks][16];
  alignas(64) float px[kBlocks][16], py[kBlocks][16];
};

// Loads the tile's upstream gradients. The background enters through transmittance: dL/dalpha loses v_rgb . background.
template <bool EXTRA>
S3D_INLINE void begin_backward(const RasterTileArgs& a, BackwardTile& w, int x0, int y0) {
  const LaneCoords lanes = lane_coords();
  for (int b = 0; b < kBlocks; b++) {
    store(w.px[b], lanes.x + f32x16(static_cast<float>((b & 3) * 4)));
    store(w.py[b], lanes.y + f32x16(static_cast<float>((b >> 2) * 4)));
    for (int i = 0; i < 16; i++) {
      w.T[b][i] = w.behind[b][i] = w.v_alpha[b][i] = 0.f;
      for (int c = 0; c < 3; c++) w.v_rgb[c][b][i] = 0.f;
      if (EXTRA) {
        w.v_depth[b][i] = 0.f;
        for (int c = 0; c < 3; c++) w.v_normal[c][b][i] = 0.f;
      }
    }
    each_pixel(a, x0, y0, b, [&](int i, int64_t p) {
      const float alpha = a.alpha[p], T = 1.f - alpha;
      float v_alpha = a.v_alpha ? a.v_alpha[p] : 0.f, behind = 0.f;
      for (int c = 0; c < 3; c++) {
        const float v = a.v_rgb[3 * p + c];
        w.v_rgb[c][b][i] = v;
        v_alpha -= v * a.background[c];
        behind += v * (a.rgb[3 * p + c] - T * a.background[c]);
      }
      if (EXTRA && a.v_depth) w.v_depth[b][i] = a.v_depth[p], behind += a.v_depth[p] * a.depth[p];
      for (int c = 0; EXTRA && a.v_normals && c < 3; c++) {
        w.v_normal[c][b][i] = a.v_normals[3 * p + c];
        behind += a.v_normals[3 * p + c] * a.normals[3 * p + c];
      }
      w.T[b][i] = 1.f, w.v_alpha[b][i] = v_alpha, w.behind[b][i] = behind + v_alpha * alpha;
    });
  }
}

// Sums of one splat over the blocks in `mask`, as one row.
template <bool EXTRA, bool ABS, bool MASKED>
S3D_INLINE void splat_row(BackwardTile& w, const Splat& s, float alpha_mask, float tile_x, float tile_y, uint32_t mask,
                          float* row) {
  const f32x16 floor_q = static_cast<float>(kLog2MinAlpha), max_alpha = static_cast<float>(kMaxAlpha), one = 1.f;
  const float dx = tile_x - s.x, dy = tile_y - s.y;
  const f32x16 l11 = s.l11, l21 = s.l21, l22 = s.l22, u0 = s.l11 * dx + s.l21 * dy, v0 = s.l22 * dy;
  const f32x16 lo = s.log2_opacity, r = s.rgb[0], g = s.rgb[1], blue = s.rgb[2];
  constexpr int n_rows = MASKED ? 16 : EXTRA ? 15 : ABS ? 12 : 9;
  f32x16 sum[16];
#pragma GCC unroll 16
  for (int i = 0; i < n_rows; i++) sum[i] = 0.f;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int b = __builtin_ctz(rest);
    const f32x16 px = load(w.px[b]), py = load(w.py[b]), T = load(w.T[b]);
    const f32x16 u = fma(l11, px, fma(l21, py, u0)), v = fma(l22, py, v0);
    const f32x16 q = fnma(u, u, fnma(v, v, lo));
    const f32x16 raw = keep(q >= floor_q, exp2_fast(q));
    const f32x16 unmasked = min(raw, max_alpha), alpha = MASKED ? unmasked * f32x16(alpha_mask) : unmasked, weight = alpha * T;
    const f32x16 v_r = load(w.v_rgb[0][b]), v_g = load(w.v_rgb[1][b]), v_b = load(w.v_rgb[2][b]);
    f32x16 color = fma(v_r, r, fma(v_g, g, fma(v_b, blue, load(w.v_alpha[b]))));
    if (EXTRA) {
      color = fma(load(w.v_depth[b]), s.depth, color);
      for (int c = 0; c < 3; c++) color = fma(load(w.v_normal[c][b]), s.normal[c], color);
    }
    const f32x16 behind = fnma(weight, color, load(w.behind[b]));
    store(w.behind[b], behind), store(w.T[b], T - weight);
    // dL/dalpha = T color - behind / (1 - alpha), and none where alpha was clamped
    const f32x16 v_alpha = fnma(behind, reciprocal(one - alpha), T * color);
    const f32x16 v_power = keep(raw < max_alpha, v_alpha * alpha);
    // Also where the mask is 0 and nothing was blended.
    if (MASKED) sum[kMask] = fma(v_alpha, unmasked, sum[kMask]);
    const f32x16 vu = v_power * u, vv = v_power * v;
    sum[kS] = sum[kS] + v_power, sum[kSu] = sum[kSu] + vu, sum[kSv] = sum[kSv] + vv;
    sum[kSuu] = fma(vu, u, sum[kSuu]), sum[kSuv] = fma(vu, v, sum[kSuv]), sum[kSvv] = fma(vv, v, sum[kSvv]);
    sum[kRed] = fma(weight, v_r, sum[kRed]), sum[kGreen] = fma(weight, v_g, sum[kGreen]);
    sum[kBlue] = fma(weight, v_b, sum[kBlue]);
    if (ABS || EXTRA) {
      sum[kAbsX] = sum[kAbsX] + abs(vu * l11), sum[kAbsY] = sum[kAbsY] + abs(fma(vu, l21, vv * l22));
    }
    if (EXTRA) {
      sum[kDepth] = fma(weight, load(w.v_depth[b]), sum[kDepth]);
      for (int c = 0; c < 3; c++) sum[kNormal + c] = fma(weight, load(w.v_normal[c][b]), sum[kNormal + c]);
    }
  }
  store(row, sum_rows<n_rows>(sum));
}

template <bool EXTRA, bool ABS, bool MASKED>
S3D_INLINE void backward_tile(const RasterTileArgs& a, int64_t tile) {
  const uint32_t begin = a.offsets[tile], end = a.offsets[tile + 1];
  if (begin == end) return;
  BackwardTile w;
  const int x0 = static_cast<int>(tile % a.tiles_x) * kTileSize, y0 = static_cast<int>(tile / a.tiles_x) * kTileSize;
  begin_backward<EXTRA>(a, w, x0, y0);
  for (uint32_t k = begin; k < end; k++) {
    if (k + 12 < end) {
      __builtin_prefetch(&a.splats[a.entries[k + 12].id]);
      __builtin_prefetch(&a.rows[static_cast<int64_t>(a.entries[k + 12].pair) * kRowFloats], 1);
    }
    const uint32_t mask = a.masks[k];
    if (!mask) continue;
    const TileEntry entry = a.entries[k];
    splat_row<EXTRA, ABS, MASKED>(w, a.splats[entry.id], MASKED ? a.alpha_masks[entry.id] : 1.f, static_cast<float>(x0), static_cast<float>(y0), mask,
                          a.rows + static_cast<int64_t>(entry.pair) * kRowFloats);
    a.touched[entry.pair] = 1;
  }
}

static void raster_forward_tile(const RasterTileArgs& a, int64_t tile) {
  if (a.alpha_masks) return forward_tile<false, true>(a, tile);
  a.with_extra ? forward_tile<true, false>(a, tile) : forward_tile<false, false>(a, tile);
}

static void raster_backward_tile(const RasterTileArgs& a, int64_t tile) {
  if (a.alpha_masks) return backward_tile<false, true, true>(a, tile);
  if (a.with_extra) return backward_tile<true, true, false>(a, tile);
  a.absgrad ? backward_tile<false, true, false>(a, tile) : backward_tile<false, false, false>(a, tile);
}

}  // namespace S3D_NS
}  // namespace scene3d
