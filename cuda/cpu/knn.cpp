#include "cpu/knn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kLeafSize = 8;
constexpr int64_t kQueriesPerTask = 512;

// A k-d tree over positions in `order`: a node is a range of it, split at its middle along its widest side. Unlike a grid
// it does not mind clusters and outliers, of which structure from motion has both.
class Tree {
 public:
  Tree(const float* points, int64_t n) : points_(points), order_(static_cast<size_t>(n)), axis_(static_cast<size_t>(n), 0) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    build(0, n);
  }

  // Keeps the k best of a query in rows sorted by (distance, index).
  struct Best {
    int k;
    float* squares;
    int64_t* indices;

    void offer(float square, int64_t index) {
      int at = k;
      while (at > 0 && (square < squares[at - 1] || (square == squares[at - 1] && index < indices[at - 1]))) at--;
      if (at == k) return;
      for (int i = k - 1; i > at; i--) squares[i] = squares[i - 1], indices[i] = indices[i - 1];
      squares[at] = square, indices[at] = index;
    }
  };

  void search(const float* query, Best& best) const { search(0, static_cast<int64_t>(order_.size()), query, best); }

 private:
  float coordinate(int64_t at, int axis) const { return points_[3 * order_[static_cast<size_t>(at)] + axis]; }

  int widest_axis(int64_t begin, int64_t end) const {
    float width[3];
    for (int axis = 0; axis < 3; axis++) {
      float low = coordinate(begin, axis), high = low;
      for (int64_t i = begin + 1; i < end; i++) low = std::min(low, coordinate(i, axis)), high = std::max(high, coordinate(i, axis));
      width[axis] = high - low;
    }
    return width[0] >= width[1] ? (width[0] >= width[2] ? 0 : 2) : (width[1] >= width[2] ? 1 : 2);
  }

  void build(int64_t begin, int64_t end) {
    if (end - begin <= kLeafSize) return;
    const int axis = widest_axis(begin, end);
    const int64_t middle = (begin + end) / 2;
    std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end, [&](int64_t a, int64_t b) {
      const float x = points_[3 * a + axis], y = points_[3 * b + axis];
      return x < y || (x == y && a < b);
    });
    axis_[static_cast<size_t>(middle)] = static_cast<uint8_t>(axis);
    build(begin, middle);
    build(middle + 1, end);
  }

  void offer(int64_t at, const float* query, Best& best) const {
    const int64_t index = order_[static_cast<size_t>(at)];
    const float *p = points_ + 3 * index, dx = p[0] - query[0], dy = p[1] - query[1], dz = p[2] - query[2];
    best.offer(dx * dx + dy * dy + dz * dz, index);
  }

  void search(int64_t begin, int64_t end, const float* query, Best& best) const {
    if (end - begin <= kLeafSize) {
      for (int64_t i = begin; i < end; i++) offer(i, query, best);
      return;
    }
    const int64_t middle = (begin + end) / 2;
    const int axis = axis_[static_cast<size_t>(middle)];
    const float gap = query[axis] - coordinate(middle, axis);
    const bool goes_left = gap < 0;
    goes_left ? search(begin, middle, query, best) : search(middle + 1, end, query, best);
    offer(middle, query, best);
    if (gap * gap > best.squares[best.k - 1]) return;
    goes_left ? search(middle + 1, end, query, best) : search(begin, middle, query, best);
  }

  const float* points_;
  std::vector<int64_t> order_;
  std::vector<uint8_t> axis_;
};

}  // namespace

void nearest_points(const float* points, int64_t n_points, const float* queries, int64_t n_queries, int k,
                    float* distances, int64_t* indices) {
  std::fill(distances, distances + n_queries * k, std::numeric_limits<float>::infinity());
  std::fill(indices, indices + n_queries * k, int64_t{-1});
  if (n_points == 0 || k == 0) return;
  const Tree tree(points, n_points);
  parallel_ranges(n_queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Tree::Best best = {k, distances + i * k, indices + i * k};
      tree.search(queries + 3 * i, best);
      for (int j = 0; j < k; j++) best.squares[j] = std::sqrt(best.squares[j]);
    }
  });
}

void bind_knn(nb::module_& m) {
  using Points = Array<const float, nb::shape<-1, 3>>;
  m.def("nearest_points", [](Points points, Points queries, Array<float, nb::ndim<2>> distances, Array<int64_t, nb::ndim<2>> indices) {
    if (distances.shape(0) != queries.shape(0) || indices.shape(0) != queries.shape(0) || distances.shape(1) != indices.shape(1))
      throw nb::value_error("distances and indices: expected [Q, k]");
    nb::gil_scoped_release release;
    nearest_points(points.data(), static_cast<int64_t>(points.shape(0)), queries.data(), static_cast<int64_t>(queries.shape(0)),
                   static_cast<int>(distances.shape(1)), distances.data(), indices.data());
  });
}

}  // namespace scene3d
