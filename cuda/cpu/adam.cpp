#include "cpu/adam.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

// Per task: 256 KB of each array. Shorter ranges cut the streams that the processor fetches ahead: with ranges of 512
// rows through all six arrays, a step took twice as long.
constexpr int64_t kAdamValues = 1 << 16;

struct AdamTask {
  const AdamGroup* group;
  int64_t begin, end;  // rows
  int64_t n_bad;
};

int64_t adam_step(const AdamArgs& args, int64_t n_rows) {
  std::vector<AdamTask> tasks;
  for (const AdamGroup* group = args.groups; group != args.groups + args.n_groups; group++) {
    const int64_t grain = kAdamValues / (16 * std::max<int64_t>(group->n_columns, 1)) * 16 + 16;
    for (int64_t begin = 0; begin < n_rows; begin += grain)
      tasks.push_back({group, begin, std::min(begin + grain, n_rows), 0});
  }
  const auto adam_rows = kernels().adam_rows;
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    AdamTask& task = tasks[static_cast<size_t>(i)];
    task.n_bad = adam_rows(args, *task.group, task.begin, task.end);
  });
  int64_t total = 0;
  for (const AdamTask& task : tasks) total += task.n_bad;
  return total;
}

using Values = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Gradient = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

AdamGroup make_group(const Values& param, const Gradient& grad, const Values& exp_avg, const Values& exp_avg_sq,
                     double lr, double correction, size_t n_rows) {
  const size_t size = param.size();
  if (grad.size() != size || exp_avg.size() != size || exp_avg_sq.size() != size || param.ndim() == 0 ||
      param.shape(0) != n_rows)
    throw nb::value_error("params, gradients and moments differ in size");
  return {param.data(), grad.data(), exp_avg.data(), exp_avg_sq.data(), static_cast<int64_t>(n_rows ? size / n_rows : 0),
          static_cast<float>(lr / correction)};
}

int64_t call_adam_step(const std::vector<Values>& params, const std::vector<Gradient>& grads,
                       const std::vector<Values>& exp_avgs, const std::vector<Values>& exp_avg_sqs,
                       const std::vector<double>& lrs, int64_t step,
                       std::optional<Array<const uint8_t, nb::ndim<1>>> visible, double beta1, double beta2, double eps) {
  const size_t n_groups = params.size();
  if (n_groups == 0) return 0;
  if (grads.size() != n_groups || exp_avgs.size() != n_groups || exp_avg_sqs.size() != n_groups || lrs.size() != n_groups)
    throw nb::value_error("lists differ in length");
  const size_t n_rows = params[0].ndim() ? params[0].shape(0) : 0;
  if (visible && visible->shape(0) != n_rows) throw nb::value_error("visible: expected one value per row");
  std::vector<AdamGroup> groups;
  const double correction = 1 - std::pow(beta1, static_cast<double>(step));
  for (size_t i = 0; i < n_groups; i++)
    groups.push_back(make_group(params[i], grads[i], exp_avgs[i], exp_avg_sqs[i], lrs[i], correction, n_rows));
  const AdamArgs args = {groups.data(),
                         static_cast<int>(n_groups),
                         visible ? visible->data() : nullptr,
                         static_cast<float>(beta1),
                         static_cast<float>(beta2),
                         static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, static_cast<double>(step)))),
                         static_cast<float>(eps)};
  nb::gil_scoped_release release;
  return adam_step(args, static_cast<int64_t>(n_rows));
}

}  // namespace

void bind_adam(nb::module_& m) {
  m.def("adam_step", &call_adam_step, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert().none(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace scene3d
