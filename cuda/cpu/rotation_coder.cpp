// Rotations of N ellipsoids in Morton order, each as a turn away from a neighbour's.
//
// Axes are sorted by length, so what is left to choose is their signs: turning by 180 degrees about an axis changes nothing.
// Of the four quaternions that mean the same, relative to the neighbour the one with the largest w is taken; its Gibbs
// vector g = xyz / w lies within +-1 and has a component for the turn about each axis, with a step of its own: a turn about
// an axis around which the ellipsoid is nearly round may be as wrong as it likes. Fixed point throughout.
// 100,000 rotations, one core of a Zen 4: 50 ms.
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/node_mixing.h"
#include "cpu/fixed_steps.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kSides = 64;
constexpr int32_t kUnit = 1 << 30;
constexpr int kFinestTurn = 8;  // a Gibbs vector of 2^-14

struct Quat {
  int64_t w, x, y, z;  // of kUnit
};

Quat conjugate(const Quat& q) { return {q.w, -q.x, -q.y, -q.z}; }

Quat multiply(const Quat& a, const Quat& b) {
  return {(a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z) >> 30, (a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y) >> 30,
          (a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x) >> 30, (a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w) >> 30};
}

uint64_t square_root(uint64_t value) {
  if (value == 0) return 0;
  uint64_t root = uint64_t{1} << ((65 - __builtin_clzll(value)) / 2);
  for (;;) {
    const uint64_t next = (root + value / root) / 2;
    if (next >= root) return root;
    root = next;
  }
}

Quat normalized(const Quat& q) {
  const int64_t norm = static_cast<int64_t>(square_root(static_cast<uint64_t>(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z)));
  if (norm == 0) return {kUnit, 0, 0, 0};
  return {q.w * kUnit / norm, q.x * kUnit / norm, q.y * kUnit / norm, q.z * kUnit / norm};
}

struct Gibbs {
  int32_t g[3];  // of 65536
};

// The turn from a to b, whichever of the four.
Gibbs turn(const Quat& a, const Quat& b) {
  const Quat q = multiply(conjugate(a), b);
  const int64_t parts[4] = {q.w, q.x, q.y, q.z};
  int largest = 0;
  for (int i = 1; i < 4; i++)
    if ((parts[i] < 0 ? -parts[i] : parts[i]) > (parts[largest] < 0 ? -parts[largest] : parts[largest])) largest = i;
  // q times the conjugate of the unit i, j or k moves its part to w.
  const Quat moved = largest == 0 ? q : largest == 1 ? Quat{q.x, -q.w, -q.z, q.y} : largest == 2 ? Quat{q.y, q.z, -q.w, -q.x} : Quat{q.z, -q.y, q.x, -q.w};
  if (moved.w == 0) return {{0, 0, 0}};
  return {{static_cast<int32_t>(moved.x * 65536 / moved.w), static_cast<int32_t>(moved.y * 65536 / moved.w), static_cast<int32_t>(moved.z * 65536 / moved.w)}};
}

Quat turned(const Quat& a, const int32_t (&g)[3]) {
  return normalized(multiply(a, normalized({kUnit, int64_t{g[0]} << 14, int64_t{g[1]} << 14, int64_t{g[2]} << 14})));
}

struct Rotations {
  int64_t n;
  int n_neighbors;
  int32_t* quats;            // [n, 4] of kUnit
  const uint8_t* steps;      // [n, 3]
  const int32_t* neighbors;  // [n, n_neighbors]
  const int32_t* scales;     // [n, 3] log scales, sorted, fixed point
  const uint8_t* sides;      // [n, 2]
  int32_t dead_zone;

  Quat quat(int64_t row) const { return {quats[4 * row], quats[4 * row + 1], quats[4 * row + 2], quats[4 * row + 3]}; }
};

int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }

int64_t unlikeness(const Rotations& p, int64_t a, int64_t b) {
  int64_t sum = 0;
  for (int axis = 0; axis < 3; axis++) sum += magnitude(static_cast<int64_t>(p.scales[3 * a + axis]) - p.scales[3 * b + axis]);
  return sum;
}

struct Guide {
  int64_t row, unlike;
  int64_t other;  // another neighbour to compare with, or -1
};

// Splats that came out of one splat have its rotation and like scales.
Guide choose_guide(const Rotations& p, int64_t row) {
  Guide best = {-1, 0, -1};
  const int32_t* const ids = p.neighbors + row * p.n_neighbors;
  for (int k = 0; k < p.n_neighbors && ids[k] >= 0; k++) {
    const int64_t unlike = unlikeness(p, row, ids[k]) * (4 + k);
    if (best.row < 0 || unlike < best.unlike) {
      best.other = best.row;
      best.row = ids[k], best.unlike = unlike;
    } else if (best.other < 0) {
      best.other = ids[k];
    }
  }
  return best;
}

template <class Coder>
void code_rotations(Coder& coder, const Rotations& p) {
  MixedNodes<5> nodes({3 * 128, 3 * 49, 3 * kSides * 7, 3 * 12 * 13, 3 * 49}, 3);
  Tail tails[3], by_agreement[3 * 13];
  for (int64_t row = 0; row < p.n; row++) {
    const Guide guide = choose_guide(p, row);
    const Quat from = guide.row < 0 ? Quat{kUnit, 0, 0, 0} : p.quat(guide.row);
    int agreement = 12;
    Gibbs other = {{0, 0, 0}};
    if (guide.other >= 0) {
      other = turn(from, p.quat(guide.other));
      agreement = fine_ratio(magnitude(other.g[0]) + magnitude(other.g[1]) + magnitude(other.g[2]), 8192);
    }
    const int likeness = guide.row < 0 ? 11 : fine_ratio(guide.unlike, 131072);
    Gibbs wanted = {{0, 0, 0}};
    if constexpr (Coder::kEncodes) wanted = turn(from, p.quat(row));
    int32_t residuals[3] = {}, coded[3] = {};
    for (int c = 0; c < 3; c++) {
      const int32_t step = step_size(p.steps[3 * row + c]);
      if constexpr (Coder::kEncodes) {
        const int64_t size = magnitude(wanted.g[c]);
        const int32_t level = static_cast<int32_t>((size * 256 + static_cast<int64_t>(128 - p.dead_zone) * step) / (int64_t{256} * step));
        residuals[c] = wanted.g[c] < 0 ? -level : level;
      }
      const int before = c > 0 ? coarse_ratio(residuals[c - 1], 1) : 3, earlier = c > 1 ? coarse_ratio(residuals[c - 2], 1) : 3;
      const int contexts[5] = {
          c * 128 + p.steps[3 * row + c],
          c * 49 + before * 7 + earlier,
          (c * kSides + p.sides[2 * row + 1]) * 7 + before,
          (c * 12 + likeness) * 13 + agreement,
          c * 49 + coarse_ratio(other.g[c], step) * 7 + p.steps[3 * row + c] / 4 % 7,
      };
      nodes.begin(contexts, c);
      residuals[c] = code_residual(coder, nodes, tails[c], by_agreement[c * 13 + agreement], residuals[c]);
      const int64_t g = static_cast<int64_t>(residuals[c]) * step;
      coded[c] = static_cast<int32_t>(g > 131072 ? 131072 : g < -131072 ? -131072 : g);
    }
    const Quat q = turned(from, coded);
    int32_t* const out = p.quats + 4 * row;
    out[0] = static_cast<int32_t>(q.w), out[1] = static_cast<int32_t>(q.x), out[2] = static_cast<int32_t>(q.y), out[3] = static_cast<int32_t>(q.z);
  }
}

using Quats = Array<int32_t, nb::shape<-1, 4>>;
using Scales = Array<const int32_t, nb::shape<-1, 3>>;
using Bytes3 = Array<const uint8_t, nb::shape<-1, 3>>;
using Bytes2 = Array<const uint8_t, nb::shape<-1, 2>>;
using Ids = Array<const int32_t, nb::ndim<2>>;

Rotations rotations_of(Quats quats, Bytes3 steps, Ids neighbors, Scales scales, Bytes2 sides, int dead_zone) {
  const size_t n = quats.shape(0), k = neighbors.shape(1);
  if (steps.shape(0) != n || neighbors.shape(0) != n || scales.shape(0) != n || sides.shape(0) != n) throw nb::value_error("quats, steps, neighbors, scales and sides differ in length");
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < k; j++)
      if (neighbors.data()[i * k + j] >= static_cast<int64_t>(i)) throw nb::value_error("neighbors: expected rows before");
    if (sides.data()[2 * i] >= kSides || sides.data()[2 * i + 1] >= kSides) throw nb::value_error("sides: expected 0 to 63");
    for (int c = 0; c < 3; c++)
      if (steps.data()[3 * i + c] < kFinestTurn || steps.data()[3 * i + c] >= kStepCount) throw nb::value_error("steps: expected 8 to 127");
  }
  return {static_cast<int64_t>(n), static_cast<int>(k), quats.data(), steps.data(), neighbors.data(), scales.data(), sides.data(), dead_zone};
}

nb::bytes encode_rotations(Quats quats, Bytes3 steps, Ids neighbors, Scales scales, Bytes2 sides, int dead_zone) {
  const Rotations rotations = rotations_of(quats, steps, neighbors, scales, sides, dead_zone);
  Encoder encoder;
  std::vector<uint8_t> bytes;
  {
    nb::gil_scoped_release release;
    code_rotations(encoder, rotations);
    bytes = encoder.finish();
  }
  return as_bytes(bytes);
}

void decode_rotations(nb::bytes data, Quats quats, Bytes3 steps, Ids neighbors, Scales scales, Bytes2 sides) {
  const Rotations rotations = rotations_of(quats, steps, neighbors, scales, sides, 0);
  nb::gil_scoped_release release;
  Decoder decoder(static_cast<const uint8_t*>(data.data()), data.size());
  code_rotations(decoder, rotations);
}

}  // namespace

void bind_rotations(nb::module_& m) {
  m.def("encode_rotations", &encode_rotations, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg());
  m.def("decode_rotations", &decode_rotations, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace scene3d
