// Conversions for meshes. Indices are checked here: native loops trust them.
#include "cpu/bindings.h"
#include "cpu/mesh.h"

namespace scene3d {
namespace {

using Vertices = Array<const float, nb::shape<-1, 3>>;
using Faces = Array<const int64_t, nb::shape<-1, 3>>;
using Matrix = Array<const double, nb::shape<4, 4>>;
using Intrinsics = Array<const double, nb::shape<3, 3>>;
using Image = Array<const float, nb::ndim<2>>;

void check_faces(const Vertices& vertices, const Faces& faces) {
  const int64_t n = static_cast<int64_t>(vertices.shape(0));
  const int64_t* index = faces.data();
  for (size_t i = 0; i < 3 * faces.shape(0); i++)
    if (index[i] < 0 || index[i] >= n) throw nb::value_error("faces: an index is out of the range of vertices");
}

MeshView view_of(const Matrix& cam_from_world, const Intrinsics& K, size_t width, size_t height) {
  const double* k = K.data();
  return {cam_from_world.data(), k[0], k[4], k[2], k[5], static_cast<int64_t>(width), static_cast<int64_t>(height)};
}

}  // namespace

void bind_mesh(nb::module_& m) {
  m.def(
      "rasterize_mesh",
      [](Vertices vertices, Faces faces, Matrix cam_from_world, Intrinsics K, double near,
         Array<float, nb::ndim<2>> depth, Array<int32_t, nb::ndim<2>> face,
         Array<float, nb::shape<-1, -1, 2>> weights) {
        check_faces(vertices, faces);
        const size_t height = depth.shape(0), width = depth.shape(1);
        if (face.shape(0) != height || face.shape(1) != width || weights.shape(0) != height ||
            weights.shape(1) != width)
          throw nb::value_error("depth, face, weights: expected one size");
        const MeshView view = view_of(cam_from_world, K, width, height);
        nb::gil_scoped_release release;
        rasterize_mesh(vertices.data(), static_cast<int64_t>(vertices.shape(0)), faces.data(),
                       static_cast<int64_t>(faces.shape(0)), view, near, depth.data(), face.data(), weights.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(),
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "closest_on_mesh",
      [](Vertices vertices, Faces faces, Vertices queries, Array<float, nb::ndim<1>> distances,
         Array<int64_t, nb::ndim<1>> face, Array<float, nb::shape<-1, 3>> weights) {
        check_faces(vertices, faces);
        const size_t n = queries.shape(0);
        if (faces.shape(0) == 0) throw nb::value_error("faces: expected at least one");
        if (distances.shape(0) != n || face.shape(0) != n || weights.shape(0) != n)
          throw nb::value_error("distances, face, weights: expected one row per query");
        nb::gil_scoped_release release;
        closest_on_mesh(vertices.data(), faces.data(), static_cast<int64_t>(faces.shape(0)), queries.data(),
                        static_cast<int64_t>(n), distances.data(), face.data(), weights.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert());
  m.def(
      "integrate_depth",
      [](Array<const int32_t, nb::shape<-1, 3>> blocks, Array<const double, nb::shape<3>> origin, double voxel_size,
         double truncation, Matrix cam_from_world, Intrinsics K, Image depth, Image clear, Image pixel_weight,
         Array<float, nb::shape<-1, 512>> distance, Array<float, nb::shape<-1, 512>> weight,
         Array<float, nb::shape<-1, 512>> near) {
        const size_t n = blocks.shape(0), height = depth.shape(0), width = depth.shape(1);
        if (distance.shape(0) != n || weight.shape(0) != n || near.shape(0) != n)
          throw nb::value_error("distance, weight, near: expected one row per block");
        if (pixel_weight.shape(0) != height || pixel_weight.shape(1) != width)
          throw nb::value_error("pixel_weight: expected the size of depth");
        if (clear.shape(0) != height || clear.shape(1) != width)
          throw nb::value_error("clear: expected the size of depth");
        const double* o = origin.data();
        const TsdfGrid grid = {blocks.data(), static_cast<int64_t>(n), {o[0], o[1], o[2]}, voxel_size,
                               truncation,    distance.data(),         weight.data(),      near.data()};
        const MeshView view = view_of(cam_from_world, K, width, height);
        nb::gil_scoped_release release;
        integrate_depth(grid, view, depth.data(), clear.data(), pixel_weight.data());
      },
      nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert());
  m.def(
      "ask_view",
      [](Matrix cam_from_world, Intrinsics K, Image depth, Matrix other_from_world, Intrinsics other_K,
         Image other_depth, float tolerance, Array<int32_t, nb::ndim<2>> agree, Array<int32_t, nb::ndim<2>> object) {
        const size_t height = depth.shape(0), width = depth.shape(1);
        if (agree.shape(0) != height || agree.shape(1) != width || object.shape(0) != height ||
            object.shape(1) != width)
          throw nb::value_error("agree, object: expected the size of depth");
        const MeshView view = view_of(cam_from_world, K, width, height);
        const MeshView other = view_of(other_from_world, other_K, other_depth.shape(1), other_depth.shape(0));
        nb::gil_scoped_release release;
        ask_view(view, depth.data(), other, other_depth.data(), tolerance, agree.data(), object.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "blend_picture",
      [](Vertices points, Vertices normals, Matrix cam_from_world, Intrinsics K, Image depth,
         Array<const uint8_t, nb::ndim<2>> mixed, Array<const uint8_t, nb::shape<-1, -1, 3>> picture, float min_facing,
         float facing_power, Array<float, nb::shape<-1, 3>> total, Array<float, nb::ndim<1>> weight) {
        const size_t n = points.shape(0), height = depth.shape(0), width = depth.shape(1);
        if (mixed.shape(0) != height || mixed.shape(1) != width)
          throw nb::value_error("mixed: expected the size of depth");
        if (normals.shape(0) != n || total.shape(0) != n || weight.shape(0) != n)
          throw nb::value_error("normals, total, weight: expected one row per point");
        if (picture.shape(0) != height || picture.shape(1) != width || height == 0 || width == 0)
          throw nb::value_error("picture: expected the size of depth");
        const MeshView view = view_of(cam_from_world, K, width, height);
        nb::gil_scoped_release release;
        blend_picture(points.data(), normals.data(), static_cast<int64_t>(n), view, depth.data(), mixed.data(),
                      picture.data(), min_facing, facing_power, total.data(), weight.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "count_views",
      [](Vertices points, Matrix cam_from_world, Intrinsics K, Image depth, Array<int32_t, nb::ndim<1>> count) {
        if (count.shape(0) != points.shape(0)) throw nb::value_error("count: expected one per point");
        if (depth.shape(0) == 0 || depth.shape(1) == 0) throw nb::value_error("depth: expected at least one pixel");
        const MeshView view = view_of(cam_from_world, K, depth.shape(1), depth.shape(0));
        nb::gil_scoped_release release;
        count_views(points.data(), static_cast<int64_t>(points.shape(0)), view, depth.data(), count.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
      nb::arg().noconvert());
}

}  // namespace scene3d
