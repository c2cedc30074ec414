// f32x16: sixteen float lanes, whatever the machine. A loop body is written once on this type and compiled once per
// instruction set; S3D_LEVEL picks what stands behind it (0 scalar, 1 AVX2+FMA, 2 AVX-512, 3 NEON).
//
// Everything lives in a namespace named after the level, with internal linkage: two levels never share a symbol.
// No standard containers in files that include this header (their weak symbols would leak wide instructions).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifndef S3D_LEVEL
#error "define S3D_LEVEL before including simd.h"
#endif

#if S3D_LEVEL == 2
#include <immintrin.h>
#define S3D_NS avx512
#elif S3D_LEVEL == 1
#include <immintrin.h>
#define S3D_NS avx2
#elif S3D_LEVEL == 3
#include <arm_neon.h>
#define S3D_NS neon
#else
#define S3D_NS scalar
#endif

#define S3D_INLINE static inline __attribute__((always_inline))
// Before a short loop over vectors that should stay in registers. Without vectors it would only bloat.
#if S3D_LEVEL == 0
#define S3D_UNROLL
#else
#define S3D_UNROLL _Pragma("GCC unroll 16")
#endif

namespace scene3d {
namespace S3D_NS {

#if S3D_LEVEL == 2

struct mask16 {
  __mmask16 m;
};
struct f32x16 {
  __m512 v;
  f32x16() = default;
  f32x16(__m512 x) : v(x) {}
  f32x16(float x) : v(_mm512_set1_ps(x)) {}
};

S3D_INLINE f32x16 load(const float* p) { return _mm512_loadu_ps(p); }
S3D_INLINE void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
// The first n lanes, 0 <= n <= 16; the rest of the memory is not touched, the rest of the lanes is 0.
S3D_INLINE f32x16 load_first(const float* p, int n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
S3D_INLINE void store_first(float* p, f32x16 a, int n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.v);
}
S3D_INLINE f32x16 operator+(f32x16 a, f32x16 b) { return _mm512_add_ps(a.v, b.v); }
S3D_INLINE f32x16 operator-(f32x16 a, f32x16 b) { return _mm512_sub_ps(a.v, b.v); }
S3D_INLINE f32x16 operator*(f32x16 a, f32x16 b) { return _mm512_mul_ps(a.v, b.v); }
S3D_INLINE f32x16 operator/(f32x16 a, f32x16 b) { return _mm512_div_ps(a.v, b.v); }
S3D_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
// c - a * b
S3D_INLINE f32x16 fnma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
S3D_INLINE f32x16 min(f32x16 a, f32x16 b) { return _mm512_min_ps(a.v, b.v); }
S3D_INLINE f32x16 max(f32x16 a, f32x16 b) { return _mm512_max_ps(a.v, b.v); }
S3D_INLINE f32x16 abs(f32x16 a) { return _mm512_abs_ps(a.v); }
S3D_INLINE f32x16 sqrt(f32x16 a) { return _mm512_sqrt_ps(a.v); }
S3D_INLINE mask16 operator>=(f32x16 a, f32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
S3D_INLINE mask16 operator<(f32x16 a, f32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
S3D_INLINE mask16 operator&(mask16 a, mask16 b) { return {static_cast<__mmask16>(a.m & b.m)}; }
S3D_INLINE uint32_t bits(mask16 a) { return a.m; }
S3D_INLINE mask16 mask_of(uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
// a where the mask holds, else 0
S3D_INLINE f32x16 keep(mask16 m, f32x16 a) { return _mm512_maskz_mov_ps(m.m, a.v); }
S3D_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { return _mm512_mask_mov_ps(b.v, m.m, a.v); }
// 1/a to about 23 bits: hardware estimate and one Newton step
S3D_INLINE f32x16 reciprocal(f32x16 a) {
  __m512 r = _mm512_rcp14_ps(a.v);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(2.f)));
}
// Lane i takes lane i - 1, lane 0 becomes 0.
S3D_INLINE f32x16 shift_up(f32x16 a) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(a.v), _mm512_setzero_si512(), 15));
}
// Lane i takes lane i + 1, lane 15 becomes 0.
S3D_INLINE f32x16 shift_down(f32x16 a) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_setzero_si512(), _mm512_castps_si512(a.v), 1));
}
// Lane j of row i and lane i of row j change places.
S3D_INLINE void transpose(f32x16 (&r)[16]) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  // b[4g + c]: in each 128-bit quarter q, column 4q + c of rows 4g .. 4g + 3.
  for (int g = 0; g < 16; g += 4) {
    for (int h = 0; h < 2; h++) {
      const __m512d low = _mm512_castps_pd(a[g + h]), high = _mm512_castps_pd(a[g + 2 + h]);
      b[g + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[g + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  for (int c = 0; c < 4; c++) {
    const __m512 even01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), odd01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    r[c].v = _mm512_shuffle_f32x4(even01, even23, 0x88);
    r[8 + c].v = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    r[4 + c].v = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    r[12 + c].v = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}

#elif S3D_LEVEL == 1

struct mask16 {
  __m256 m[2];
};
struct f32x16 {
  __m256 v[2];
  f32x16() = default;
  f32x16(__m256 a, __m256 b) : v{a, b} {}
  f32x16(float x) : v{_mm256_set1_ps(x), _mm256_set1_ps(x)} {}
};

S3D_INLINE f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
S3D_INLINE void store(float* p, f32x16 a) {
  _mm256_storeu_ps(p, a.v[0]);
  _mm256_storeu_ps(p + 8, a.v[1]);
}
S3D_INLINE f32x16 load_first(const float* p, int n) {
  float lanes[16] = {};
  std::memcpy(lanes, p, sizeof(float) * n);
  return load(lanes);
}
S3D_INLINE void store_first(float* p, f32x16 a, int n) {
  float lanes[16];
  store(lanes, a);
  std::memcpy(p, lanes, sizeof(float) * n);
}
#define S3D_BINARY(name, op) \
  S3D_INLINE f32x16 name(f32x16 a, f32x16 b) { return {op(a.v[0], b.v[0]), op(a.v[1], b.v[1])}; }
S3D_BINARY(operator+, _mm256_add_ps)
S3D_BINARY(operator-, _mm256_sub_ps)
S3D_BINARY(operator*, _mm256_mul_ps)
S3D_BINARY(operator/, _mm256_div_ps)
S3D_BINARY(min, _mm256_min_ps)
S3D_BINARY(max, _mm256_max_ps)
#undef S3D_BINARY
S3D_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  return {_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])};
}
S3D_INLINE f32x16 fnma(f32x16 a, f32x16 b, f32x16 c) {
  return {_mm256_fnmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fnmadd_ps(a.v[1], b.v[1], c.v[1])};
}
S3D_INLINE f32x16 abs(f32x16 a) {
  __m256 sign = _mm256_set1_ps(-0.f);
  return {_mm256_andnot_ps(sign, a.v[0]), _mm256_andnot_ps(sign, a.v[1])};
}
S3D_INLINE f32x16 sqrt(f32x16 a) { return {_mm256_sqrt_ps(a.v[0]), _mm256_sqrt_ps(a.v[1])}; }
S3D_INLINE mask16 operator>=(f32x16 a, f32x16 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_GE_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_GE_OQ)}};
}
S3D_INLINE mask16 operator<(f32x16 a, f32x16 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_LT_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_LT_OQ)}};
}
S3D_INLINE mask16 operator&(mask16 a, mask16 b) {
  return {{_mm256_and_ps(a.m[0], b.m[0]), _mm256_and_ps(a.m[1], b.m[1])}};
}
S3D_INLINE uint32_t bits(mask16 a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a.m[0]) | (_mm256_movemask_ps(a.m[1]) << 8));
}
S3D_INLINE mask16 mask_of(uint32_t bits) {
  const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  mask16 r;
  for (int i = 0; i < 2; i++) {
    const __m256i here = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits >> (8 * i))), lanes);
    r.m[i] = _mm256_castsi256_ps(_mm256_cmpeq_epi32(here, lanes));
  }
  return r;
}
S3D_INLINE f32x16 keep(mask16 m, f32x16 a) { return {_mm256_and_ps(m.m[0], a.v[0]), _mm256_and_ps(m.m[1], a.v[1])}; }
S3D_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) {
  return {_mm256_blendv_ps(b.v[0], a.v[0], m.m[0]), _mm256_blendv_ps(b.v[1], a.v[1], m.m[1])};
}
S3D_INLINE f32x16 reciprocal(f32x16 a) { return f32x16(1.f) / a; }
S3D_INLINE f32x16 shift_up(f32x16 a) {
  const __m256i up = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
  const __m256 low = _mm256_permutevar8x32_ps(a.v[0], up), high = _mm256_permutevar8x32_ps(a.v[1], up);
  return {_mm256_blend_ps(low, _mm256_setzero_ps(), 1), _mm256_blend_ps(high, low, 1)};
}
S3D_INLINE f32x16 shift_down(f32x16 a) {
  const __m256i down = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0);
  const __m256 low = _mm256_permutevar8x32_ps(a.v[0], down), high = _mm256_permutevar8x32_ps(a.v[1], down);
  return {_mm256_blend_ps(low, high, 128), _mm256_blend_ps(high, _mm256_setzero_ps(), 128)};
}
S3D_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int g = 0; g < 8; g += 4) {
    for (int h = 0; h < 2; h++) {
      b[g + 2 * h] = _mm256_shuffle_ps(a[g + h], a[g + 2 + h], 0x44);
      b[g + 2 * h + 1] = _mm256_shuffle_ps(a[g + h], a[g + 2 + h], 0xee);
    }
  }
  for (int c = 0; c < 4; c++) {
    r[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    r[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}
S3D_INLINE void transpose(f32x16 (&r)[16]) {
  __m256 block[2][2][8];
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 2; j++) {
      for (int k = 0; k < 8; k++) block[i][j][k] = r[8 * i + k].v[j];
      transpose8(block[i][j]);
    }
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++)
      for (int k = 0; k < 8; k++) r[8 * i + k].v[j] = block[j][i][k];
}

#elif S3D_LEVEL == 3

struct mask16 {
  uint32x4_t m[4];
};
struct f32x16 {
  float32x4_t v[4];
  f32x16() = default;
  f32x16(float x) : v{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)} {}
};

#define S3D_EACH(result, expression)                   \
  result r;                                            \
  for (int i = 0; i < 4; i++) expression;              \
  return r;
S3D_INLINE f32x16 load(const float* p) { S3D_EACH(f32x16, r.v[i] = vld1q_f32(p + 4 * i)) }
S3D_INLINE void store(float* p, f32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
S3D_INLINE f32x16 operator+(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vaddq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 operator-(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vsubq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 operator*(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vmulq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 operator/(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vdivq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { S3D_EACH(f32x16, r.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i])) }
S3D_INLINE f32x16 fnma(f32x16 a, f32x16 b, f32x16 c) { S3D_EACH(f32x16, r.v[i] = vfmsq_f32(c.v[i], a.v[i], b.v[i])) }
S3D_INLINE f32x16 min(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vminq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 max(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vmaxq_f32(a.v[i], b.v[i])) }
S3D_INLINE f32x16 abs(f32x16 a) { S3D_EACH(f32x16, r.v[i] = vabsq_f32(a.v[i])) }
S3D_INLINE f32x16 sqrt(f32x16 a) { S3D_EACH(f32x16, r.v[i] = vsqrtq_f32(a.v[i])) }
S3D_INLINE mask16 operator>=(f32x16 a, f32x16 b) { S3D_EACH(mask16, r.m[i] = vcgeq_f32(a.v[i], b.v[i])) }
S3D_INLINE mask16 operator<(f32x16 a, f32x16 b) { S3D_EACH(mask16, r.m[i] = vcltq_f32(a.v[i], b.v[i])) }
S3D_INLINE mask16 operator&(mask16 a, mask16 b) { S3D_EACH(mask16, r.m[i] = vandq_u32(a.m[i], b.m[i])) }
S3D_INLINE uint32_t bits(mask16 a) {
  const uint32_t lanes[4] = {1, 2, 4, 8};
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) result |= vaddvq_u32(vandq_u32(a.m[i], vld1q_u32(lanes))) << (4 * i);
  return result;
}
S3D_INLINE mask16 mask_of(uint32_t bits) {
  const uint32_t lanes[4] = {1, 2, 4, 8};
  S3D_EACH(mask16, r.m[i] = vtstq_u32(vdupq_n_u32(bits >> (4 * i)), vld1q_u32(lanes)))
}
S3D_INLINE f32x16 keep(mask16 m, f32x16 a) {
  S3D_EACH(f32x16, r.v[i] = vreinterpretq_f32_u32(vandq_u32(m.m[i], vreinterpretq_u32_f32(a.v[i]))))
}
S3D_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = vbslq_f32(m.m[i], a.v[i], b.v[i])) }
S3D_INLINE f32x16 reciprocal(f32x16 a) { return f32x16(1.f) / a; }
S3D_INLINE f32x16 load_first(const float* p, int n) {
  float lanes[16] = {};
  std::memcpy(lanes, p, sizeof(float) * n);
  return load(lanes);
}
S3D_INLINE void store_first(float* p, f32x16 a, int n) {
  float lanes[16];
  store(lanes, a);
  std::memcpy(p, lanes, sizeof(float) * n);
}
S3D_INLINE f32x16 shift_up(f32x16 a) {
  S3D_EACH(f32x16, r.v[i] = vextq_f32(i ? a.v[i ? i - 1 : 0] : vdupq_n_f32(0.f), a.v[i], 3))
}
S3D_INLINE f32x16 shift_down(f32x16 a) {
  S3D_EACH(f32x16, r.v[i] = vextq_f32(a.v[i], i < 3 ? a.v[i < 3 ? i + 1 : 3] : vdupq_n_f32(0.f), 1))
}
S3D_INLINE void transpose(f32x16 (&r)[16]) {
  f32x16 result[16];
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 4; j++) {
      const float32x4x2_t a = vtrnq_f32(r[4 * i].v[j], r[4 * i + 1].v[j]);
      const float32x4x2_t b = vtrnq_f32(r[4 * i + 2].v[j], r[4 * i + 3].v[j]);
      result[4 * j].v[i] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
      result[4 * j + 1].v[i] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
      result[4 * j + 2].v[i] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
      result[4 * j + 3].v[i] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
    }
  }
  for (int i = 0; i < 16; i++) r[i] = result[i];
}
#undef S3D_EACH

#else

struct mask16 {
  bool m[16];
};
struct f32x16 {
  float v[16];
  f32x16() = default;
  f32x16(float x) {
    for (float& lane : v) lane = x;
  }
};

#define S3D_EACH(result, expression)          \
  result r;                                   \
  for (int i = 0; i < 16; i++) expression;    \
  return r;
S3D_INLINE f32x16 load(const float* p) { S3D_EACH(f32x16, r.v[i] = p[i]) }
S3D_INLINE void store(float* p, f32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
S3D_INLINE f32x16 operator+(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] + b.v[i]) }
S3D_INLINE f32x16 operator-(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] - b.v[i]) }
S3D_INLINE f32x16 operator*(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] * b.v[i]) }
S3D_INLINE f32x16 operator/(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] / b.v[i]) }
S3D_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { S3D_EACH(f32x16, r.v[i] = a.v[i] * b.v[i] + c.v[i]) }
S3D_INLINE f32x16 fnma(f32x16 a, f32x16 b, f32x16 c) { S3D_EACH(f32x16, r.v[i] = c.v[i] - a.v[i] * b.v[i]) }
S3D_INLINE f32x16 min(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
S3D_INLINE f32x16 max(f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
S3D_INLINE f32x16 abs(f32x16 a) { S3D_EACH(f32x16, r.v[i] = std::fabs(a.v[i])) }
S3D_INLINE f32x16 sqrt(f32x16 a) { S3D_EACH(f32x16, r.v[i] = std::sqrt(a.v[i])) }
S3D_INLINE mask16 operator>=(f32x16 a, f32x16 b) { S3D_EACH(mask16, r.m[i] = a.v[i] >= b.v[i]) }
S3D_INLINE mask16 operator<(f32x16 a, f32x16 b) { S3D_EACH(mask16, r.m[i] = a.v[i] < b.v[i]) }
S3D_INLINE mask16 operator&(mask16 a, mask16 b) { S3D_EACH(mask16, r.m[i] = a.m[i] && b.m[i]) }
S3D_INLINE uint32_t bits(mask16 a) {
  uint32_t result = 0;
  for (int i = 0; i < 16; i++) result |= static_cast<uint32_t>(a.m[i]) << i;
  return result;
}
S3D_INLINE mask16 mask_of(uint32_t bits) { S3D_EACH(mask16, r.m[i] = (bits >> i) & 1) }
S3D_INLINE f32x16 keep(mask16 m, f32x16 a) { S3D_EACH(f32x16, r.v[i] = m.m[i] ? a.v[i] : 0.f) }
S3D_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { S3D_EACH(f32x16, r.v[i] = m.m[i] ? a.v[i] : b.v[i]) }
S3D_INLINE f32x16 reciprocal(f32x16 a) { return f32x16(1.f) / a; }
S3D_INLINE f32x16 load_first(const float* p, int n) { S3D_EACH(f32x16, r.v[i] = i < n ? p[i] : 0.f) }
S3D_INLINE void store_first(float* p, f32x16 a, int n) {
  for (int i = 0; i < n; i++) p[i] = a.v[i];
}
S3D_INLINE f32x16 shift_up(f32x16 a) { S3D_EACH(f32x16, r.v[i] = i > 0 ? a.v[i - 1] : 0.f) }
S3D_INLINE f32x16 shift_down(f32x16 a) { S3D_EACH(f32x16, r.v[i] = i < 15 ? a.v[i + 1] : 0.f) }
S3D_INLINE void transpose(f32x16 (&r)[16]) {
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < i; j++) {
      const float kept = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = kept;
    }
  }
}
#undef S3D_EACH

#endif

S3D_INLINE bool any(mask16 a) { return bits(a) != 0; }

// Lane i: the sum of lanes 0 to i.
S3D_INLINE f32x16 running_sums(f32x16 a) {
#if S3D_LEVEL == 2
  const __m512i zero = _mm512_setzero_si512();
#define S3D_ADD_SHIFTED(n) \
  a.v = _mm512_add_ps(a.v, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(a.v), zero, 16 - n)))
  S3D_ADD_SHIFTED(1);
  S3D_ADD_SHIFTED(2);
  S3D_ADD_SHIFTED(4);
  S3D_ADD_SHIFTED(8);
#undef S3D_ADD_SHIFTED
  return a;
#else
  float lanes[16];
  store(lanes, a);
  for (int i = 1; i < 16; i++) lanes[i] += lanes[i - 1];
  return load(lanes);
#endif
}
// The lanes where the mask holds, side by side at p, which has room for sixteen; what lies behind them is undefined.
S3D_INLINE void store_packed(float* p, mask16 m, f32x16 a) {
#if S3D_LEVEL == 2
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m.m, a.v));  // faster than compressing into memory
#else
  float lanes[16];
  store(lanes, a);
  for (uint32_t left = bits(m); left; left &= left - 1) *p++ = lanes[__builtin_ctz(left)];
#endif
}
S3D_INLINE f32x16 lane_index() {
  alignas(64) static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(lanes);
}

}  // namespace S3D_NS
}  // namespace scene3d
