#include "cpu/loss.h"

#include <nanobind/stl/optional.h>

#include <optional>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

int divide_up(int a, int b) { return (a + b - 1) / b; }

// Sums by row, then over rows: the same for any number of threads.
double sum_weights(const LossInput& in) {
  if (!in.weight) return static_cast<double>(in.width) * in.height;
  std::vector<double> rows(in.height);
  parallel_ranges(in.height, 32, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      double sums[8] = {};
      const float* const weight = in.weight + row * in.width;
      for (int j = 0; j < in.width; j++) sums[j % 8] += weight[j];
      for (double sum : sums) rows[row] += sum;
    }
  });
  double total = 0;
  for (double row : rows) total += row;
  return total;
}

}  // namespace

LossParts l1_ssim(const LossInput& in, float ssim_lambda, float* v_rgb) {
  const double total = 3 * sum_weights(in);
  const double per_weight = total > 0 ? 1 / total : 0;
  const int tiles_x = in.width <= kLossMaxColumns ? 1 : divide_up(in.width, kLossMaxColumns - 4 * kLossHalf);
  const int64_t n_tiles = int64_t{tiles_x} * divide_up(in.height, kLossTileRows);
  std::vector<double> sums(2 * n_tiles);
  const LossArgs args = {in.rgb,
                         in.target,
                         in.target_bytes,
                         in.weight,
                         in.height,
                         in.width,
                         static_cast<float>((1 - ssim_lambda) * per_weight),
                         static_cast<float>(-ssim_lambda * per_weight),
                         v_rgb,
                         tiles_x,
                         divide_up(in.width, tiles_x),
                         sums.data()};
  const auto loss_tile = kernels().loss_tile;
  parallel_for(n_tiles, [&](int64_t tile) {
    static thread_local Buffer<float> scratch;
    loss_tile(args, tile, scratch.reserve(kLossScratch));
  });
  double l1 = 0, ssim = 0;
  for (int64_t i = 0; i < n_tiles; i++) l1 += sums[2 * i], ssim += sums[2 * i + 1];
  l1 *= per_weight, ssim *= per_weight;
  const double dissimilarity = total > 0 ? 1 - ssim : 0;
  return {(1 - ssim_lambda) * l1 + ssim_lambda * dissimilarity, l1, ssim};
}

namespace {

using Image = Array<const float, nb::shape<-1, -1, 3>>;


bool same_size(const std::optional<Array<const float, nb::shape<-1, -1>>>& weight, size_t height, size_t width) {
  return !weight || (weight->shape(0) == height && weight->shape(1) == width);
}

template <class T>
nb::tuple call_l1_ssim(Image rgb, Array<const T, nb::shape<-1, -1, 3>> target,
                       std::optional<Array<const float, nb::shape<-1, -1>>> weight, float ssim_lambda,
                       Array<float, nb::shape<-1, -1, 3>> v_rgb) {
  const size_t height = rgb.shape(0), width = rgb.shape(1);
  if (target.shape(0) != height || target.shape(1) != width || v_rgb.shape(0) != height || v_rgb.shape(1) != width ||
      !same_size(weight, height, width))
    throw nb::value_error("rgb, target, weight and v_rgb differ in size");
  LossInput input = {rgb.data(), nullptr, nullptr, weight ? weight->data() : nullptr, static_cast<int>(height),
                     static_cast<int>(width)};
  if constexpr (sizeof(T) == 1) {
    input.target_bytes = target.data();
  } else {
    input.target = target.data();
  }
  LossParts parts;
  {
    nb::gil_scoped_release release;
    parts = l1_ssim(input, ssim_lambda, v_rgb.data());
  }
  return nb::make_tuple(parts.loss, parts.l1, parts.ssim);
}

template <class T>
void bind_l1_ssim(nb::module_& m) {
  m.def("l1_ssim", &call_l1_ssim<T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
        nb::arg(), nb::arg().noconvert());
}

}  // namespace

void bind_loss(nb::module_& m) {
  bind_l1_ssim<float>(m);
  bind_l1_ssim<uint8_t>(m);
}

}  // namespace scene3d
