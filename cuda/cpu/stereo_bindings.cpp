// Conversions for stereo.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/offset_votes.h"
#include "cpu/plane_votes.h"
#include "cpu/stereo.h"

namespace scene3d {
namespace {

using Grey = Array<const uint8_t, nb::ndim<2>>;
using Matrix = Array<const double, nb::shape<4, 4>>;
using Intrinsics = Array<const double, nb::shape<3, 3>>;

// A photo, and the arrays that it points to.
struct PhotoArrays {
  Grey grey;
  Matrix cam_from_world;
  std::optional<Grey> shown;
  StereoPhoto photo;
};

PhotoArrays photo_of(const Grey& grey, const Intrinsics& K, const Matrix& cam_from_world,
                     const std::optional<Grey>& shown) {
  if (grey.shape(0) < 4 || grey.shape(1) < 4 || grey.shape(0) > 1 << 15 || grey.shape(1) > 1 << 15)
    throw nb::value_error("grey: expected 4 to 32768 pixels a side");
  if (shown && (shown->shape(0) != grey.shape(0) || shown->shape(1) != grey.shape(1)))
    throw nb::value_error("shown: expected the size of grey");
  const double* k = K.data();
  const StereoPhoto photo = {
      grey.data(), static_cast<int>(grey.shape(1)), static_cast<int>(grey.shape(0)), k[0], k[4], k[2],
      k[5],        cam_from_world.data(),           shown ? shown->data() : nullptr};
  return {grey, cam_from_world, shown, photo};
}

}  // namespace

void bind_stereo(nb::module_& m) {
  nb::class_<PhotoArrays>(m, "StereoPhoto")
      .def(
          "__init__",
          [](PhotoArrays* self, Grey grey, Intrinsics K, Matrix cam_from_world, std::optional<Grey> shown) {
            new (self) PhotoArrays(photo_of(grey, K, cam_from_world, shown));
          },
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert() = nb::none());
  m.def(
      "match_planes",
      [](const PhotoArrays& arrays, const std::vector<const PhotoArrays*>& others, int n_rounds, float spread,
         float tilt, uint32_t seed, Array<float, nb::shape<3, -1, -1>> planes, Array<float, nb::ndim<2>> costs) {
        const StereoPhoto& photo = arrays.photo;
        const size_t height = static_cast<size_t>(photo.height), width = static_cast<size_t>(photo.width);
        if (planes.shape(1) != height || planes.shape(2) != width || costs.shape(0) != height ||
            costs.shape(1) != width)
          throw nb::value_error("planes, costs: expected the size of the photo");
        if (others.size() > static_cast<size_t>(kMaxStereoOthers)) throw nb::value_error("others: expected at most 8");
        std::vector<StereoPhoto> all;
        for (const PhotoArrays* other : others) all.push_back(other->photo);
        nb::gil_scoped_release release;
        match_planes(photo, all.data(), static_cast<int>(all.size()), {n_rounds, spread, tilt, seed}, planes.data(),
                     costs.data());
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "vote_planes",
      [](const PhotoArrays& arrays, Array<const float, nb::ndim<2>> trust, int n_rounds, float apart,
         Array<float, nb::shape<3, -1, -1>> planes) {
        const StereoPhoto& photo = arrays.photo;
        const size_t height = static_cast<size_t>(photo.height), width = static_cast<size_t>(photo.width);
        if (planes.shape(1) != height || planes.shape(2) != width || trust.shape(0) != height ||
            trust.shape(1) != width)
          throw nb::value_error("trust, planes: expected the size of the photo");
        nb::gil_scoped_release release;
        vote_planes(photo, trust.data(), {n_rounds, apart}, planes.data());
      },
      nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert());
  m.def(
      "vote_offsets",
      [](const PhotoArrays& arrays, const std::vector<const PhotoArrays*>& others,
         const std::vector<Array<const float, nb::ndim<2>>>& nearness, int n_steps, float step,
         Array<const float, nb::shape<3, -1, -1>> planes, Array<float, nb::ndim<2>> offsets,
         Array<float, nb::ndim<2>> weights) {
        const StereoPhoto& photo = arrays.photo;
        const size_t height = static_cast<size_t>(photo.height), width = static_cast<size_t>(photo.width);
        if (planes.shape(1) != height || planes.shape(2) != width || offsets.shape(0) != height ||
            offsets.shape(1) != width || weights.shape(0) != height || weights.shape(1) != width)
          throw nb::value_error("planes, offsets, weights: expected the size of the photo");
        if (n_steps < 3 || n_steps > kMostOffsets || n_steps % 2 == 0)
          throw nb::value_error("n_steps: expected 3, 5, 7 or 9");
        if (nearness.size() != others.size()) throw nb::value_error("nearness: expected one image per other photo");
        std::vector<OffsetOther> all;
        for (size_t i = 0; i < others.size(); i++) {
          const StereoPhoto& other = others[i]->photo;
          if (nearness[i].shape(0) != static_cast<size_t>(other.height) ||
              nearness[i].shape(1) != static_cast<size_t>(other.width))
            throw nb::value_error("nearness: expected the size of its photo");
          all.push_back({other, nearness[i].data()});
        }
        nb::gil_scoped_release release;
        vote_offsets(photo, all.data(), static_cast<int>(all.size()), {n_steps, step}, planes.data(),
                     {offsets.data(), weights.data()});
      },
      nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert(),
      nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace scene3d
