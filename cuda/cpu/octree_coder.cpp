// Positions as an octree that is only as deep as it has to be: a node that holds one point is a leaf, so that the order of
// the points costs nothing and the bits below are left to whoever knows how exact the point has to be.
//
// Level by level: for every node with two points or more the occupancy of its eight children, each seen from the children
// before it and from the neighbours of the node, and for every child whether it holds one point. Nodes at the last level
// hold any number. 100,000 points, one core of a Zen 4: 30 ms.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/context_mixing.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kMaxDepth = 20;
constexpr uint64_t kAxisX = 0x1249249249249249u;  // bit 0 of every three

// Codes of one level with their occupancy, for looking up neighbours.
class CellTable {
 public:
  explicit CellTable(const std::vector<uint64_t>& codes) {
    size_t size = 16;
    while (size < 2 * codes.size() + 2) size *= 2;
    mask_ = size - 1;
    keys_.assign(size, ~uint64_t{0});
    children_.assign(size, kUnknown);
    for (const uint64_t code : codes) keys_[find(code)] = code;
  }

  // 0: there is no such node, kUnknown: its children are not known yet, else its occupancy.
  int look(uint64_t code) const {
    const size_t at = find(code);
    return keys_[at] == code ? children_[at] : 0;
  }
  void put(uint64_t code, int occupancy) { children_[find(code)] = static_cast<uint16_t>(occupancy); }

  static constexpr int kUnknown = 256;

 private:
  size_t find(uint64_t code) const {
    size_t at = (code * 0x9E3779B97F4A7C15u >> 20) & mask_;
    while (keys_[at] != ~uint64_t{0} && keys_[at] != code) at = (at + 1) & mask_;
    return at;
  }
  size_t mask_;
  std::vector<uint64_t> keys_;
  std::vector<uint16_t> children_;
};

// The code one step along an axis (0 x, 1 y, 2 z), up or down; false where that leaves the cube.
bool step_code(uint64_t code, int axis, bool up, int level, uint64_t& out) {
  const uint64_t all = level == 0 ? 0 : (uint64_t{1} << 3 * level) - 1;
  const uint64_t mask = kAxisX << axis & all, own = code & mask;
  if (up ? own == mask : own == 0) return false;
  const uint64_t moved = up ? ((own | ~mask) + (uint64_t{1} << axis)) & mask : (own - (uint64_t{1} << axis)) & mask;
  out = (code & ~mask) | moved;
  return true;
}

struct Node {
  uint64_t code;
  int64_t begin, end;  // points, in the encoder only
};

struct Leaf {
  uint64_t key;  // code shifted to the last level
  int level;
};

template <class Coder>
class OctreeCoder {
 public:
  OctreeCoder(Coder& coder, int depth, const uint64_t* codes) : coder_(coder), depth_(depth), codes_(codes), bits_({256 * 8, 64 * 8 * 4, kMaxDepth * 8 + 8, 64 * 16}, 1, 1), single_({kMaxDepth + 1, 64, 9 * 9}, 1, 1) {}

  // Stops early where bytes that no encoder wrote promise more than n points.
  bool run(int64_t n) {
    limit_ = n;
    if (n == 0) return true;
    std::vector<Node> nodes;
    place({0, 0, n}, 0, nodes, 0, 8);
    for (int level = 0; level < depth_ && !nodes.empty(); level++) nodes = divide(nodes, level);
    return static_cast<int64_t>(leaves.size()) == n;
  }

  std::vector<Leaf> leaves;

 private:
  std::vector<Node> divide(const std::vector<Node>& nodes, int level) {
    std::vector<uint64_t> codes;
    codes.reserve(nodes.size());
    for (const Node& node : nodes) codes.push_back(node.code);
    CellTable table(codes);
    std::vector<Node> next;
    for (const Node& node : nodes) {
      int around[6], n_around = 0;
      for (int side = 0; side < 6; side++) {
        uint64_t code;
        around[side] = step_code(node.code, side >> 1, side & 1, level, code) ? table.look(code) : 0;
        n_around += around[side] != 0;
      }
      const int occupancy = code_occupancy(node, level, around, n_around);
      table.put(node.code, occupancy);
      int64_t begin = node.begin;
      const int n_children = __builtin_popcount(static_cast<unsigned>(occupancy));
      for (int child = 0; child < 8; child++) {
        if (!(occupancy >> child & 1)) continue;
        Node inner = {node.code << 3 | static_cast<uint64_t>(child), begin, begin};
        if constexpr (Coder::kEncodes) {
          while (inner.end < node.end && codes_[inner.end] >> 3 * (depth_ - level - 1) == inner.code) inner.end++;
          begin = inner.end;
        }
        place(inner, level + 1, next, n_around, n_children);
        if (static_cast<int64_t>(leaves.size() + 2 * next.size()) > limit_) return {};
      }
    }
    return next;
  }

  int code_occupancy(const Node& node, int level, const int (&around)[6], int n_around) {
    int actual = 0, coded = 1, occupancy = 0;
    if constexpr (Coder::kEncodes)
      for (int64_t i = node.begin; i < node.end; i++) actual |= 1 << (codes_[i] >> 3 * (depth_ - level - 1) & 7);
    int faces = 0;
    for (int side = 0; side < 6; side++) faces |= (around[side] != 0) << side;
    for (int child = 0; child < 8; child++) {
      // The neighbour across each outer face of the child: absent, there, its touching child empty or full.
      int outer = 0, inner = 0;
      for (int axis = 0; axis < 3; axis++) {
        const int upper = child >> axis & 1, cell = around[2 * axis + upper];
        const int touching = child ^ 1 << axis;
        outer = 4 * outer + (cell == 0 ? 0 : cell == CellTable::kUnknown ? 1 : 2 + (cell >> touching & 1));
        inner += occupancy >> touching & 1;
      }
      const int so_far = __builtin_popcount(static_cast<unsigned>(occupancy));
      const int contexts[4] = {(coded << 3 | child) & 2047, (outer * 8 + child) * 4 + inner, level * 8 + child, faces * 16 + (so_far > 3 ? 3 : so_far) * 4 + n_around / 2};
      bits_.select(contexts, 0);
      const int bit = bits_.code(coder_, actual >> child & 1, 0);
      occupancy |= bit << child;
      if (child < 7) coded = (coded << 1 | bit) & 255;
    }
    return occupancy;
  }

  void place(Node node, int level, std::vector<Node>& next, int n_around, int n_siblings) {
    const int64_t n = node.end - node.begin;
    const int contexts[3] = {level, n_around * 9 + n_siblings, n_siblings * 9 + n_around};
    single_.select(contexts, 0);
    const bool is_single = single_.code(coder_, n == 1, 0);
    const uint64_t key = node.code << 3 * (depth_ - level);
    if (is_single) {
      leaves.push_back({key, level});
    } else if (level < depth_) {
      next.push_back(node);
    } else {
      int64_t count = 2;
      while (count < limit_ && code_bit(coder_, count < n, many_[count < 64 ? count : 63])) count++;
      for (int64_t i = 0; i < count && static_cast<int64_t>(leaves.size()) < limit_; i++) leaves.push_back({key, level});
    }
  }

  Coder& coder_;
  const int depth_;
  const uint64_t* const codes_;
  MixedBits<4> bits_;
  MixedBits<3> single_;
  Counter many_[64];
  int64_t limit_ = 0;
};

void sort_leaves(std::vector<Leaf>& leaves) {
  std::stable_sort(leaves.begin(), leaves.end(), [](const Leaf& a, const Leaf& b) { return a.key < b.key; });
}

using Codes = Array<const uint64_t, nb::ndim<1>>;
using Levels = Array<uint8_t, nb::ndim<1>>;

void copy_leaves(const std::vector<Leaf>& leaves, uint64_t* keys, uint8_t* levels) {
  for (size_t i = 0; i < leaves.size(); i++) keys[i] = leaves[i].key, levels[i] = static_cast<uint8_t>(leaves[i].level);
}

void check_depth(int depth) {
  if (depth < 0 || depth > kMaxDepth) throw nb::value_error("depth: expected 0 to 20");
}

nb::bytes encode_octree(Codes codes, int depth, Levels levels) {
  check_depth(depth);
  const int64_t n = static_cast<int64_t>(codes.shape(0));
  if (levels.shape(0) != codes.shape(0)) throw nb::value_error("codes and levels differ in length");
  if (!std::is_sorted(codes.data(), codes.data() + n)) throw nb::value_error("codes: expected rising order");
  if (n && codes.data()[n - 1] >> 3 * depth) throw nb::value_error("codes: expected 3 bits a level");
  Encoder encoder;
  std::vector<uint8_t> bytes;
  {
    nb::gil_scoped_release release;
    OctreeCoder<Encoder> coder(encoder, depth, codes.data());
    coder.run(n);
    sort_leaves(coder.leaves);
    for (int64_t i = 0; i < n; i++) levels.data()[i] = static_cast<uint8_t>(coder.leaves[static_cast<size_t>(i)].level);
    bytes = encoder.finish();
  }
  return as_bytes(bytes);
}

bool decode_octree(nb::bytes data, int depth, Array<uint64_t, nb::ndim<1>> keys, Levels levels) {
  check_depth(depth);
  if (levels.shape(0) != keys.shape(0)) throw nb::value_error("keys and levels differ in length");
  nb::gil_scoped_release release;
  Decoder decoder(static_cast<const uint8_t*>(data.data()), data.size());
  OctreeCoder<Decoder> coder(decoder, depth, nullptr);
  const bool is_whole = coder.run(static_cast<int64_t>(keys.shape(0)));
  if (!is_whole) return false;
  sort_leaves(coder.leaves);
  copy_leaves(coder.leaves, keys.data(), levels.data());
  return true;
}

}  // namespace

void bind_octree(nb::module_& m) {
  m.def("encode_octree", &encode_octree, nb::arg().noconvert(), nb::arg(), nb::arg().noconvert());
  m.def("decode_octree", &decode_octree, nb::arg(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace scene3d
