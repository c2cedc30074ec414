// What the kernels of the grid sorter take: rows of feature vectors padded to whole vectors of 16 lanes.
#pragma once
#include <cstdint>

namespace scene3d {

// Running means along a line of cells. Each step along the line covers n_vectors vectors of 16 lanes side by side.
struct GridLine {
  const float* input;
  float* output;
  int64_t n_steps;
  int64_t stride;  // floats from one step to the next
  int n_vectors;   // at most kMaxLineVectors
  int64_t radius;  // steps to either side; cut at both ends of the line
};
constexpr int kMaxLineVectors = 16;

// Groups of four cells; each group takes the order of its items that is nearest to the four targets.
struct GridGroups {
  float* features;       // [cells, n_vectors * 16]
  const float* targets;  // [cells, n_vectors * 16]
  int32_t* items;        // which item lies in a cell
  const int32_t* cells;  // [n_groups, 4]
  int64_t n_groups;
  int n_vectors;
};

}  // namespace scene3d
