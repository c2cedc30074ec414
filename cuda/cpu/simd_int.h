// Sixteen lanes of 32-bit integers: places in arrays and bits of cells. As cpu/simd.h: one set of names per instruction set.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace scene3d {
namespace S3D_NS {

#if S3D_LEVEL == 2

struct i32x16 {
  __m512i v;
  i32x16() = default;
  i32x16(__m512i x) : v(x) {}
  i32x16(int32_t x) : v(_mm512_set1_epi32(x)) {}
};

S3D_INLINE i32x16 operator+(i32x16 a, i32x16 b) { return _mm512_add_epi32(a.v, b.v); }
S3D_INLINE i32x16 operator*(i32x16 a, i32x16 b) { return _mm512_mullo_epi32(a.v, b.v); }
S3D_INLINE i32x16 operator&(i32x16 a, i32x16 b) { return _mm512_and_si512(a.v, b.v); }
S3D_INLINE i32x16 min(i32x16 a, i32x16 b) { return _mm512_min_epi32(a.v, b.v); }
S3D_INLINE i32x16 max(i32x16 a, i32x16 b) { return _mm512_max_epi32(a.v, b.v); }
// Bits move down by a number, or by a number for each lane; zeros follow.
template <int n>
S3D_INLINE i32x16 shift_down(i32x16 a) {
  return _mm512_srli_epi32(a.v, n);
}
S3D_INLINE i32x16 shift_down(i32x16 a, i32x16 n) { return _mm512_srlv_epi32(a.v, n.v); }
S3D_INLINE mask16 operator==(i32x16 a, i32x16 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
S3D_INLINE i32x16 keep(mask16 m, i32x16 a) { return _mm512_maskz_mov_epi32(m.m, a.v); }
// Toward 0.
S3D_INLINE i32x16 to_int(f32x16 a) { return _mm512_cvttps_epi32(a.v); }
S3D_INLINE f32x16 to_float(i32x16 a) { return _mm512_cvtepi32_ps(a.v); }
// The numbers at sixteen places.
S3D_INLINE f32x16 gather(const float* p, i32x16 at) { return _mm512_i32gather_ps(at.v, p, 4); }
S3D_INLINE i32x16 gather(const int32_t* p, i32x16 at) { return _mm512_i32gather_epi32(at.v, p, 4); }

#else

struct i32x16 {
  int32_t v[16];
  i32x16() = default;
  i32x16(int32_t x) {
    for (int32_t& lane : v) lane = x;
  }
};

#define S3D_EACH_INT(result, expression)    \
  result r;                                 \
  for (int i = 0; i < 16; i++) expression;  \
  return r;
S3D_INLINE i32x16 operator+(i32x16 a, i32x16 b) { S3D_EACH_INT(i32x16, r.v[i] = a.v[i] + b.v[i]) }
S3D_INLINE i32x16 operator*(i32x16 a, i32x16 b) { S3D_EACH_INT(i32x16, r.v[i] = a.v[i] * b.v[i]) }
S3D_INLINE i32x16 operator&(i32x16 a, i32x16 b) { S3D_EACH_INT(i32x16, r.v[i] = a.v[i] & b.v[i]) }
S3D_INLINE i32x16 min(i32x16 a, i32x16 b) { S3D_EACH_INT(i32x16, r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
S3D_INLINE i32x16 max(i32x16 a, i32x16 b) { S3D_EACH_INT(i32x16, r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
template <int n>
S3D_INLINE i32x16 shift_down(i32x16 a) {
  S3D_EACH_INT(i32x16, r.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> n))
}
S3D_INLINE i32x16 shift_down(i32x16 a, i32x16 n) {
  S3D_EACH_INT(i32x16, r.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> n.v[i]))
}
S3D_INLINE mask16 operator==(i32x16 a, i32x16 b) {
  uint32_t equal = 0;
  for (int i = 0; i < 16; i++) equal |= static_cast<uint32_t>(a.v[i] == b.v[i]) << i;
  return mask_of(equal);
}
S3D_INLINE i32x16 keep(mask16 m, i32x16 a) {
  const uint32_t kept = bits(m);
  S3D_EACH_INT(i32x16, r.v[i] = (kept >> i & 1) ? a.v[i] : 0)
}
S3D_INLINE i32x16 to_int(f32x16 a) {
  float lanes[16];
  store(lanes, a);
  S3D_EACH_INT(i32x16, r.v[i] = static_cast<int32_t>(lanes[i]))
}
S3D_INLINE f32x16 to_float(i32x16 a) {
  float lanes[16];
  for (int i = 0; i < 16; i++) lanes[i] = static_cast<float>(a.v[i]);
  return load(lanes);
}
S3D_INLINE f32x16 gather(const float* p, i32x16 at) {
  float lanes[16];
  for (int i = 0; i < 16; i++) lanes[i] = p[at.v[i]];
  return load(lanes);
}
S3D_INLINE i32x16 gather(const int32_t* p, i32x16 at) { S3D_EACH_INT(i32x16, r.v[i] = p[at.v[i]]) }
#undef S3D_EACH_INT

#endif

S3D_INLINE void store(int32_t* p, i32x16 a) { std::memcpy(p, &a.v, sizeof(a.v)); }
S3D_INLINE i32x16 load(const int32_t* p) {
  i32x16 r;
  std::memcpy(&r.v, p, sizeof(r.v));
  return r;
}

// The numbers at sixteen places, and those behind them: by loads of both at once, several times as fast as gathers.
S3D_INLINE void gather_pairs(const float* p, const int32_t* at, f32x16& first, f32x16& second) {
#if S3D_LEVEL == 1 || S3D_LEVEL == 2
  __m128 even[4], odd[4];
  for (int q = 0; q < 4; q++, at += 4) {
    const auto two = [&](int i) {
      const __m128d low = _mm_load_sd(reinterpret_cast<const double*>(p + at[i]));
      return _mm_castpd_ps(_mm_loadh_pd(low, reinterpret_cast<const double*>(p + at[i + 1])));
    };
    const __m128 a = two(0), b = two(2);
    even[q] = _mm_shuffle_ps(a, b, 0x88), odd[q] = _mm_shuffle_ps(a, b, 0xdd);
  }
#define S3D_JOIN8(v, i) _mm256_insertf128_ps(_mm256_castps128_ps256(v[i]), v[i + 1], 1)
#if S3D_LEVEL == 2
#define S3D_JOIN16(v) _mm512_insertf32x8(_mm512_castps256_ps512(S3D_JOIN8(v, 0)), S3D_JOIN8(v, 2), 1)
  first.v = S3D_JOIN16(even), second.v = S3D_JOIN16(odd);
#undef S3D_JOIN16
#else
  first = {S3D_JOIN8(even, 0), S3D_JOIN8(even, 2)}, second = {S3D_JOIN8(odd, 0), S3D_JOIN8(odd, 2)};
#endif
#undef S3D_JOIN8
#else
  float a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = p[at[i]], b[i] = p[at[i] + 1];
  first = load(a), second = load(b);
#endif
}

}  // namespace S3D_NS
}  // namespace scene3d
