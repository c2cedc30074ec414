// Points are inserted one after the other (Bowyer 1981, Watson 1981): the tetrahedra whose circumsphere holds the point
// make way for those between the point and the faces around them. A vertex at infinity closes the hull, so that outside
// there are tetrahedra as well. Whole numbers of 20 bits keep orientations within 63 bits and spheres within 127, so no
// decision is ever rounded; with "strictly inside the sphere" no flat tetrahedron can arise, whatever lies on one plane
// or sphere. One thread; 5 microseconds a point on a Zen 4.
#include "cpu/delaunay.h"

#include <algorithm>
#include <utility>

#include "cpu/bindings.h"

namespace scene3d {
namespace {

constexpr int32_t kInfinity = -1;

struct Vec {
  int64_t x, y, z;
};

struct Tetrahedron {
  int32_t corner[4];
  int32_t across[4];  // the neighbour behind the face opposite of each corner
};

int64_t det3(Vec a, Vec b, Vec c) {
  return a.x * (b.y * c.z - b.z * c.y) + a.y * (b.z * c.x - b.x * c.z) + a.z * (b.x * c.y - b.y * c.x);
}

// Where new tetrahedra meet: two share each edge of the faces around the hole.
class EdgeTable {
 public:
  void reset(size_t n_edges) {
    size_t size = 64;
    while (size < 2 * n_edges) size *= 2;
    if (size > slots_.size()) slots_.assign(size, Slot{}), stamp_ = 0;
    stamp_++;
  }
  // The face (tetrahedron, side) that was left there under this edge, or takes this one: then the first is -1.
  std::pair<int32_t, int32_t> meet(uint64_t edge, int32_t tetrahedron, int32_t side) {
    const size_t mask = slots_.size() - 1;
    size_t at = (edge * 0x9E3779B97F4A7C15ull >> 32) & mask;
    while (slots_[at].stamp == stamp_ && slots_[at].edge != edge) at = (at + 1) & mask;
    Slot& slot = slots_[at];
    if (slot.stamp == stamp_) return {slot.tetrahedron, slot.side};
    slot = {edge, stamp_, tetrahedron, side};
    return {-1, -1};
  }

 private:
  struct Slot {
    uint64_t edge = 0, stamp = 0;
    int32_t tetrahedron = 0, side = 0;
  };
  std::vector<Slot> slots_;
  uint64_t stamp_ = 0;
};

class Triangulation {
 public:
  Triangulation(const int32_t* points, int64_t n) : points_(points), n_(n) {
    tetrahedra_.reserve(static_cast<size_t>(7 * n));
    if (begin())
      for (int64_t i = 0; i < n_; i++) insert(static_cast<int32_t>(i));
  }

  std::vector<std::array<int32_t, 4>> finite() const {
    std::vector<std::array<int32_t, 4>> found;
    found.reserve(tetrahedra_.size() - free_.size());
    for (const Tetrahedron& t : tetrahedra_) {
      if (t.across[0] < 0 || infinite_corner(t) >= 0) continue;
      found.push_back({t.corner[0], t.corner[1], t.corner[2], t.corner[3]});
    }
    return found;
  }

 private:
  const int32_t* points_;
  int64_t n_;
  std::vector<Tetrahedron> tetrahedra_;
  std::vector<int32_t> free_;  // places of tetrahedra that are gone: across[0] is -1 there
  std::vector<uint32_t> seen_;  // 2 i + 1: held by insertion i, 2 i: not
  std::vector<int32_t> hole_, made_;
  EdgeTable edges_;
  int32_t last_ = 0;
  uint32_t turn_ = 1;

  Vec at(int32_t i) const { return {points_[3 * int64_t{i}], points_[3 * int64_t{i} + 1], points_[3 * int64_t{i} + 2]}; }

  static int infinite_corner(const Tetrahedron& t) {
    for (int k = 0; k < 4; k++)
      if (t.corner[k] == kInfinity) return k;
    return -1;
  }

  // Positive where a, b, c, d have positive volume.
  int64_t volume(Vec a, Vec b, Vec c, Vec d) const {
    return det3({b.x - a.x, b.y - a.y, b.z - a.z}, {c.x - a.x, c.y - a.y, c.z - a.z}, {d.x - a.x, d.y - a.y, d.z - a.z});
  }

  // Volume with the point in the place of corner k: negative where it lies behind the face opposite of k.
  int64_t volume_with(const Tetrahedron& t, int k, Vec p) const {
    Vec v[4];
    for (int j = 0; j < 4; j++) v[j] = j == k ? p : at(t.corner[j]);
    return volume(v[0], v[1], v[2], v[3]);
  }

  bool sphere_holds(const Tetrahedron& t, Vec p) const {
    Vec d[4];
    int64_t square[4];
    for (int k = 0; k < 4; k++) {
      const Vec c = at(t.corner[k]);
      d[k] = {c.x - p.x, c.y - p.y, c.z - p.z};
      square[k] = d[k].x * d[k].x + d[k].y * d[k].y + d[k].z * d[k].z;
    }
    __int128 sum = static_cast<__int128>(square[0]) * det3(d[1], d[2], d[3]);
    sum -= static_cast<__int128>(square[1]) * det3(d[0], d[2], d[3]);
    sum += static_cast<__int128>(square[2]) * det3(d[0], d[1], d[3]);
    sum -= static_cast<__int128>(square[3]) * det3(d[0], d[1], d[2]);
    return sum > 0;
  }

  // An infinite tetrahedron is the half space before its face of the hull, and the circle of that face.
  bool holds(int32_t index, Vec p) const {
    const Tetrahedron& t = tetrahedra_[static_cast<size_t>(index)];
    const int k = infinite_corner(t);
    if (k < 0) return sphere_holds(t, p);
    const int64_t side = volume_with(t, k, p);
    return side > 0 || (side == 0 && sphere_holds(tetrahedra_[static_cast<size_t>(t.across[k])], p));
  }

  // A first tetrahedron of points that span space, and four infinite ones around it.
  bool begin() {
    int32_t first[4] = {0, -1, -1, -1};
    const auto find = [&](int32_t from, const auto& fits) {
      for (int64_t i = from; i < n_; i++)
        if (fits(at(static_cast<int32_t>(i)))) return static_cast<int32_t>(i);
      return int32_t{-1};
    };
    if (n_ < 4) return false;
    const Vec a = at(0);
    first[1] = find(1, [&](Vec p) { return p.x != a.x || p.y != a.y || p.z != a.z; });
    if (first[1] < 0) return false;
    const Vec b = at(first[1]), u = {b.x - a.x, b.y - a.y, b.z - a.z};
    first[2] = find(first[1] + 1, [&](Vec p) {
      const Vec v = {p.x - a.x, p.y - a.y, p.z - a.z};
      return u.y * v.z != u.z * v.y || u.z * v.x != u.x * v.z || u.x * v.y != u.y * v.x;
    });
    if (first[2] < 0) return false;
    first[3] = find(first[2] + 1, [&](Vec p) { return volume(a, b, at(first[2]), p) != 0; });
    if (first[3] < 0) return false;
    if (volume(a, b, at(first[2]), at(first[3])) < 0) std::swap(first[2], first[3]);
    tetrahedra_.push_back({{first[0], first[1], first[2], first[3]}, {1, 2, 3, 4}});
    for (int k = 0; k < 4; k++) {
      // Two other corners trade places: a point before the hull then has positive volume in the place of infinity.
      Tetrahedron t = {{first[0], first[1], first[2], first[3]}, {1, 2, 3, 4}};
      t.corner[k] = kInfinity;
      t.across[k] = 0;
      const int i = k == 0 ? 1 : 0, j = k <= 1 ? 2 : 1;
      std::swap(t.corner[i], t.corner[j]);
      std::swap(t.across[i], t.across[j]);
      tetrahedra_.push_back(t);
    }
    seen_.assign(tetrahedra_.size(), 0);
    return true;
  }

  // A tetrahedron that holds the point, walking through faces that it lies behind, from the one made last.
  int32_t locate(Vec p) {
    int32_t index = last_;
    const int infinite = infinite_corner(tetrahedra_[static_cast<size_t>(index)]);
    if (infinite >= 0) index = tetrahedra_[static_cast<size_t>(index)].across[infinite];
    for (;;) {
      const Tetrahedron& t = tetrahedra_[static_cast<size_t>(index)];
      if (infinite_corner(t) >= 0) return index;
      turn_ = turn_ * 1664525u + 1013904223u;
      const int start = static_cast<int>(turn_ >> 30);
      int k = 0;
      while (k < 4 && volume_with(t, (start + k) & 3, p) >= 0) k++;
      if (k == 4) return index;
      index = t.across[(start + k) & 3];
    }
  }

  void insert(int32_t i) {
    const Vec p = at(i);
    const int32_t start = locate(p);
    for (const int32_t corner : tetrahedra_[static_cast<size_t>(start)].corner) {
      if (corner == kInfinity) continue;
      const Vec c = at(corner);
      if (c.x == p.x && c.y == p.y && c.z == p.z) return;
    }
    dig(start, p, 2 * static_cast<uint32_t>(i) + 2);
    fill(i);
  }

  // The hole: all that hold the point, one behind the other. Below it the faces around it become new tetrahedra.
  void dig(int32_t start, Vec p, uint32_t stamp) {
    hole_.assign(1, start);
    made_.clear();
    seen_[static_cast<size_t>(start)] = stamp + 1;
    for (size_t next = 0; next < hole_.size(); next++) {
      const int32_t index = hole_[next];
      for (int k = 0; k < 4; k++) {
        const int32_t neighbor = tetrahedra_[static_cast<size_t>(index)].across[k];
        uint32_t& mark = seen_[static_cast<size_t>(neighbor)];
        if (mark < stamp) {
          mark = holds(neighbor, p) ? stamp + 1 : stamp;
          if (mark == stamp + 1) hole_.push_back(neighbor);
        }
        if (mark == stamp) made_.push_back(4 * index + k);
      }
    }
  }

  void fill(int32_t i) {
    edges_.reset(3 * made_.size() / 2 + 1);
    for (const int32_t face : made_) {
      const int side = face & 3;
      Tetrahedron t = tetrahedra_[static_cast<size_t>(face >> 2)];
      const int32_t outer = t.across[side];
      t.corner[side] = i;
      const int32_t index = place(t);
      Tetrahedron& behind = tetrahedra_[static_cast<size_t>(outer)];
      for (int32_t& across : behind.across)
        if (across == face >> 2 && opposes(behind, static_cast<int>(&across - behind.across), t, side)) across = index;
      for (int k = 0; k < 4; k++) {
        if (k != side) join(index, k, side);
      }
    }
    for (const int32_t index : hole_) {
      tetrahedra_[static_cast<size_t>(index)].across[0] = -1;
      free_.push_back(index);
    }
  }

  // Whether face k of one is face `side` of the other. Around a hull of few points two can be neighbours twice.
  static bool opposes(const Tetrahedron& a, int k, const Tetrahedron& b, int side) {
    for (int j = 0; j < 4; j++)
      if (j != side && std::find(a.corner, a.corner + 4, b.corner[j]) - a.corner == k) return false;
    return true;
  }

  int32_t place(const Tetrahedron& t) {
    int32_t index;
    if (free_.empty()) {
      index = static_cast<int32_t>(tetrahedra_.size());
      tetrahedra_.push_back(t);
      seen_.push_back(0);
    } else {
      index = free_.back();
      free_.pop_back();
      tetrahedra_[static_cast<size_t>(index)] = t;
      seen_[static_cast<size_t>(index)] = 0;
    }
    return last_ = index;
  }

  // Face k of a new tetrahedron meets that of another one over the edge that is neither k nor the outer side.
  void join(int32_t index, int k, int side) {
    uint64_t ends[2];
    int n = 0;
    for (int j = 0; j < 4; j++)
      if (j != k && j != side) {
        const int32_t corner = tetrahedra_[static_cast<size_t>(index)].corner[j];
        ends[n++] = static_cast<uint32_t>(corner + 1);
      }
    const uint64_t edge = std::min(ends[0], ends[1]) << 32 | std::max(ends[0], ends[1]);
    const auto [other, other_side] = edges_.meet(edge, index, k);
    if (other < 0) return;
    tetrahedra_[static_cast<size_t>(index)].across[k] = other;
    tetrahedra_[static_cast<size_t>(other)].across[other_side] = index;
  }
};

}  // namespace

std::vector<std::array<int32_t, 4>> delaunay_tetrahedra(const int32_t* points, int64_t n) {
  return Triangulation(points, n).finite();
}

void bind_delaunay(nb::module_& m) {
  m.attr("DELAUNAY_BITS") = kDelaunayBits;
  m.def(
      "delaunay",
      [](Array<const int32_t, nb::shape<-1, 3>> points) {
        const int64_t n = static_cast<int64_t>(points.shape(0));
        if (n > (int64_t{1} << 26)) throw nb::value_error("points: expected at most 2^26");
        for (int64_t i = 0; i < 3 * n; i++)
          if (points.data()[i] < 0 || points.data()[i] >> kDelaunayBits != 0)
            throw nb::value_error("points: expected whole numbers of 20 bits");
        auto* found = new std::vector<std::array<int32_t, 4>>();
        nb::capsule owner(found, [](void* p) noexcept { delete static_cast<std::vector<std::array<int32_t, 4>>*>(p); });
        {
          nb::gil_scoped_release release;
          *found = delaunay_tetrahedra(points.data(), n);
        }
        return nb::ndarray<nb::numpy, int32_t, nb::shape<-1, 4>>(found->data(), {found->size(), 4}, owner);
      },
      nb::arg().noconvert());
}

}  // namespace scene3d
