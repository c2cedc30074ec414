// Leaves of a tri-vector field: which leaf a point lies in, where between its nodes, and with which weight.
//
// A level is a lattice of cubes over the box; some hold a leaf. Where the second level is shifted by half a cube, the two
// are a cover of one field: each has a weight that falls to 0 at the faces of its cubes, so that no seam shows but on
// the lines where faces of both lattices meet. Levels that are not shifted are added.
#pragma once
#include <cstdint>

#include "math/field.h"

namespace scene3d {

constexpr int kMaxLevels = 2;

struct LeafLevel {
  const int32_t* leaves = nullptr;  // number of the leaf in each cube, -1: none; x runs fastest
  int cells[3] = {0, 0, 0};
  int nodes = 0;                    // of each vector, at least 2; the first and the last lie on faces
  bool is_shifted = false;          // the box begins in the middle of the first cube
};

// Added to windows, so that their sum is never 0.
constexpr double kWindowFloor = 1e-3;

// Where a point lies along one axis of a level's lattice: in which cube, and where in it, 0 to 1. unit: 0 to 1 in the box.
template <class T>
S3D_HD Place<T> cube_of(const LeafLevel& level, int axis, T unit) {
  const T offset = level.is_shifted ? T(0.5) : T(0);
  const T at = unit * (static_cast<T>(level.cells[axis]) - 2 * offset) + offset;
  int i = static_cast<int>(at);
  i = i < 0 ? 0 : (i >= level.cells[axis] ? level.cells[axis] - 1 : i);
  return {i, at - static_cast<T>(i)};
}

// How much a leaf counts where levels are blended: 1 in its middle, almost 0 on its faces. along: 0 to 1 in the leaf.
template <class T>
S3D_HD T leaf_window(T along_x, T along_y, T along_z) {
  const T x = along_x < T(0.5) ? along_x : T(1) - along_x, y = along_y < T(0.5) ? along_y : T(1) - along_y;
  const T z = along_z < T(0.5) ? along_z : T(1) - along_z;
  T least = x < y ? x : y;
  least = least < z ? least : z;
  return (least > 0 ? 2 * least : T(0)) + T(kWindowFloor);
}

}  // namespace scene3d
