// The field kernels of one instruction set and their table. Included once by each field_kernels_<level>.cpp.
#include "cpu/field_factors.inl"
#include "cpu/field_rays.inl"
#include "cpu/field_bricks.inl"
#include "cpu/field_decoder.inl"
#include "cpu/field_adam.inl"

#define S3D_JOIN_(a, b) a##b
#define S3D_JOIN(a, b) S3D_JOIN_(a, b)

namespace scene3d {
namespace S3D_NS {

template <class T>
constexpr FieldTable<T> field_table_of() {
  return {forward_ray<T>, backward_ray<T>, color_rows<T>, scatter<T>,         hits<T>,
          density_at<T>,  features_at<T>,  decode<T>,     decode_backward<T>, field_adam_rows<T>};
}

}  // namespace S3D_NS

const FieldKernels& S3D_JOIN(S3D_NS, _field_kernels)() {
#if S3D_LEVEL == 0
  static constexpr FieldKernels table = {S3D_NS::field_table_of<float>(), S3D_NS::field_table_of<double>(), S3D_NS::brick_ray};
#else
  static constexpr FieldKernels table = {S3D_NS::field_table_of<float>(), {}, S3D_NS::brick_ray};
#endif
  return table;
}

}  // namespace scene3d
