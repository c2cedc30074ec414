// Radial bases of a field: which of them reach the cell of a point, and how near the point is to one.
//
// phi = (1 - q)^2 / (1 + 4 q) with q = |U (x - c)|^2 below 1, else 0: the inverse quadratic (Chen et al. 2023, NeuRBF),
// brought to 0 at the edge of an ellipsoid. Places are 0 to 1 in the box.
#pragma once
#include <cstdint>

#include "math/field.h"

namespace scene3d {

constexpr int kBasisNumbers = 9;    // of each: centre, and the upper triangle of U row by row
constexpr int kMaxListed = 64;      // bases that reach one cell, at most
constexpr double kBasisSteepness = 4;

template <class T>
struct BasisGrid {
  const T* bases = nullptr;         // [n, kBasisNumbers]
  const int32_t* starts = nullptr;  // first item of each cell, x fastest, and the end of the last
  const int32_t* items = nullptr;   // bases that reach a cell
  const T* waves[2] = {nullptr, nullptr};  // frequency of each channel of the two sets of factors
  int cells[3] = {0, 0, 0};
  int64_t n = 0;
  bool has_waves = false;           // without, each channel is phi itself
};

// The cell of a place. T is a number.
template <class T>
S3D_HD int64_t basis_cell(const BasisGrid<T>& grid, const T* unit) {
  int64_t cell = 0;
  for (int a = 2; a >= 0; a--) {
    int i = static_cast<int>(unit[a] * static_cast<T>(grid.cells[a]));
    i = i < 0 ? 0 : (i >= grid.cells[a] ? grid.cells[a] - 1 : i);
    cell = cell * grid.cells[a] + i;
  }
  return cell;
}

// V is a number or a pack of lanes: places x y z; basis: its numbers.
template <class V, class T>
S3D_HD V basis_value(const T* basis, V x, V y, V z) {
  const T* const u = basis + 3;
  const V dx = x - V(basis[0]), dy = y - V(basis[1]), dz = z - V(basis[2]);
  const V a = V(u[0]) * dx + V(u[1]) * dy + V(u[2]) * dz, b = V(u[3]) * dy + V(u[4]) * dz, c = V(u[5]) * dz;
  const V q = a * a + b * b + c * c, rest = V(T(1)) - q;
  return choose(q < V(T(1)), rest * rest / (V(T(1)) + V(T(kBasisSteepness)) * q), V(T(0)));
}

}  // namespace scene3d
