// Marks functions that compile for host and device. Internal linkage: files compiled for different instruction sets
// must never share a symbol.
#pragma once
#include <cmath>

#if defined(__CUDACC__)
#define S3D_HD static inline __host__ __device__
#else
#define S3D_HD static inline
#endif
