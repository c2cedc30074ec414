// Bindings of the step of fitting. Python owns every array; they are named once and used for many steps.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "cpu/descent.h"
#include "cpu/raster_arrays.h"

namespace scene3d {
namespace {

constexpr size_t kArrays = 6;  // means, quats, log_scales, opacity_logits, sh0, shN

using Arrays = std::vector<Flat<float>>;
using Plane = Array<const float, nb::shape<-1, -1>>;
template <class T>
using Photo = Array<const T, nb::shape<-1, -1, 3>>;

struct Descent {
  Params<float> params;
  Arrays values, exp_avgs, exp_avg_sqs;
  Flat<float> grad_sums, counts;
  DescentImages images;
};

void check_sizes(const Arrays& values, const Arrays& others) {
  if (values.size() != kArrays || others.size() != kArrays) throw nb::value_error("expected 6 arrays of each kind");
  for (size_t k = 0; k < kArrays; k++)
    if (values[k].size() != others[k].size() || values[k].ndim() == 0 || values[k].shape(0) != values[0].shape(0))
      throw nb::value_error("params and moments differ in size");
}

void make_descent(Descent* self, const Params<float>& params, Arrays values, Arrays exp_avgs, Arrays exp_avg_sqs, Flat<float> grad_sums, Flat<float> counts) {
  check_sizes(values, exp_avgs);
  check_sizes(values, exp_avg_sqs);
  if (grad_sums.size() != values[0].shape(0) || counts.size() != values[0].shape(0))
    throw nb::value_error("grad_sums and counts: expected one number per Gaussian");
  new (self) Descent{params, values, exp_avgs, exp_avg_sqs, grad_sums, counts, {}};
}

// How a step moves: Adam's numbers, and what is added to the loss.
struct Rates {
  std::array<double, kArrays> lrs;
  int64_t step;
  double beta1, beta2, eps;
  double opacity_reg, scale_reg;  // weights of Σ opacity and Σ scale
  double half_size;               // of the statistics; 0 = none are kept
};

std::vector<AdamGroup> make_groups(const Descent& self, const Rates& rates) {
  std::vector<AdamGroup> groups;
  const double correction = 1 - std::pow(rates.beta1, static_cast<double>(rates.step));
  const size_t n = self.values[0].shape(0);
  for (size_t k = 0; k < kArrays && n; k++) {
    const size_t size = self.values[k].size();
    if (size == 0) continue;  // no shN at degree 0
    groups.push_back({self.values[k].data(), nullptr, self.exp_avgs[k].data(), self.exp_avg_sqs[k].data(),
                      static_cast<int64_t>(size / n), static_cast<float>(rates.lrs[k] / correction)});
  }
  return groups;
}

template <class T>
LossInput loss_input(const CallSettings& s, const Photo<T>& photo, const std::optional<Plane>& weight) {
  const size_t height = static_cast<size_t>(s.height), width = static_cast<size_t>(s.width);
  if (photo.shape(0) != height || photo.shape(1) != width || (weight && (weight->shape(0) != height || weight->shape(1) != width)))
    throw nb::value_error("photo and weight: expected the size of the camera");
  LossInput input = {nullptr, nullptr, nullptr, weight ? weight->data() : nullptr, s.height, s.width};
  if constexpr (sizeof(T) == 1) input.target_bytes = photo.data();
  else input.target = photo.data();
  return input;
}

using Matrix34 = Array<const float, nb::shape<3, 4>>;

template <class T>
double step(Descent& self, const CallSettings& s, Photo<T> photo, std::optional<Plane> weight, float ssim_lambda,
            const Rates& rates, std::optional<Matrix34> transform, std::optional<Array<float, nb::shape<3, 4>>> v_transform,
            std::optional<Array<float, nb::shape<4, 4>>> v_viewmat, const std::optional<Arrays>& added) {
  const RasterCall<float> call = make_call(s, self.params);
  if (transform && !v_transform) throw nb::value_error("v_transform: expected an array where there is a transform");
  const std::vector<AdamGroup> groups = make_groups(self, rates);
  const bool has_stats = rates.half_size > 0;
  const AdamArgs adam = {groups.data(),
                         static_cast<int>(groups.size()),
                         nullptr,
                         static_cast<float>(rates.beta1),
                         static_cast<float>(rates.beta2),
                         static_cast<float>(1 / std::sqrt(1 - std::pow(rates.beta2, static_cast<double>(rates.step)))),
                         static_cast<float>(rates.eps)};
  DescentArgs descent = {adam,
                         static_cast<float>(rates.opacity_reg),
                         static_cast<float>(rates.scale_reg),
                         has_stats ? self.grad_sums.data() : nullptr,
                         self.counts.data(),
                         static_cast<float>(rates.half_size)};
  if (added) {
    check_sizes(self.values, *added);
    for (size_t k = 0; k < kArrays; k++) descent.added[k] = (*added)[k].data();
  }
  const DescentTarget target = {loss_input(s, photo, weight), ssim_lambda, transform ? transform->data() : nullptr};
  const DescentGrads grads = {v_viewmat ? v_viewmat->data() : nullptr, v_transform ? v_transform->data() : nullptr};
  nb::gil_scoped_release release;
  return descend(call, target, descent, grads, self.images);
}

}  // namespace


void bind_descent(nb::module_& m) {
  nb::class_<Rates>(m, "DescentRates")
      .def("__init__",
           [](Rates* self, std::array<double, kArrays> lrs, int64_t step, double beta1, double beta2, double eps,
              double opacity_reg, double scale_reg, double half_size) {
             new (self) Rates{lrs, step, beta1, beta2, eps, opacity_reg, scale_reg, half_size};
           });
  nb::class_<Descent>(m, "Descent")
      .def("__init__", &make_descent, nb::arg(), FIXED, FIXED, FIXED, FIXED, FIXED)
      .def("step", &step<uint8_t>, nb::arg(), FIXED, FIXED.none(), nb::arg(), nb::arg(), FIXED.none(), FIXED.none(), FIXED.none(),
           FIXED.none())
      .def("step", &step<float>, nb::arg(), FIXED, FIXED.none(), nb::arg(), nb::arg(), FIXED.none(), FIXED.none(), FIXED.none(),
           FIXED.none());
}

}  // namespace scene3d
