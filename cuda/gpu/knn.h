// Nearest neighbours: points in the order of a space-filling curve, a tree of boxes over them, one thread a query.
#pragma once
#include "gpu/raster.h"

namespace scene3d {
namespace gpu {

constexpr int kMaxNeighbors = 32;

// The k nearest points of every query, nearest first, equal distances by index; infinity and -1 where there are fewer.
// low: least coordinates of the points; inv_size: 1 / (greatest - least) over the axes together, 0 for points in one place.
void nearest_points(const float* points, int64_t n_points, const float* queries, int64_t n_queries, int k, const float* low,
                    float inv_size, float* distances, int64_t* indices, const Memory& memory, Stream stream);

}  // namespace gpu
}  // namespace scene3d
