// Bricks: density at the nodes of the voxels that hold some, baked from the factors, for images.
//
// Between two nodes every product of planes and lines, or of the vectors of a leaf, is linear along each axis, and so is
// their sum: within a voxel the feature of density is the trilinear mix of its values at the eight corners. Looking
// these up gives the same density as sixteen ranks and more of factors do, and the greatest of them bounds it from
// above: voxels below a threshold are never looked at.
#pragma once
#include <cstdint>

#include "cpu/field.h"

namespace scene3d {

constexpr int kBrickNodes = 5, kBrickSize = 128;  // 5x5x5 nodes of 4x4x4 voxels, x fastest, padded

// Numbers that brick_ray needs as scratch.
constexpr int kBrickScratch = 2 * (kMaxRaySamples + kLanes);

struct FieldBricks {
  OccupancyBits voxels;            // that may hold something; a word of bits is a brick
  const uint8_t* free = nullptr;   // of each word: how many bricks away, in all directions, the next that is not empty is
  const int32_t* table = nullptr;  // of each word twice its brick, and 1 where some of it is not occupied; -1: none
  const float* values = nullptr;   // [n_bricks, kBrickSize]: feature and density_shift
};

}  // namespace scene3d
