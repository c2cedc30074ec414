// Nearest points on triangles by a bounding volume hierarchy: nodes are ranges
// of faces halved along their widest side.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/mesh.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kLeafSize = 4;
constexpr int64_t kQueriesPerTask = 256;

struct Vec {
  float x, y, z;
  float operator[](int axis) const { return axis == 0 ? x : axis == 1 ? y : z; }
};

Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vec operator*(float s, Vec a) { return {s * a.x, s * a.y, s * a.z}; }
float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
Vec least(Vec a, Vec b) { return {std::min(a.x, b.x), std::min(a.y, b.y), std::min(a.z, b.z)}; }
Vec most(Vec a, Vec b) { return {std::max(a.x, b.x), std::max(a.y, b.y), std::max(a.z, b.z)}; }

struct Triangle {
  Vec a, b, c;
};

struct Hit {
  float square = std::numeric_limits<float>::infinity();
  int64_t face = -1;
  float weights[3] = {0, 0, 0};
};

// Ericson 2005, section 5.1.5: which of the seven regions of the triangle's
// plane the point lies over.
void closest_weights(Vec p, const Triangle& t, float* w) {
  const Vec ab = t.b - t.a, ac = t.c - t.a, ap = p - t.a;
  const float d1 = dot(ab, ap), d2 = dot(ac, ap);
  const auto set = [w](float a, float b, float c) { w[0] = a, w[1] = b, w[2] = c; };
  if (d1 <= 0 && d2 <= 0) return set(1, 0, 0);
  const Vec bp = p - t.b;
  const float d3 = dot(ab, bp), d4 = dot(ac, bp);
  if (d3 >= 0 && d4 <= d3) return set(0, 1, 0);
  const float vc = d1 * d4 - d3 * d2;
  if (vc <= 0 && d1 >= 0 && d3 <= 0) return set(1 - d1 / (d1 - d3), d1 / (d1 - d3), 0);
  const Vec cp = p - t.c;
  const float d5 = dot(ab, cp), d6 = dot(ac, cp);
  if (d6 >= 0 && d5 <= d6) return set(0, 0, 1);
  const float vb = d5 * d2 - d1 * d6;
  if (vb <= 0 && d2 >= 0 && d6 <= 0) return set(1 - d2 / (d2 - d6), 0, d2 / (d2 - d6));
  const float va = d3 * d6 - d5 * d4;
  if (va <= 0 && d4 - d3 >= 0 && d5 - d6 >= 0) {
    const float s = (d4 - d3) / ((d4 - d3) + (d5 - d6));
    return set(0, 1 - s, s);
  }
  const float scale = 1 / (va + vb + vc);
  set(1 - (vb + vc) * scale, vb * scale, vc * scale);
}

struct Node {
  Vec low, high;
};

class Tree {
 public:
  Tree(const float* vertices, const int64_t* faces, int64_t n) : order_(static_cast<size_t>(n)) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::vector<Triangle> given(static_cast<size_t>(n));
    const auto point = [vertices](int64_t i) { return Vec{vertices[3 * i], vertices[3 * i + 1], vertices[3 * i + 2]}; };
    for (int64_t f = 0; f < n; f++)
      given[static_cast<size_t>(f)] = {point(faces[3 * f]), point(faces[3 * f + 1]), point(faces[3 * f + 2])};
    nodes_.resize(static_cast<size_t>(2 * n));
    build(given, 0, n, 0);
    triangles_.resize(static_cast<size_t>(n));
    for (size_t i = 0; i < order_.size(); i++) triangles_[i] = given[static_cast<size_t>(order_[i])];
  }

  Hit closest(Vec p) const {
    Hit hit;
    search(p, 0, static_cast<int64_t>(order_.size()), 0, hit);
    return hit;
  }

 private:
  // Children of the node of n faces at index i lie at i + 1 and, behind the
  // whole left subtree, at i + 2 * (n / 2).
  void build(const std::vector<Triangle>& given, int64_t begin, int64_t end, int64_t at) {
    const float inf = std::numeric_limits<float>::infinity();
    Vec low = {inf, inf, inf}, high = {-inf, -inf, -inf}, mid_low = low, mid_high = high;
    for (int64_t i = begin; i < end; i++) {
      const Triangle& t = given[static_cast<size_t>(order_[static_cast<size_t>(i)])];
      low = least(low, least(t.a, least(t.b, t.c)));
      high = most(high, most(t.a, most(t.b, t.c)));
      const Vec mid = t.a + t.b + t.c;
      mid_low = least(mid_low, mid), mid_high = most(mid_high, mid);
    }
    nodes_[static_cast<size_t>(at)] = {low, high};
    if (end - begin <= kLeafSize) return;
    const Vec width = mid_high - mid_low;
    const int axis = width.x >= width.y ? (width.x >= width.z ? 0 : 2) : (width.y >= width.z ? 1 : 2);
    const int64_t middle = (begin + end) / 2;
    const auto key = [&](int64_t f) {
      const Triangle& t = given[static_cast<size_t>(f)];
      return t.a[axis] + t.b[axis] + t.c[axis];
    };
    std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end, [&](int64_t f, int64_t g) {
      const float x = key(f), y = key(g);
      return x < y || (x == y && f < g);
    });
    build(given, begin, middle, at + 1);
    build(given, middle, end, at + 2 * (middle - begin));
  }

  float square_to(Vec p, int64_t at) const {
    const Node& node = nodes_[static_cast<size_t>(at)];
    const Vec gap = most(most(node.low - p, p - node.high), {0, 0, 0});
    return dot(gap, gap);
  }

  void search(Vec p, int64_t begin, int64_t end, int64_t at, Hit& hit) const {
    if (end - begin <= kLeafSize) {
      for (int64_t i = begin; i < end; i++) offer(p, i, hit);
      return;
    }
    const int64_t middle = (begin + end) / 2, left = at + 1, right = at + 2 * (middle - begin);
    const float to_left = square_to(p, left), to_right = square_to(p, right);
    const bool is_left_first = to_left <= to_right;
    for (const bool goes_left : {is_left_first, !is_left_first}) {
      if ((goes_left ? to_left : to_right) > hit.square) continue;
      goes_left ? search(p, begin, middle, left, hit) : search(p, middle, end, right, hit);
    }
  }

  void offer(Vec p, int64_t i, Hit& hit) const {
    const Triangle& t = triangles_[static_cast<size_t>(i)];
    float w[3];
    closest_weights(p, t, w);
    const Vec gap = p - (w[0] * t.a + w[1] * t.b + w[2] * t.c);
    const float square = dot(gap, gap);
    const int64_t face = order_[static_cast<size_t>(i)];
    if (!(square < hit.square || (square == hit.square && face < hit.face))) return;
    hit.square = square, hit.face = face;
    std::copy(w, w + 3, hit.weights);
  }

  std::vector<int64_t> order_;
  std::vector<Triangle> triangles_;
  std::vector<Node> nodes_;
};

}  // namespace

void closest_on_mesh(const float* vertices, const int64_t* faces, int64_t n_faces, const float* queries,
                     int64_t n_queries, float* distances, int64_t* face, float* weights) {
  const Tree tree(vertices, faces, n_faces);
  parallel_ranges(n_queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const Hit hit = tree.closest({queries[3 * i], queries[3 * i + 1], queries[3 * i + 2]});
      distances[i] = std::sqrt(hit.square);
      face[i] = hit.face;
      std::copy(hit.weights, hit.weights + 3, weights + 3 * i);
    }
  });
}

}  // namespace scene3d
