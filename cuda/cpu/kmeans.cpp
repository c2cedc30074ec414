#include "cpu/kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

// Up to this many clusters every point is compared with every center; beyond, with those of the nearest cells only.
constexpr int32_t kMaxFlat = 1024;
// How many cells of a coarse clustering a point looks into: few enough to be fast, so many that the nearest is rarely missed.
constexpr int kCellsSearched = 12;
constexpr int kCoarseIterations = 6;
constexpr int64_t kCoarsePointsPerCell = 96;
constexpr int64_t kPointsPerTask = 256;

// SplitMix64 (Steele 2014).
double uniform(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Points ordered by the cell they lie in; one cell holds all of them where there is no coarse level.
struct Points {
  int n_dims = 0;
  std::vector<float> rows;       // [n, n_dims]
  std::vector<float> weights;    // [n]
  std::vector<int64_t> origin;   // where they came from
  std::vector<int64_t> begin;    // of each cell, and the end of the last

  int64_t size() const { return static_cast<int64_t>(weights.size()); }
  int n_cells() const { return static_cast<int>(begin.size()) - 1; }
  const float* row(int64_t i) const { return rows.data() + i * n_dims; }
};

// Centers as the kernel wants them, cell by cell.
struct Packed {
  std::vector<float> blocks, half_norms;
  std::vector<int32_t> center_of_slot;
  std::vector<int> first_block;  // of each cell, and the end of the last
};

float half_norm(const float* x, int n) {
  double sum = 0;
  for (int d = 0; d < n; d++) sum += static_cast<double>(x[d]) * x[d];
  return static_cast<float>(0.5 * sum);
}

void pack(const std::vector<float>& centers, int n_dims, const std::vector<int32_t>& cell_of_center, int n_cells, Packed& out) {
  std::vector<int> count(static_cast<size_t>(n_cells), 0);
  for (int32_t cell : cell_of_center) count[static_cast<size_t>(cell)]++;
  out.first_block.assign(static_cast<size_t>(n_cells) + 1, 0);
  for (size_t i = 0; i < count.size(); i++) out.first_block[i + 1] = out.first_block[i] + (count[i] + 31) / 32 * 2;
  const size_t n_slots = static_cast<size_t>(out.first_block.back()) * kCenterLanes;
  out.blocks.assign(n_slots * static_cast<size_t>(n_dims), 0.f);
  out.half_norms.assign(n_slots, std::numeric_limits<float>::infinity());
  out.center_of_slot.assign(n_slots, -1);
  std::vector<int> used(static_cast<size_t>(n_cells), 0);
  for (size_t k = 0; k < cell_of_center.size(); k++) {
    const size_t cell = static_cast<size_t>(cell_of_center[k]);
    const size_t slot = static_cast<size_t>(out.first_block[cell] * kCenterLanes + used[cell]++);
    const float* center = centers.data() + k * static_cast<size_t>(n_dims);
    float* lane = out.blocks.data() + slot / kCenterLanes * static_cast<size_t>(n_dims) * kCenterLanes + slot % kCenterLanes;
    for (int d = 0; d < n_dims; d++) lane[d * kCenterLanes] = center[d];
    out.half_norms[slot] = half_norm(center, n_dims);
    out.center_of_slot[slot] = static_cast<int32_t>(k);
  }
}

// For each point the nearest of the centers in the cells `searched` for its cell, and the score of it.
void assign(const Points& points, const Packed& packed, const std::vector<std::vector<int>>& searched, std::vector<float>& scores,
            std::vector<int32_t>& labels) {
  scores.assign(static_cast<size_t>(points.size()), -std::numeric_limits<float>::infinity());
  labels.assign(static_cast<size_t>(points.size()), std::numeric_limits<int32_t>::max());
  struct Task {
    int64_t begin, end;
    int cell;
  };
  std::vector<Task> tasks;
  for (int cell = 0; cell < points.n_cells(); cell++)
    for (int64_t i = points.begin[static_cast<size_t>(cell)]; i < points.begin[static_cast<size_t>(cell) + 1]; i += kPointsPerTask)
      tasks.push_back({i, std::min(i + kPointsPerTask, points.begin[static_cast<size_t>(cell) + 1]), cell});
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t t) {
    const Task& task = tasks[static_cast<size_t>(t)];
    for (int cell : searched[static_cast<size_t>(task.cell)]) {
      const int first = packed.first_block[static_cast<size_t>(cell)], n = packed.first_block[static_cast<size_t>(cell) + 1] - first;
      kernels().nearest_centers({points.row(task.begin), task.end - task.begin, points.n_dims,
                                 packed.blocks.data() + static_cast<int64_t>(first) * points.n_dims * kCenterLanes,
                                 packed.half_norms.data() + first * kCenterLanes, n, first * kCenterLanes,
                                 scores.data() + task.begin, labels.data() + task.begin});
    }
    for (int64_t i = task.begin; i < task.end; i++) {
      int32_t& label = labels[static_cast<size_t>(i)];
      label = packed.center_of_slot[static_cast<size_t>(label)];
    }
  });
}

// Means of the members of each cluster; returns the clusters without weight, whose centers stay.
std::vector<int32_t> update(const Points& points, const std::vector<int32_t>& labels, int32_t n_clusters, std::vector<float>& centers) {
  std::vector<int64_t> begin(static_cast<size_t>(n_clusters) + 1, 0);
  for (int32_t label : labels) begin[static_cast<size_t>(label) + 1]++;
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<int64_t> members(labels.size()), next(begin.begin(), begin.end() - 1);
  for (size_t i = 0; i < labels.size(); i++) members[static_cast<size_t>(next[static_cast<size_t>(labels[i])]++)] = static_cast<int64_t>(i);
  std::vector<char> is_empty(static_cast<size_t>(n_clusters), 0);
  const int n_dims = points.n_dims;
  parallel_ranges(n_clusters, 64, [&](int64_t first, int64_t last) {
    std::vector<double> sum(static_cast<size_t>(n_dims));
    for (int64_t k = first; k < last; k++) {
      std::fill(sum.begin(), sum.end(), 0.0);
      double total = 0;
      for (int64_t m = begin[static_cast<size_t>(k)]; m < begin[static_cast<size_t>(k) + 1]; m++) {
        const int64_t i = members[static_cast<size_t>(m)];
        const double weight = points.weights[static_cast<size_t>(i)];
        const float* row = points.row(i);
        for (int d = 0; d < n_dims; d++) sum[static_cast<size_t>(d)] += weight * row[d];
        total += weight;
      }
      is_empty[static_cast<size_t>(k)] = !(total > 0);
      float* center = centers.data() + k * n_dims;
      if (total > 0)
        for (int d = 0; d < n_dims; d++) center[d] = static_cast<float>(sum[static_cast<size_t>(d)] / total);
    }
  });
  std::vector<int32_t> empty;
  for (int32_t k = 0; k < n_clusters; k++)
    if (is_empty[static_cast<size_t>(k)]) empty.push_back(k);
  return empty;
}

// Centers of empty clusters go where the error is largest.
void reseed(const Points& points, const std::vector<float>& scores, const std::vector<int32_t>& empty, std::vector<float>& centers) {
  if (empty.empty()) return;
  std::vector<std::pair<float, int64_t>> worst(static_cast<size_t>(points.size()));
  parallel_ranges(points.size(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float error = half_norm(points.row(i), points.n_dims) - scores[static_cast<size_t>(i)];
      worst[static_cast<size_t>(i)] = {-points.weights[static_cast<size_t>(i)] * std::max(error, 0.f), i};
    }
  });
  const size_t n = std::min(empty.size(), worst.size());
  std::partial_sort(worst.begin(), worst.begin() + static_cast<int64_t>(n), worst.end());
  for (size_t e = 0; e < n; e++)
    std::copy_n(points.row(worst[e].second), points.n_dims, centers.data() + static_cast<int64_t>(empty[e]) * points.n_dims);
}

// n of the points begin .. end, evenly over their summed weights, so that they are spread as the points are.
void sample(const Points& points, int64_t begin, int64_t end, int64_t n, uint64_t& random, std::vector<float>& centers) {
  double total = 0;
  for (int64_t i = begin; i < end; i++) total += points.weights[static_cast<size_t>(i)];
  const bool is_flat = !(total > 0);
  const double step = (is_flat ? static_cast<double>(end - begin) : total) / static_cast<double>(n);
  double target = step * uniform(random), sum = 0;
  int64_t i = begin, taken = 0;
  for (; taken < n; taken++, target += step) {
    while (i + 1 < end && sum + (is_flat ? 1.0 : points.weights[static_cast<size_t>(i)]) <= target)
      sum += is_flat ? 1.0 : points.weights[static_cast<size_t>(i)], i++;
    centers.insert(centers.end(), points.row(i), points.row(i) + points.n_dims);
  }
}

// Cells of a coarse clustering, and for each the cells whose centers are nearest to its own, itself first.
struct Coarse {
  std::vector<float> centers;
  std::vector<std::vector<int>> searched;
};

std::vector<std::vector<int>> nearest_cells(const std::vector<float>& centers, int n_dims, int n_cells) {
  std::vector<std::vector<int>> result(static_cast<size_t>(n_cells));
  parallel_for(n_cells, [&](int64_t a) {
    std::vector<std::pair<double, int>> distances;
    for (int b = 0; b < n_cells; b++) {
      double sum = 0;
      for (int d = 0; d < n_dims; d++) {
        const double difference = static_cast<double>(centers[static_cast<size_t>(a * n_dims + d)]) - centers[static_cast<size_t>(b * n_dims + d)];
        sum += difference * difference;
      }
      distances.push_back({a == b ? -1.0 : sum, b});
    }
    const size_t n = std::min<size_t>(kCellsSearched, distances.size());
    std::partial_sort(distances.begin(), distances.begin() + static_cast<int64_t>(n), distances.end());
    for (size_t i = 0; i < n; i++) result[static_cast<size_t>(a)].push_back(distances[i].second);
  });
  return result;
}

// Cell of each center: the nearest coarse center.
std::vector<int32_t> cells_of(const std::vector<float>& centers, int n_dims, const Coarse& coarse) {
  Points rows;
  rows.n_dims = n_dims, rows.rows = centers, rows.weights.assign(centers.size() / static_cast<size_t>(n_dims), 1.f);
  rows.begin = {0, rows.size()};
  Packed packed;
  const int n_cells = static_cast<int>(coarse.searched.size());
  pack(coarse.centers, n_dims, std::vector<int32_t>(static_cast<size_t>(n_cells), 0), 1, packed);
  std::vector<float> scores;
  std::vector<int32_t> cells;
  assign(rows, packed, {{0}}, scores, cells);
  return cells;
}

// Lloyd's iterations; labels fit the centers at the end.
void lloyd(const Points& points, const Coarse& coarse, int n_iter, std::vector<float>& centers, std::vector<float>& scores,
           std::vector<int32_t>& labels) {
  const int32_t n_clusters = static_cast<int32_t>(centers.size() / static_cast<size_t>(points.n_dims));
  const int n_cells = points.n_cells();
  Packed packed;
  for (int i = 0;; i++) {
    const std::vector<int32_t> cells =
        n_cells == 1 ? std::vector<int32_t>(static_cast<size_t>(n_clusters), 0) : cells_of(centers, points.n_dims, coarse);
    pack(centers, points.n_dims, cells, n_cells, packed);
    assign(points, packed, coarse.searched, scores, labels);
    if (i == n_iter) return;
    reseed(points, scores, update(points, labels, n_clusters, centers), centers);
  }
}

// How many of n_clusters each cell gets: by its error to the power D / (D + 2), the best density of codes at high rate
// (Zador 1982), at least one where there are points, at most as many as points.
std::vector<int64_t> shares(const Points& points, const std::vector<double>& errors, int32_t n_clusters) {
  const double power = points.n_dims / (points.n_dims + 2.0);
  const size_t n_cells = errors.size();
  std::vector<int64_t> room(n_cells), share(n_cells, 0);
  double total = 0;
  for (size_t c = 0; c < n_cells; c++) {
    room[c] = points.begin[c + 1] - points.begin[c];
    total += std::pow(errors[c], power);
  }
  int64_t left = n_clusters;
  for (size_t c = 0; c < n_cells; c++) {
    const double ideal = total > 0 ? std::pow(errors[c], power) / total * n_clusters : 0.0;
    share[c] = std::min({room[c], std::max<int64_t>(static_cast<int64_t>(ideal), room[c] > 0 ? 1 : 0), left});
    left -= share[c];
  }
  for (bool is_moving = true; left > 0 && is_moving;) {
    is_moving = false;
    for (size_t c = 0; c < n_cells && left > 0; c++)
      if (share[c] < room[c]) share[c]++, left--, is_moving = true;
  }
  return share;
}

Points order_by_cell(const Points& points, const std::vector<int32_t>& cells, int n_cells) {
  Points result;
  result.n_dims = points.n_dims;
  result.begin.assign(static_cast<size_t>(n_cells) + 1, 0);
  for (int32_t cell : cells) result.begin[static_cast<size_t>(cell) + 1]++;
  std::partial_sum(result.begin.begin(), result.begin.end(), result.begin.begin());
  std::vector<int64_t> next(result.begin.begin(), result.begin.end() - 1);
  result.rows.resize(points.rows.size()), result.weights.resize(points.weights.size()), result.origin.resize(points.origin.size());
  for (size_t i = 0; i < cells.size(); i++) {
    const int64_t at = next[static_cast<size_t>(cells[i])]++;
    std::copy_n(points.row(static_cast<int64_t>(i)), points.n_dims, result.rows.data() + at * points.n_dims);
    result.weights[static_cast<size_t>(at)] = points.weights[i];
    result.origin[static_cast<size_t>(at)] = points.origin[i];
  }
  return result;
}

Points sampled(const Points& points, int64_t n, uint64_t& random) {
  if (n >= points.size()) return points;
  Points result;
  result.n_dims = points.n_dims;
  sample(points, 0, points.size(), n, random, result.rows);
  result.weights.assign(static_cast<size_t>(n), 1.f);
  result.begin = {0, n};
  return result;
}

const Coarse kNoCoarse = {{}, {{0}}};

// Replaces `points` by the same ordered by cell, and finds first centers in each cell.
Coarse split(Points& points, int32_t n_clusters, uint64_t& random, std::vector<float>& centers) {
  const int n_cells = static_cast<int>(std::lround(std::sqrt(static_cast<double>(n_clusters))));
  Coarse coarse;
  std::vector<float> scores;
  std::vector<int32_t> cells;
  Points few = sampled(points, kCoarsePointsPerCell * n_cells, random);
  few.begin = {0, few.size()};
  sample(few, 0, few.size(), n_cells, random, coarse.centers);
  lloyd(few, kNoCoarse, kCoarseIterations, coarse.centers, scores, cells);
  lloyd(points, kNoCoarse, 0, coarse.centers, scores, cells);
  coarse.searched = nearest_cells(coarse.centers, points.n_dims, n_cells);
  std::vector<double> errors(static_cast<size_t>(n_cells), 0.0);
  for (size_t i = 0; i < cells.size(); i++) {
    const double error = static_cast<double>(half_norm(points.row(static_cast<int64_t>(i)), points.n_dims)) - scores[i];
    errors[static_cast<size_t>(cells[i])] += points.weights[i] * std::max(error, 0.0);
  }
  points = order_by_cell(points, cells, n_cells);
  const std::vector<int64_t> share = shares(points, errors, n_clusters);
  for (size_t c = 0; c < share.size(); c++)
    if (share[c] > 0) sample(points, points.begin[c], points.begin[c + 1], share[c], random, centers);
  return coarse;
}

}  // namespace

void kmeans(const KMeansArgs& args) {
  Points points;
  points.n_dims = args.n_dims;
  points.rows.assign(args.points, args.points + args.n_points * args.n_dims);
  points.weights.assign(args.weights, args.weights + args.n_points);
  points.origin.resize(static_cast<size_t>(args.n_points));
  std::iota(points.origin.begin(), points.origin.end(), int64_t{0});
  points.begin = {0, args.n_points};
  uint64_t random = args.seed;
  std::vector<float> centers, scores;
  std::vector<int32_t> labels;
  Coarse coarse = kNoCoarse;
  if (args.n_clusters <= kMaxFlat)
    sample(points, 0, points.size(), args.n_clusters, random, centers);
  else
    coarse = split(points, args.n_clusters, random, centers);
  lloyd(points, coarse, args.n_iter, centers, scores, labels);
  std::copy(centers.begin(), centers.end(), args.centers);
  for (size_t i = 0; i < labels.size(); i++) args.labels[points.origin[i]] = labels[i];
}

}  // namespace scene3d
