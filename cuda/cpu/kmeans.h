// Clustering: weighted Lloyd iterations, with a two-level search where there are many clusters, and optimal codebooks of
// numbers on a line.
#pragma once
#include <cstdint>

namespace scene3d {

constexpr int kCenterLanes = 16;

// Points [n_points, n_dims] against centers in blocks of 16, coordinate by coordinate: [n_blocks, n_dims, 16].
// Nearest = largest score x·c - |c|²/2; half_norms of missing centers are infinite.
struct NearestArgs {
  const float* points;
  int64_t n_points;
  int n_dims;
  const float* blocks;      // [n_blocks, n_dims, 16], n_blocks even
  const float* half_norms;  // [n_blocks, 16]
  int n_blocks;
  int32_t first;         // slot of the first center
  float* scores;         // [n_points], in and out: best so far
  int32_t* slots;        // [n_points], in and out: its slot
};

struct KMeansArgs {
  const float* points;   // [n_points, n_dims]
  const float* weights;  // [n_points], not negative
  int64_t n_points;
  int n_dims;
  int32_t n_clusters;  // at most n_points
  int n_iter;
  uint64_t seed;
  float* centers;   // [n_clusters, n_dims]
  int32_t* labels;  // [n_points]
};

void kmeans(const KMeansArgs& args);

// The n_entries intervals of values [n_values], ascending, that have the least sum of weights times squared distance to
// their means; means go to entries [n_entries]. n_entries <= n_values.
void optimal_codebook(const double* values, const double* weights, int64_t n_values, int n_entries, double* entries);

}  // namespace scene3d
