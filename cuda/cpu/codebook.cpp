// Codebooks of numbers on a line: optimal by dynamic programming. The best split point moves right with the number of
// values, so that each row of the table is filled by halving (Wu 1991; Grønlund et al. 2017).
#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/kmeans.h"

namespace scene3d {
namespace {

class Intervals {
 public:
  Intervals(const double* values, const double* weights, int64_t n) : w_(n + 1, 0.0), wx_(n + 1, 0.0), wxx_(n + 1, 0.0) {
    for (int64_t i = 0; i < n; i++) {
      const size_t at = static_cast<size_t>(i);
      w_[at + 1] = w_[at] + weights[i];
      wx_[at + 1] = wx_[at] + weights[i] * values[i];
      wxx_[at + 1] = wxx_[at] + weights[i] * values[i] * values[i];
    }
  }

  // Sum of weighted squares about the mean of values begin .. end.
  double error(int64_t begin, int64_t end) const {
    const double w = difference(w_, begin, end), wx = difference(wx_, begin, end);
    return w > 0 ? std::max(difference(wxx_, begin, end) - wx * wx / w, 0.0) : 0.0;
  }
  double mean(int64_t begin, int64_t end, const double* values) const {
    const double w = difference(w_, begin, end);
    return w > 0 ? difference(wx_, begin, end) / w : values[begin];
  }

 private:
  static double difference(const std::vector<double>& sums, int64_t begin, int64_t end) {
    return sums[static_cast<size_t>(end)] - sums[static_cast<size_t>(begin)];
  }
  std::vector<double> w_, wx_, wxx_;
};

struct Row {
  const std::vector<double>& before;  // least error of the first i values with one entry fewer
  std::vector<double>& here;
  int32_t* split;
};

// Fills row entries begin .. end (inclusive), whose split points lie in low .. high.
void fill(const Intervals& intervals, const Row& row, int64_t begin, int64_t end, int64_t low, int64_t high) {
  if (begin > end) return;
  const int64_t middle = (begin + end) / 2;
  double best = std::numeric_limits<double>::infinity();
  int64_t at = low;
  for (int64_t s = low; s <= std::min(high, middle); s++) {
    const double error = row.before[static_cast<size_t>(s)] + intervals.error(s, middle);
    if (error < best) best = error, at = s;
  }
  row.here[static_cast<size_t>(middle)] = best;
  row.split[middle] = static_cast<int32_t>(at);
  fill(intervals, row, begin, middle - 1, low, at);
  fill(intervals, row, middle + 1, end, at, high);
}

}  // namespace

void optimal_codebook(const double* values, const double* weights, int64_t n_values, int n_entries, double* entries) {
  const Intervals intervals(values, weights, n_values);
  const size_t width = static_cast<size_t>(n_values) + 1;
  std::vector<double> before(width), here(width);
  std::vector<int32_t> splits(width * static_cast<size_t>(n_entries), 0);
  for (int64_t i = 0; i <= n_values; i++) before[static_cast<size_t>(i)] = intervals.error(0, i);
  for (int k = 1; k < n_entries; k++) {
    fill(intervals, {before, here, splits.data() + static_cast<size_t>(k) * width}, 0, n_values, 0, n_values);
    std::swap(before, here);
  }
  int64_t end = n_values;
  for (int k = n_entries - 1; k >= 0; k--) {
    const int64_t begin = splits[static_cast<size_t>(k) * width + static_cast<size_t>(end)];
    // Fewer distinct values than entries leave empty intervals: they repeat their neighbour.
    entries[k] = begin < end ? intervals.mean(begin, end, values) : (k + 1 < n_entries ? entries[k + 1] : values[0]);
    end = begin;
  }
}

void bind_kmeans(nb::module_& m) {
  using Floats = Array<const float, nb::ndim<1>>;
  using Doubles = Array<const double, nb::ndim<1>>;
  m.def(
      "kmeans",
      [](Array<const float, nb::ndim<2>> points, Floats weights, int n_iter, uint64_t seed, Array<float, nb::ndim<2>> centers,
         Array<int32_t, nb::ndim<1>> labels) {
        const size_t n = points.shape(0);
        if (weights.shape(0) != n || labels.shape(0) != n) throw nb::value_error("weights and labels: expected [N]");
        if (centers.shape(1) != points.shape(1)) throw nb::value_error("centers: expected as many columns as points");
        if (centers.shape(0) < 1 || centers.shape(0) > n) throw nb::value_error("centers: expected 1 to N rows");
        nb::gil_scoped_release release;
        kmeans({points.data(), weights.data(), static_cast<int64_t>(n), static_cast<int>(points.shape(1)),
                static_cast<int32_t>(centers.shape(0)), n_iter, seed, centers.data(), labels.data()});
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
  m.def(
      "optimal_codebook",
      [](Doubles values, Doubles weights, Array<double, nb::ndim<1>> entries) {
        if (weights.shape(0) != values.shape(0)) throw nb::value_error("weights: expected as many as values");
        if (entries.shape(0) < 1 || entries.shape(0) > values.shape(0)) throw nb::value_error("entries: expected 1 to N");
        nb::gil_scoped_release release;
        optimal_codebook(values.data(), weights.data(), static_cast<int64_t>(values.shape(0)),
                         static_cast<int>(entries.shape(0)), entries.data());
      },
      nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace scene3d
