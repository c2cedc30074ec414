// Bindings of what a step of fitting needs beside the rasterizer: loss, Adam, noise; and of nearest neighbours.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>
#include <vector>

#include "gpu/bindings.h"
#include "gpu/knn.h"
#include "gpu/loss.h"
#include "gpu/parameters.h"

namespace scene3d {
namespace gpu {
namespace {

using Values = Array<float>;
using ConstValues = Array<const float>;

void call_adam(const std::vector<Values>& params, const std::vector<ConstValues>& grads, const std::vector<Values>& exp_avgs,
               const std::vector<Values>& exp_avg_sqs, const std::vector<double>& lrs, int64_t step,
               std::optional<Array<const uint8_t, nb::ndim<1>>> visible, double beta1, double beta2, double eps,
               Array<int32_t, nb::shape<1>> n_bad, StreamNumber stream) {
  const size_t n = params.size();
  if (n == 0) return;
  if (grads.size() != n || exp_avgs.size() != n || exp_avg_sqs.size() != n || lrs.size() != n)
    throw nb::value_error("lists differ in length");
  const size_t n_rows = params[0].ndim() ? params[0].shape(0) : 0;
  if (visible && visible->shape(0) != n_rows) throw nb::value_error("visible: expected one value per row");
  std::vector<AdamArray> arrays;
  for (size_t i = 0; i < n; i++) {
    const size_t size = params[i].size();
    if (grads[i].size() != size || exp_avgs[i].size() != size || exp_avg_sqs[i].size() != size || params[i].ndim() == 0 || params[i].shape(0) != n_rows)
      throw nb::value_error("params, gradients and moments differ in size");
    arrays.push_back({params[i].data(), grads[i].data(), exp_avgs[i].data(), exp_avg_sqs[i].data(), static_cast<int>(n_rows ? size / n_rows : 0),
                      static_cast<float>(lrs[i] / (1 - std::pow(beta1, static_cast<double>(step))))});
  }
  const AdamRule rule = {static_cast<float>(beta1), static_cast<float>(beta2),
                         static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, static_cast<double>(step)))), static_cast<float>(eps)};
  adam_step(arrays, static_cast<int64_t>(n_rows), visible ? visible->data() : nullptr, rule,
            reinterpret_cast<unsigned int*>(n_bad.data()), reinterpret_cast<Stream>(stream));
}

void call_noise(Array<float, nb::shape<-1, 3>> means, Array<const float, nb::shape<-1, 4>> quats,
                Array<const float, nb::shape<-1, 3>> log_scales, Array<const float, nb::shape<-1>> opacity_logits, float scale,
                uint64_t seed, uint64_t step, StreamNumber stream) {
  const size_t n = means.shape(0);
  if (quats.shape(0) != n || log_scales.shape(0) != n || opacity_logits.shape(0) != n)
    throw nb::value_error("means, quats, log_scales and opacity_logits differ in length");
  const NoiseArgs args = {means.data(), quats.data(), log_scales.data(), opacity_logits.data(), scale, seed, step};
  mcmc_noise(args, static_cast<int64_t>(n), reinterpret_cast<Stream>(stream));
}

using Image = Array<const float, nb::shape<-1, -1, 3>>;

template <class T>
void call_loss(Image rgb, Array<const T, nb::shape<-1, -1, 3>> target, std::optional<Array<const float, nb::shape<-1, -1>>> weight,
               float ssim_lambda, Array<float, nb::shape<-1>> scratch, Array<float, nb::shape<-1, -1, 3>> v_rgb,
               Array<float, nb::shape<3>> parts, StreamNumber stream) {
  const size_t height = rgb.shape(0), width = rgb.shape(1);
  if (target.size() != rgb.size() || target.shape(1) != width || v_rgb.size() != rgb.size() || v_rgb.shape(1) != width ||
      (weight && (weight->shape(0) != height || weight->shape(1) != width)))
    throw nb::value_error("rgb, target, weight and v_rgb differ in size");
  LossInput input = {rgb.data(), nullptr, nullptr, weight ? weight->data() : nullptr, static_cast<int>(height), static_cast<int>(width), ssim_lambda};
  if constexpr (sizeof(T) == 1) input.target_bytes = target.data();
  else input.target = target.data();
  if (static_cast<int64_t>(scratch.size()) < loss_scratch_floats(input.height, input.width)) throw nb::value_error("scratch: too small");
  l1_ssim(input, scratch.data(), v_rgb.data(), parts.data(), reinterpret_cast<Stream>(stream));
}

template <class T>
void bind_loss(nb::module_& m) {
  m.def("l1_ssim", &call_loss<T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

void call_nearest(Array<const float, nb::shape<-1, 3>> points, Array<const float, nb::shape<-1, 3>> queries, const std::vector<float>& low,
                  float inv_size, Array<float, nb::ndim<2>> distances, Array<int64_t, nb::ndim<2>> indices, const Memory& memory,
                  StreamNumber stream) {
  if (distances.shape(0) != queries.shape(0) || indices.shape(0) != queries.shape(0) || distances.shape(1) != indices.shape(1) || low.size() != 3)
    throw nb::value_error("distances and indices: expected [Q, k]; low: expected 3 numbers");
  nearest_points(points.data(), static_cast<int64_t>(points.shape(0)), queries.data(), static_cast<int64_t>(queries.shape(0)),
                 static_cast<int>(distances.shape(1)), low.data(), inv_size, distances.data(), indices.data(), memory,
                 reinterpret_cast<Stream>(stream));
}

}  // namespace

void bind_steps(nb::module_& m) {
  m.attr("MAX_NEIGHBORS") = kMaxNeighbors;
  m.def("adam_step", &call_adam, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg(), nb::arg(), nb::arg().noconvert().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg());
  m.def("mcmc_noise", &call_noise, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("loss_scratch_floats", &loss_scratch_floats);
  bind_loss<float>(m);
  bind_loss<uint8_t>(m);
  m.def("nearest_points", &call_nearest, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
