// Samples of a ray at fixed steps in occupied cells.
#pragma once
#include <cstdint>

#include "math/field.h"

// Members that kernels call: never a shared symbol, which one instruction set would provide for all.
#if defined(__CUDACC__)
#define S3D_WALK_MEMBER __host__ __device__ __forceinline__
#else
#define S3D_WALK_MEMBER __attribute__((always_inline)) inline
#endif

namespace scene3d {

constexpr int kMaxRaySamples = 8192;

// Bits of cells: words of 4x4x4 cells, and above them words of 4x4x4 words; x runs fastest. Sizes are of the cells.
struct OccupancyBits {
  const uint64_t* words = nullptr;  // nullptr: everything is occupied
  const uint64_t* coarse = nullptr;
  int n[3] = {0, 0, 0};
};

template <class T>
struct FieldRay {
  T origin[3], direction[3];  // direction of length 1
  T jitter;                   // place of the sample within its step, 0 to 1
  T from = 0, until = T(1e30);  // where occupied cells are known to lie: samples elsewhere are not looked at
};

// A ray on its way: sample k lies at t0 + (k + jitter) step. Empty cells are left by their far side, so that what is
// skipped does not move the other samples (Amanatides and Woo 1987, over three sizes of cells). T is a number.
template <class T>
struct Walk {
  T t0, step, jitter, jitter_beyond;
  int64_t k, n;
  T cell0[3], cell_step[3], inverse[3];  // position in cells of occupancy = cell0 + cell_step t

  // F has low, high, near, far, step and occupancy.
  template <class F>
  S3D_WALK_MEMBER Walk(const F& field, const FieldRay<T>& ray) : Walk(field, ray, field.near, field.far) {}

  template <class F>
  S3D_WALK_MEMBER Walk(const F& field, const FieldRay<T>& ray, T near, T far) : step(field.step), jitter(ray.jitter), k(0) {
    T t1;
    ray_box(ray.origin, ray.direction, field.low, field.high, near, far, &t0, &t1);
    const T last = (t1 - t0) / step - jitter;
    n = last >= 0 ? static_cast<int64_t>(last) + 1 : 0;
    // Where samples go on at the same distances on another piece of the ray.
    jitter_beyond = t1 > t0 ? static_cast<T>(n) - last : jitter;
    // Samples keep their places, whatever is left out.
    if (ray.from > t0) k = static_cast<int64_t>((ray.from - t0) / step - jitter);
    if (ray.until < t1) n = ray.until < t0 ? 0 : static_cast<int64_t>((ray.until - t0) / step - jitter) + 1;
    if (k < 0) k = 0;
    if (n > kMaxRaySamples) n = kMaxRaySamples;
    for (int a = 0; a < 3; a++) {
      const T scale = static_cast<T>(field.occupancy.n[a]) / (field.high[a] - field.low[a]);
      cell0[a] = (ray.origin[a] - field.low[a]) * scale, cell_step[a] = ray.direction[a] * scale;
      inverse[a] = T(1) / cell_step[a];
    }
  }

  S3D_WALK_MEMBER T at(int64_t index) const { return t0 + (static_cast<T>(index) + jitter) * step; }

  // Moves to the next sample in an occupied cell and past it; false where the ray ends.
  S3D_WALK_MEMBER bool next(const OccupancyBits& bits, T* t) {
    if (!bits.words) {
      *t = at(k);
      return k++ < n;
    }
    while (k < n) {
      *t = at(k);
      int cell[3];
      for (int a = 0; a < 3; a++) {
        const int i = static_cast<int>(cell0[a] + cell_step[a] * *t);
        cell[a] = i < 0 ? 0 : (i >= bits.n[a] ? bits.n[a] - 1 : i);
      }
      const int size = empty_size(bits, cell);
      if (size == 0) {
        k++;
        return true;
      }
      const int64_t beyond = first_beyond(cell, size);
      k = beyond > k ? beyond : k + 1;
    }
    return false;
  }

  // 0 in an occupied cell, else the size of the empty cube of cells around it: 1, 4 or 16.
  S3D_WALK_MEMBER static int empty_size(const OccupancyBits& bits, const int* cell) {
    const int64_t nx = (bits.n[0] + 3) / 4, ny = (bits.n[1] + 3) / 4;
    const int x = cell[0] / 4, y = cell[1] / 4, z = cell[2] / 4;
    const uint64_t word = bits.words[(z * ny + y) * nx + x];
    if (word >> ((cell[2] % 4) * 16 + (cell[1] % 4) * 4 + cell[0] % 4) & 1) return 0;
    if (word) return 1;
    const int64_t mx = (nx + 3) / 4, my = (ny + 3) / 4;
    return bits.coarse[((z / 4) * my + y / 4) * mx + x / 4] ? 4 : 16;
  }

  // Number of the first sample behind the cube.
  S3D_WALK_MEMBER int64_t first_beyond(const int* cell, int size) const {
    T leaves = at(n);
    for (int a = 0; a < 3; a++) {
      if (cell_step[a] == 0) continue;
      const int low = cell[a] / size * size;
      const T border = ((cell_step[a] > 0 ? low + size : low) - cell0[a]) * inverse[a];
      leaves = border < leaves ? border : leaves;
    }
    const T steps = (leaves - t0) / step - jitter;
    return steps < T(0) ? 0 : static_cast<int64_t>(steps) + 1;
  }
};

}  // namespace scene3d
