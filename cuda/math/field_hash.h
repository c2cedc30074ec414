// A hash grid over a box: features at the corners of ever finer cells, in tables that are shorter than the corners are
// many. Two corners may share a row; a small network behind tells them apart by the other levels (Müller et al. 2022).
#pragma once
#include <cstdint>

#include "math/field.h"

namespace scene3d {

constexpr int kMaxHashLevels = 16;
constexpr int kHashFeatures = 4;  // numbers of a row

struct HashGrid {
  int n = 0;                                          // levels
  int cells[kMaxHashLevels][3] = {};                  // along x y z
  int64_t first[kMaxHashLevels] = {}, rows[kMaxHashLevels] = {};  // of the one table of all levels
};

// Corners of a level, all of them.
S3D_HD int64_t hash_corners(const int* cells) {
  return static_cast<int64_t>(cells[0] + 1) * (cells[1] + 1) * (cells[2] + 1);
}

// Rows of the eight corners of a cell, x fastest: their own where there are enough, else by hash; then the number of
// rows is a power of two.
S3D_HD void hash_rows(const HashGrid& grid, int level, const int* corner, uint32_t* rows) {
  const int* const cells = grid.cells[level];
  const bool is_hashed = hash_corners(cells) > grid.rows[level];
  const uint32_t across = is_hashed ? 2654435761u : static_cast<uint32_t>(cells[0] + 1);
  const uint32_t beyond = is_hashed ? 805459861u : across * static_cast<uint32_t>(cells[1] + 1);
  const uint32_t first = static_cast<uint32_t>(grid.first[level]), last = static_cast<uint32_t>(grid.rows[level] - 1);
  const uint32_t x = static_cast<uint32_t>(corner[0]), y = across * static_cast<uint32_t>(corner[1]);
  const uint32_t z = beyond * static_cast<uint32_t>(corner[2]), y1 = y + across, z1 = z + beyond;
  if (is_hashed) {
    const uint32_t yz[4] = {y ^ z, y1 ^ z, y ^ z1, y1 ^ z1};
    rows[0] = first + ((x ^ yz[0]) & last), rows[1] = first + (((x + 1) ^ yz[0]) & last);
    rows[2] = first + ((x ^ yz[1]) & last), rows[3] = first + (((x + 1) ^ yz[1]) & last);
    rows[4] = first + ((x ^ yz[2]) & last), rows[5] = first + (((x + 1) ^ yz[2]) & last);
    rows[6] = first + ((x ^ yz[3]) & last), rows[7] = first + (((x + 1) ^ yz[3]) & last);
    return;
  }
  rows[0] = first + x + y + z, rows[1] = rows[0] + 1;
  rows[2] = rows[0] + across, rows[3] = rows[2] + 1;
  rows[4] = rows[0] + beyond, rows[5] = rows[4] + 1;
  rows[6] = rows[4] + across, rows[7] = rows[6] + 1;
}

}  // namespace scene3d
