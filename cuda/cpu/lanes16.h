// Eight lanes of 16 bits: what SSE2 and NEON, the least that x86-64 and Arm offer, do at once. Whole numbers only, so
// that every machine has the same results.
#pragma once
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace scene3d {

typedef int16_t i16x8 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

struct Pair32 {
  i32x4 low, high;  // lanes 0..3 and 4..7
};

// The upper halves of products.
inline u16x8 multiply_high(u16x8 a, u16x8 b) {
#if defined(__SSE2__)
  return (u16x8)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
  u16x8 out;
  for (int i = 0; i < 8; i++) out[i] = static_cast<uint16_t>(static_cast<uint32_t>(a[i]) * b[i] >> 16);
  return out;
#endif
}

inline i16x8 multiply_high(i16x8 a, i16x8 b) {
#if defined(__SSE2__)
  return (i16x8)_mm_mulhi_epi16((__m128i)a, (__m128i)b);
#else
  i16x8 out;
  for (int i = 0; i < 8; i++) out[i] = static_cast<int16_t>(a[i] * b[i] >> 16);
  return out;
#endif
}

// Whole products.
inline Pair32 multiply(i16x8 a, i16x8 b) {
#if defined(__SSE2__)
  const __m128i low = _mm_mullo_epi16((__m128i)a, (__m128i)b), high = _mm_mulhi_epi16((__m128i)a, (__m128i)b);
  return {(i32x4)_mm_unpacklo_epi16(low, high), (i32x4)_mm_unpackhi_epi16(low, high)};
#else
  Pair32 out;
  for (int i = 0; i < 4; i++) out.low[i] = a[i] * b[i], out.high[i] = a[i + 4] * b[i + 4];
  return out;
#endif
}

// Cut to 16 bits, to the nearest where out of range.
inline i16x8 narrowed(i32x4 low, i32x4 high) {
#if defined(__SSE2__)
  return (i16x8)_mm_packs_epi32((__m128i)low, (__m128i)high);
#else
  i16x8 out;
  for (int i = 0; i < 8; i++) {
    const int32_t value = i < 4 ? low[i] : high[i - 4];
    out[i] = static_cast<int16_t>(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
  }
  return out;
#endif
}

// log2 of 1..65535, of 2048, within 1/400: whole numbers become floats without rounding, whose bits are nearly that.
inline i16x8 log2_of(u16x8 value) {
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  const __m128i low = _mm_castps_si128(_mm_cvtepi32_ps(_mm_unpacklo_epi16((__m128i)value, zero)));
  const __m128i high = _mm_castps_si128(_mm_cvtepi32_ps(_mm_unpackhi_epi16((__m128i)value, zero)));
  const __m128i bias = _mm_set1_epi32(127 << 11);
  const i16x8 linear = (i16x8)_mm_packs_epi32(_mm_sub_epi32(_mm_srli_epi32(low, 12), bias), _mm_sub_epi32(_mm_srli_epi32(high, 12), bias));
#else
  i16x8 linear;
  for (int i = 0; i < 8; i++) {
    int top = 0;
    while (value[i] >> (top + 1)) top++;
    linear[i] = static_cast<int16_t>((top << 11) + ((value[i] << 16 >> top) - 65536 >> 5));
  }
#endif
  // log2(1 + m) is about m + 0.344 m (1 - m); m of 2048.
  const i16x8 part = linear & 2047;
  return linear + multiply_high((i16x8)(part << 3), (i16x8)((2048 - part) * 11 >> 1)) ;
}

}  // namespace scene3d
