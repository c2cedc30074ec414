// The elementary functions of f32x16, and what cuda/math asks of a number type.
#pragma once
#include "cpu/simd.h"

namespace scene3d {
namespace S3D_NS {

S3D_INLINE f32x16 operator-(f32x16 a) { return f32x16(0.f) - a; }
S3D_INLINE f32x16& operator+=(f32x16& a, f32x16 b) { return a = a + b; }
S3D_INLINE f32x16& operator-=(f32x16& a, f32x16 b) { return a = a - b; }
S3D_INLINE f32x16 choose(mask16 m, f32x16 a, f32x16 b) { return select(m, a, b); }

// 2^x for x in about [-126, 1]: exponent through the float's bits, fraction in [-1/2, 1/2] by a minimax polynomial
// of degree 5 (relative error 2e-7).
S3D_INLINE f32x16 exp2_fast(f32x16 x) {
#if S3D_LEVEL == 2
  const __m512 whole = _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const f32x16 f = _mm512_sub_ps(x.v, whole);
#else
  const f32x16 magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const f32x16 shifted = x + magic;
  const f32x16 f = x - (shifted - magic);
#endif
  f32x16 p = fma(f32x16(0.00133336f), f, 0.00961813f);
  p = fma(p, f, 0.05550411f);
  p = fma(p, f, 0.24022651f);
  p = fma(p, f, 0.69314718f);
  p = fma(p, f, 1.0f);
#if S3D_LEVEL == 2
  return _mm512_scalef_ps(p.v, whole);
#elif S3D_LEVEL == 1
  f32x16 r;
  for (int i = 0; i < 2; i++)
    r.v[i] = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p.v[i]), _mm256_slli_epi32(_mm256_castps_si256(shifted.v[i]), 23)));
  return r;
#elif S3D_LEVEL == 3
  f32x16 r;
  for (int i = 0; i < 4; i++)
    r.v[i] = vreinterpretq_f32_s32(
        vaddq_s32(vreinterpretq_s32_f32(p.v[i]), vshlq_n_s32(vreinterpretq_s32_f32(shifted.v[i]), 23)));
  return r;
#else
  f32x16 r;
  for (int i = 0; i < 16; i++) {
    uint32_t a, b;
    std::memcpy(&a, &p.v[i], 4), std::memcpy(&b, &shifted.v[i], 4);
    a += b << 23;
    std::memcpy(&r.v[i], &a, 4);
  }
  return r;
#endif
}

S3D_INLINE f32x16 floor(f32x16 x) {
#if S3D_LEVEL == 2
  return _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif S3D_LEVEL == 1
  return {_mm256_floor_ps(x.v[0]), _mm256_floor_ps(x.v[1])};
#elif S3D_LEVEL == 3
  f32x16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vrndmq_f32(x.v[i]);
  return r;
#else
  f32x16 r;
  for (int i = 0; i < 16; i++) r.v[i] = std::floor(x.v[i]);
  return r;
#endif
}

// e^x, clamped to the range of normal floats.
S3D_INLINE f32x16 exp(f32x16 x) { return exp2_fast(min(max(x * f32x16(1.44269504f), -126.f), 127.f)); }

// log2 of positive normal floats: the exponent, and a series in s = (m - 1) / (m + 1) for the mantissa m in
// [sqrt(1/2), sqrt(2)] (error 1e-7).
S3D_INLINE f32x16 log2(f32x16 x) {
#if S3D_LEVEL == 2
  const __m512 e = _mm512_getexp_ps(x.v);
  f32x16 m = _mm512_getmant_ps(x.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero), whole = e;
#else
  alignas(64) float lanes[16], es[16], ms[16];
  store(lanes, x);
  for (int i = 0; i < 16; i++) {
    uint32_t bits;
    std::memcpy(&bits, &lanes[i], 4);
    es[i] = static_cast<float>(static_cast<int>(bits >> 23) - 127);
    bits = (bits & 0x7fffffu) | 0x3f800000u;
    std::memcpy(&ms[i], &bits, 4);
  }
  f32x16 m = load(ms), whole = load(es);
#endif
  const mask16 big = m >= f32x16(1.41421356f);
  m = select(big, m * f32x16(0.5f), m), whole = select(big, whole + f32x16(1.f), whole);
  const f32x16 s = (m - f32x16(1.f)) / (m + f32x16(1.f)), s2 = s * s;
  f32x16 p = fma(f32x16(0.32059890f), s2, 0.41219858f);  // 2 log2(e) / 9, / 7, / 5, / 3, / 1
  p = fma(p, s2, 0.57707802f);
  p = fma(p, s2, 0.96179669f);
  p = fma(p, s2, 2.88539008f);
  return fma(p, s, whole);
}

// Sum of the lanes, in a fixed order.
S3D_INLINE float lane_sum(f32x16 a) {
  alignas(64) float v[16];
  store(v, a);
  for (int k = 8; k > 0; k /= 2)
    for (int i = 0; i < k; i++) v[i] += v[i + k];
  return v[0];
}

#if S3D_LEVEL == 2
// Rows of three numbers without gaps to three vectors, and back: every third lane of three loads.
S3D_INLINE void unpack3(const float* p, f32x16* out) {
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16), c = _mm512_loadu_ps(p + 32);
  const __m512i step = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45);
  for (int k = 0; k < 3; k++) {
    const __m512i index = _mm512_add_epi32(step, _mm512_set1_epi32(k));  // of 48: below 32 from a and b, else from c
    const __mmask16 in_c = _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(32));
    out[k] = _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(a, index, b), in_c, index, c);
  }
}
S3D_INLINE void pack3(float* p, const f32x16* in) {
  const __m512i lane = _mm512_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5);
  const __m512i lane1 = _mm512_setr_epi32(5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10);
  const __m512i lane2 = _mm512_setr_epi32(10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15);
  // Position 3 i + k holds lane i of in[k].
  const auto pick = [&](__m512i index, int shift) {
    const __mmask16 second = static_cast<__mmask16>(0x492492492492ull >> shift);  // positions that are 1 modulo 3
    const __mmask16 third = static_cast<__mmask16>(0x924924924924ull >> shift);
    __m512 r = _mm512_permutexvar_ps(index, in[0].v);
    r = _mm512_mask_permutexvar_ps(r, second, index, in[1].v);
    return _mm512_mask_permutexvar_ps(r, third, index, in[2].v);
  };
  _mm512_storeu_ps(p, pick(lane, 0));
  _mm512_storeu_ps(p + 16, pick(lane1, 16));
  _mm512_storeu_ps(p + 32, pick(lane2, 32));
}
#endif

// Rows of n numbers, `stride` apart, to n vectors whose lane i is row i. With fewer than 16 rows the last is repeated;
// `full` promises 16.
template <int n, bool full>
S3D_INLINE void load_rows(const float* base, int64_t stride, int n_rows, f32x16* out) {
#if S3D_LEVEL == 2
  if (full && n == 3 && stride == 3) return unpack3(base, out);
#endif
  for (int k = 0; k < n; k += 16) {
    f32x16 r[16];
    const int width = n - k < 16 ? n - k : 16;
    for (int i = 0; i < 16; i++) r[i] = load_first(base + (full || i < n_rows ? i : n_rows - 1) * stride + k, width);
    transpose(r);
    for (int i = 0; i < width; i++) out[k + i] = r[i];
  }
}

// The way back: lane i of n vectors to row i, for i < n_rows.
template <int n, bool full>
S3D_INLINE void store_rows(float* base, int64_t stride, int n_rows, const f32x16* in) {
#if S3D_LEVEL == 2
  if (full && n == 3 && stride == 3) return pack3(base, in);
#endif
  for (int k = 0; k < n; k += 16) {
    f32x16 r[16];
    const int width = n - k < 16 ? n - k : 16;
    for (int i = 0; i < 16; i++) r[i] = i < width ? in[k + i] : f32x16(0.f);
    transpose(r);
    for (int i = 0; i < (full ? 16 : n_rows); i++) store_first(base + i * stride + k, r[i], width);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
