// Where a sample of a field lies.
#pragma once
#include <type_traits>

#include "gpu/field.h"

namespace scene3d {
namespace gpu {

// Where a sample lies: between nodes along each axis of a grid, or in the leaves of each level.
struct FieldCell {
  Place<float> axis[3];
};

struct LeafPlace {
  int leaf;
  int row[3];  // of the lower node in the vectors of all leaves
  float f[3], weight;
};

struct LeafCell {
  LeafPlace level[kMaxLevels];
};

template <FieldKind KIND>
using CellOf = std::conditional_t<KIND == FieldKind::trivec, LeafCell, FieldCell>;

// The weight is the window; 0 where no leaf is.
__device__ inline LeafPlace leaf_at(const LeafLevel& level, const float* unit) {
  LeafPlace place = {};
  Place<float> cube[3];
  for (int a = 0; a < 3; a++) cube[a] = cube_of(level, a, unit[a]);
  const int leaf = level.leaves[(cube[2].i * level.cells[1] + cube[1].i) * level.cells[0] + cube[0].i];
  if (leaf < 0) return place;
  place.leaf = leaf;
  for (int a = 0; a < 3; a++) {
    const Place<float> at = place_of(cube[a].f * static_cast<float>(level.nodes - 1), level.nodes);
    place.row[a] = leaf * level.nodes + at.i, place.f[a] = at.f;
  }
  place.weight = leaf_window(cube[0].f, cube[1].f, cube[2].f);
  return place;
}

template <FieldKind KIND>
__device__ inline CellOf<KIND> cell_at(const FieldArgs& field, const FieldRay<float>& ray, float t) {
  CellOf<KIND> cell;
  if constexpr (KIND != FieldKind::trivec) {
    for (int a = 0; a < 3; a++) {
      const float scale = static_cast<float>(field.n[a] - 1) / (field.high[a] - field.low[a]);
      cell.axis[a] = place_of((ray.origin[a] - field.low[a] + ray.direction[a] * t) * scale, field.n[a]);
    }
  } else {
    float unit[3];
    for (int a = 0; a < 3; a++) unit[a] = (ray.origin[a] - field.low[a] + ray.direction[a] * t) * (1.f / (field.high[a] - field.low[a]));
    cell.level[0] = leaf_at(field.levels[0], unit), cell.level[1] = {};
    if (field.n_modes == 2) cell.level[1] = leaf_at(field.levels[1], unit);
    float &first = cell.level[0].weight, &second = cell.level[1].weight;
    if (field.n_modes == 2 && field.levels[1].is_shifted) {  // two covers of one field
      const float sum = first + second, scale = sum > 0.f ? 1.f / sum : 0.f;
      first *= scale, second *= scale;
    } else {
      first = first > 0.f ? 1.f : 0.f, second = second > 0.f ? 1.f : 0.f;
    }
  }
  return cell;
}

__device__ inline FieldRay<float> load_ray(const FieldRays& rays, int64_t i) {
  FieldRay<float> ray;
  for (int a = 0; a < 3; a++) ray.origin[a] = rays.origins[3 * i + a], ray.direction[a] = rays.directions[3 * i + a];
  ray.jitter = rays.jitter ? rays.jitter[i] : 0.5f;
  return ray;
}

}  // namespace gpu
}  // namespace scene3d
