// Triangle meshes against pixels, points and depth images.
#pragma once
#include <cstdint>

namespace scene3d {

// A pinhole view. cam_from_world is rigid, row-major [4, 4]; pixel (i, j) has
// its centre at (j+0.5, i+0.5).
struct MeshView {
  const double* cam_from_world;
  double fx, fy, cx, cy;
  int64_t width, height;
};

// The nearest triangle behind every pixel centre: z [height, width] (0 = none),
// face (-1 = none) and the perspective- correct barycentric weights of its
// first two corners [height, width, 2]. Both sides of a triangle are seen.
void rasterize_mesh(const float* vertices, int64_t n_vertices, const int64_t* faces, int64_t n_faces,
                    const MeshView& view, double near, float* depth, int32_t* face, float* weights);

// For every query the nearest point of the mesh: distance, face and the
// barycentric weights of its corners [n, 3]. Of faces at equal distance the
// first one.
void closest_on_mesh(const float* vertices, const int64_t* faces, int64_t n_faces, const float* queries,
                     int64_t n_queries, float* distances, int64_t* face, float* weights);

// One depth image averaged into blocks of 8x8x8 truncated signed distances
// (positive = seen through). Voxel (x, y, z) of a block has its centre at
// origin + (8 * block + (x, y, z)) * voxel_size; x runs fastest.
struct TsdfGrid {
  const int32_t* blocks;  // [n_blocks, 3]
  int64_t n_blocks;
  double origin[3], voxel_size, truncation;
  float* distance;  // in truncations, [n_blocks, 512]
  float* weight;    // [n_blocks, 512]
  float* near;      // the part of it that ends within kNearVoxels of the voxel [n_blocks, 512]
};
// `clear`: up to which depth every pixel surely shows free space, [height, width].
void integrate_depth(const TsdfGrid& grid, const MeshView& view, const float* depth, const float* clear,
                     const float* pixel_weight);

// Asks another view about every known pixel of a depth image: it agrees where
// it sees a surface there, to within a share `tolerance` of the depth, and
// objects where it sees through that place. Adds 1 to agree or object [height,
// width].
void ask_view(const MeshView& view, const float* depth, const MeshView& other, const float* other_depth,
              float tolerance, int32_t* agree, int32_t* object);

// Adds the colour of a picture [height, width, 3] to every point that the view
// sees, weighted by facing^power and by resolution squared: total [n, 3] and
// weight [n] grow. depth is that of the surface itself, and hides points;
// pixels that are mixed may show two surfaces and count little.
void blend_picture(const float* points, const float* normals, int64_t n_points, const MeshView& view,
                   const float* depth, const uint8_t* mixed, const uint8_t* picture, float min_facing,
                   float facing_power, float* total, float* weight);

// Adds 1 to the count of every point that the view sees.
void count_views(const float* points, int64_t n_points, const MeshView& view, const float* depth, int32_t* count);

}  // namespace scene3d
