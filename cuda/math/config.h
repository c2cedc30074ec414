// What the shared maths needs of its number type T: a scalar, or a pack of lanes. Code is written once, without branches
// on T: comparisons give a mask (bool for scalars), and choose() picks. A type with lanes brings its own choose, sqrt,
// exp, log2 and mask operators; the ones here are for scalars.
//
// Internal linkage throughout: files compiled for different instruction sets must never share a symbol.
#pragma once
#include <cmath>

#if defined(__CUDACC__)
#define S3D_HD static inline __host__ __device__
#define S3D_HD_MEMBER __host__ __device__
#else
#define S3D_HD static inline
#define S3D_HD_MEMBER
#endif

namespace scene3d {

using std::exp;
using std::log2;
using std::sqrt;

template <class T>
using MaskOf = decltype(T() < T());

S3D_HD float choose(bool mask, float a, float b) { return mask ? a : b; }
S3D_HD double choose(bool mask, double a, double b) { return mask ? a : b; }

template <class T>
S3D_HD MaskOf<T> is_finite(T x) {
  return x - x >= T(0);
}

}  // namespace scene3d
