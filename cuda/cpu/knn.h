// Exact nearest neighbours in space.
#pragma once
#include <cstdint>

namespace scene3d {

// For every query [n_queries, 3] the k nearest of points [n_points, 3], nearest first, equal distances by index.
// Rows are filled up with infinity and -1 where there are fewer points than k.
void nearest_points(const float* points, int64_t n_points, const float* queries, int64_t n_queries, int k,
                    float* distances, int64_t* indices);

}  // namespace scene3d
