// Bindings of the step of fitting. Python owns every array; they are named once and used for many steps.
#include <nanobind/stl/optional.h>

#include <cmath>
#include <optional>

#include "gpu/descent.h"
#include "gpu/raster_arrays.h"

namespace scene3d {
namespace gpu {
namespace {

using Arrays = std::vector<Array<float>>;
using Plane = Array<const float, nb::shape<-1, -1>>;
template <class T>
using Photo = Array<const T, nb::shape<-1, -1, 3>>;
using Matrix34 = Array<const float, nb::shape<3, 4>>;

struct Descent {
  std::vector<Input> params;
  Arrays values, exp_avgs, exp_avg_sqs;
  Array<float> grad_sums, counts;
  Mailbox mailbox;

  Descent(const std::vector<Input>& p, const Arrays& v, const Arrays& m, const Arrays& s, const Array<float>& sums, const Array<float>& n)
      : params(p), values(v), exp_avgs(m), exp_avg_sqs(s), grad_sums(sums), counts(n) {}
};

void check_sizes(const Arrays& values, const Arrays& others) {
  if (values.size() != kDescentArrays || others.size() != kDescentArrays) throw nb::value_error("expected 6 arrays of each kind");
  for (size_t k = 0; k < kDescentArrays; k++)
    if (values[k].size() != others[k].size() || values[k].ndim() == 0 || values[k].shape(0) != values[0].shape(0))
      throw nb::value_error("params and moments differ in size");
}

// params are what is shown: the values again, or others.
Descent* make_descent(const std::vector<Input>& params, const Arrays& values, const Arrays& exp_avgs, const Arrays& exp_avg_sqs,
                      const Array<float>& grad_sums, const Array<float>& counts) {
  check_sizes(values, exp_avgs);
  check_sizes(values, exp_avg_sqs);
  if (params.size() != kDescentArrays) throw nb::value_error("expected 6 arrays of each kind");
  const size_t n = values[0].shape(0);
  if (grad_sums.size() != n || counts.size() != n) throw nb::value_error("grad_sums and counts: expected one number per Gaussian");
  return new Descent(params, values, exp_avgs, exp_avg_sqs, grad_sums, counts);
}

// How a step moves: Adam's numbers, and what is added to the loss.
struct Rates {
  std::array<double, kDescentArrays> lrs;
  int64_t step;
  double beta1, beta2, eps;
  double opacity_reg, scale_reg;  // weights of Σ opacity and Σ scale
  double half_size;               // of the statistics; 0 = none are kept
};

DescentArgs make_args(const Descent& self, const Rates& rates) {
  DescentArgs args = {};
  const double step = static_cast<double>(rates.step), correction = 1 - std::pow(rates.beta1, step);
  const size_t n = self.values[0].shape(0);
  for (size_t k = 0; k < kDescentArrays; k++)
    args.arrays[k] = {self.values[k].data(), nullptr, self.exp_avgs[k].data(), self.exp_avg_sqs[k].data(),
                      static_cast<int>(n ? self.values[k].size() / n : 0), static_cast<float>(rates.lrs[k] / correction)};
  args.rule = {static_cast<float>(rates.beta1), static_cast<float>(rates.beta2),
               static_cast<float>(1 / std::sqrt(1 - std::pow(rates.beta2, step))), static_cast<float>(rates.eps)};
  args.opacity_reg = static_cast<float>(rates.opacity_reg), args.scale_reg = static_cast<float>(rates.scale_reg);
  args.half_size = static_cast<float>(rates.half_size);
  if (rates.half_size > 0) args.grad_sums = self.grad_sums.data(), args.counts = self.counts.data();
  return args;
}

template <class T>
LossInput loss_input(const CallSettings& s, const Photo<T>& photo, const std::optional<Plane>& weight, float ssim_lambda) {
  const size_t height = static_cast<size_t>(s.height), width = static_cast<size_t>(s.width);
  if (photo.shape(0) != height || photo.shape(1) != width || (weight && (weight->shape(0) != height || weight->shape(1) != width)))
    throw nb::value_error("photo and weight: expected the size of the camera");
  LossInput input = {nullptr, nullptr, nullptr, weight ? weight->data() : nullptr, s.height, s.width, ssim_lambda};
  if constexpr (sizeof(T) == 1) input.target_bytes = photo.data();
  else input.target = photo.data();
  return input;
}

// What a method does to one step besides moving what is shown.
struct Push {
  std::optional<Input> masks;           // [N]
  std::optional<Array<float>> v_masks;  // [N], zeros
  std::vector<std::optional<Input>> added;  // by array; empty = nothing
};

void apply(const Push& push, const Descent& self, RasterCall<float>& call, DescentArgs& args) {
  if (push.masks.has_value() != push.v_masks.has_value()) throw nb::value_error("masks: expected also an array for their gradient");
  if (push.masks) {
    set_masks(call, *push.masks);
    expect_size(push.v_masks->size(), static_cast<size_t>(call.n), "v_masks");
    args.v_masks = push.v_masks->data();
  }
  if (push.added.empty()) return;
  if (push.added.size() != kDescentArrays) throw nb::value_error("added: expected 6 arrays or none");
  for (size_t k = 0; k < kDescentArrays; k++) {
    if (!push.added[k]) continue;
    expect_size(push.added[k]->size(), self.values[k].size(), "added");
    args.added[k] = push.added[k]->data();
  }
}

template <class T>
double step(Descent& self, const CallSettings& s, Photo<T> photo, std::optional<Plane> weight, float ssim_lambda,
            const Rates& rates, std::optional<Matrix34> transform, std::optional<Array<float, nb::shape<3, 4>>> v_transform,
            std::optional<Array<float, nb::shape<4, 4>>> v_viewmat, const Push* push, const Memory& memory, StreamNumber stream) {
  RasterCall<float> call = make_call(s, self.params);
  if (transform && !v_transform) throw nb::value_error("v_transform: expected an array where there is a transform");
  DescentArgs args = make_args(self, rates);
  if (push) apply(*push, self, call, args);
  const DescentTarget target = {loss_input(s, photo, weight, ssim_lambda), transform ? transform->data() : nullptr};
  const DescentGrads grads = {v_viewmat ? v_viewmat->data() : nullptr, v_transform ? v_transform->data() : nullptr};
  try {
    nb::gil_scoped_release release;
    return static_cast<double>(descend(call, s.options, target, args, grads, memory, self.mailbox, reinterpret_cast<Stream>(stream)));
  } catch (const std::length_error& error) {
    raise_memory_error(error);
  }
}

}  // namespace

#define FIXED nb::arg().noconvert()

void bind_descent(nb::module_& m) {
  nb::class_<Rates>(m, "DescentRates")
      .def("__init__",
           [](Rates* self, std::array<double, kDescentArrays> lrs, int64_t step, double beta1, double beta2, double eps,
              double opacity_reg, double scale_reg, double half_size) {
             new (self) Rates{lrs, step, beta1, beta2, eps, opacity_reg, scale_reg, half_size};
           });
  nb::class_<Push>(m, "DescentPush")
      .def("__init__",
           [](Push* self, std::optional<Input> masks, std::optional<Array<float>> v_masks, std::vector<std::optional<Input>> added) {
             new (self) Push{masks, v_masks, added};
           },
           FIXED.none(), FIXED.none(), FIXED);
  nb::class_<Descent>(m, "Descent")
      .def(nb::new_(&make_descent), FIXED, FIXED, FIXED, FIXED, FIXED, FIXED)
      .def("step", &step<uint8_t>, nb::arg(), FIXED, FIXED.none(), nb::arg(), nb::arg(), FIXED.none(), FIXED.none(), FIXED.none(),
           nb::arg().none(), nb::arg(), nb::arg())
      .def("step", &step<float>, nb::arg(), FIXED, FIXED.none(), nb::arg(), nb::arg(), FIXED.none(), FIXED.none(), FIXED.none(),
           nb::arg().none(), nb::arg(), nb::arg());
}

}  // namespace gpu
}  // namespace scene3d
