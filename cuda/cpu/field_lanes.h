// Sixteen lanes of float (SIMD) or of double (plain loops, for checks of gradients): one kernel source serves both.
#pragma once
#include <utility>

#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "math/field.h"

namespace scene3d {
namespace S3D_NS {

template <class T>
struct LanesOf {
  using type = f32x16;
};

#if S3D_LEVEL == 0
struct f64x16 {
  double v[16];
  f64x16() = default;
  f64x16(double x) {
    for (double& lane : v) lane = x;
  }
};
struct mask64x16 {
  bool m[16];
};

template <>
struct LanesOf<double> {
  using type = f64x16;
};

#define S3D_EACH64(result, expression)      \
  result r;                                 \
  for (int i = 0; i < 16; i++) expression;  \
  return r;
S3D_INLINE f64x16 load(const double* p) { S3D_EACH64(f64x16, r.v[i] = p[i]) }
S3D_INLINE void store(double* p, f64x16 a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
S3D_INLINE f64x16 operator+(f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = a.v[i] + b.v[i]) }
S3D_INLINE f64x16 operator-(f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = a.v[i] - b.v[i]) }
S3D_INLINE f64x16 operator*(f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = a.v[i] * b.v[i]) }
S3D_INLINE f64x16 operator/(f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = a.v[i] / b.v[i]) }
S3D_INLINE f64x16 fma(f64x16 a, f64x16 b, f64x16 c) { S3D_EACH64(f64x16, r.v[i] = a.v[i] * b.v[i] + c.v[i]) }
S3D_INLINE f64x16 max(f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
S3D_INLINE f64x16 abs(f64x16 a) { S3D_EACH64(f64x16, r.v[i] = std::fabs(a.v[i])) }
S3D_INLINE f64x16 sqrt(f64x16 a) { S3D_EACH64(f64x16, r.v[i] = std::sqrt(a.v[i])) }
S3D_INLINE f64x16 exp(f64x16 a) { S3D_EACH64(f64x16, r.v[i] = std::exp(a.v[i])) }
S3D_INLINE f64x16 log2(f64x16 a) { S3D_EACH64(f64x16, r.v[i] = std::log2(a.v[i])) }
S3D_INLINE mask64x16 operator<(f64x16 a, f64x16 b) { S3D_EACH64(mask64x16, r.m[i] = a.v[i] < b.v[i]) }
S3D_INLINE f64x16 choose(mask64x16 m, f64x16 a, f64x16 b) { S3D_EACH64(f64x16, r.v[i] = m.m[i] ? a.v[i] : b.v[i]) }
S3D_INLINE void sincos(f64x16 x, f64x16& s, f64x16& c) {
  for (int i = 0; i < 16; i++) s.v[i] = std::sin(x.v[i]), c.v[i] = std::cos(x.v[i]);
}
S3D_INLINE f64x16 sine(f64x16 x) { S3D_EACH64(f64x16, r.v[i] = std::sin(x.v[i])) }
S3D_INLINE double lane_sum(f64x16 a) {
  for (int k = 8; k > 0; k /= 2)
    for (int i = 0; i < k; i++) a.v[i] += a.v[i + k];
  return a.v[0];
}
S3D_INLINE void transpose(f64x16 (&r)[16]) {
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < i; k++) std::swap(r[i].v[k], r[k].v[i]);
}
S3D_INLINE f64x16 lane_sums(f64x16 (&rows)[16]) { S3D_EACH64(f64x16, r.v[i] = lane_sum(rows[i])) }
#undef S3D_EACH64
#endif

// Lane i: the sum of the lanes of rows[i].
S3D_INLINE f32x16 lane_sums(f32x16 (&rows)[16]) {
  transpose(rows);
  for (int k = 8; k > 0; k /= 2)
    for (int i = 0; i < k; i++) rows[i] = rows[i] + rows[i + k];
  return rows[0];
}

// Sine and cosine: reduced to [-pi/4, pi/4] around the nearest multiple q of pi/2, then minimax polynomials. Errors below
// 2e-7 for |x| < 1000.
S3D_INLINE void sincos(f32x16 x, f32x16& s, f32x16& c) {
  const f32x16 q = floor(fma(x, 0.636619772f, 0.5f));
  f32x16 r = fnma(q, 1.5703125f, x);
  r = fnma(q, 4.83751297e-4f, r);
  r = fnma(q, 7.54978995e-8f, r);
  const f32x16 r2 = r * r;
  f32x16 sine = fma(f32x16(-1.9515295891e-4f), r2, 8.3321608736e-3f);
  sine = fma(sine, r2, -1.6666654611e-1f);
  sine = fma(sine * r2, r, r);
  f32x16 cosine = fma(f32x16(2.443315711809948e-5f), r2, -1.388731625493765e-3f);
  cosine = fma(cosine, r2, 4.166664568298827e-2f);
  cosine = fma(cosine * r2, r2, fnma(f32x16(0.5f), r2, 1.f));
  const f32x16 quadrant = fnma(f32x16(4.f), floor(q * f32x16(0.25f)), q);  // 0, 1, 2 or 3
  const f32x16 parity = fnma(f32x16(2.f), floor(quadrant * f32x16(0.5f)), quadrant);
  const mask16 is_even = parity < f32x16(0.5f);
  const f32x16 a = select(is_even, sine, cosine), b = select(is_even, cosine, sine);
  s = select(quadrant < f32x16(1.5f), a, -a);
  const f32x16 from_middle = abs(quadrant - f32x16(1.5f));  // cosine is negative in quadrants 1 and 2
  c = select(from_middle < f32x16(1.f), -b, b);
}

// Sine alone: reduced to [-pi/2, pi/2] around the nearest multiple q of pi, whose parity is the sign; then its series to
// the ninth power with minimax coefficients. Errors below 5e-7 for |x| < 1000.
S3D_INLINE f32x16 sine(f32x16 x) {
  const f32x16 q = floor(fma(x, 0.318309886f, 0.5f));
  f32x16 r = fnma(q, 3.140625f, x);
  r = fnma(q, 9.67502594e-4f, r);
  r = fnma(q, 1.50995799e-7f, r);
  const f32x16 r2 = r * r;
  f32x16 p = fma(f32x16(2.6083159809786593541503e-6f), r2, -1.981069071916863322258e-4f);
  p = fma(p, r2, 8.33307858556509017944336e-3f);
  p = fma(p, r2, -1.66666597127914428710938e-1f);
  p = fma(p * r2, r, r);
  const f32x16 half = q * f32x16(0.5f);
  return select(half - floor(half) < f32x16(0.25f), p, -p);
}

}  // namespace S3D_NS
}  // namespace scene3d
