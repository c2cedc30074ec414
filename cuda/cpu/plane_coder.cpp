// Columns of numbers of N splats in Morton order, quantized with a step of their own each and coded against what is known:
// the neighbours coded before, the columns before, other numbers that a decoder already has, two side numbers of the splat.
//
// A column is predicted by a linear rule that the encoder fits and sends; the residual is quantized in steps around the
// prediction (so a residual of 0 costs least and falls on what is expected) and coded by mixed contexts.
// 100,000 splats of 3 columns, one core of a Zen 4: 40 ms.
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/node_mixing.h"
#include "cpu/fixed_steps.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kSides = 64;  // values a side number may have
constexpr int kMostColumns = 64, kMostKnown = 8, kMostNeighbors = 8;
constexpr int kRuleBits = 12;  // fractional bits of a rule's factors

struct Planes {
  int64_t n;
  int n_columns, n_neighbors, n_known, n_features, group;
  int32_t* values;             // [n, n_columns] fixed point; becomes what a decoder sees
  const uint8_t* steps;        // [n, n_columns] step indices
  const int32_t* neighbors;    // [n, n_neighbors] smaller than the row, or -1
  const uint8_t* distances;    // [n, n_neighbors] quarter octaves
  const uint8_t* sides;        // [n, 2]
  const int32_t* known;        // [n, n_known] fixed point
  const int32_t *means, *rule;  // [n_columns + n_known] fixed point; [n_columns, n_features]
  int32_t dead_zone;           // of 256 steps
};

// What the neighbours of a row say, by inverse distance: weights of 65536 in all.
struct Near {
  int count;
  int32_t weights[kMostNeighbors];
  const int32_t* ids;

  Near(const Planes& p, int64_t row) : count(0), ids(p.neighbors + row * p.n_neighbors) {
    const uint8_t* const distances = p.distances + row * p.n_neighbors;
    int32_t total = 0;
    for (; count < p.n_neighbors && ids[count] >= 0; count++) {
      const int behind = (distances[count] - distances[0]) / 3;
      weights[count] = 256 >> (behind > 8 ? 8 : behind < 0 ? 0 : behind);
      total += weights[count];
    }
    int32_t left = 65536;
    for (int k = count - 1; k > 0; k--) left -= weights[k] = weights[k] * 65536 / total;
    weights[0] = left;
  }

  int64_t mean(const int32_t* values, int width, int column, int32_t fallback) const {
    if (count == 0) return fallback;
    int64_t sum = 0;
    for (int k = 0; k < count; k++) sum += int64_t{weights[k]} * values[static_cast<int64_t>(ids[k]) * width + column];
    return sum >> 16;
  }

  int64_t spread(const int32_t* values, int width, int column, int64_t center) const {
    int64_t sum = 0;
    for (int k = 0; k < count; k++) {
      const int64_t off = values[static_cast<int64_t>(ids[k]) * width + column] - center;
      sum += weights[k] * (off < 0 ? -off : off);
    }
    return sum >> 16;
  }
};

// Numbers that the rule weighs: known columns less their neighbours' and less their means; the neighbours' mean of every
// own column less its mean; own columns before less their neighbours'. Where there is one feature only, the neighbours'
// mean of the column itself.
class Features {
 public:
  Features(const Planes& p, const Near& near, int64_t row) : p_(p) {
    for (int j = 0; p.n_features > 1 && j < p.n_known; j++) {
      const int64_t own = p.known[row * p.n_known + j], mean = p.means[p.n_columns + j];
      of_[j] = own - near.mean(p.known, p.n_known, j, static_cast<int32_t>(mean));
      of_[p.n_known + j] = own - mean;
    }
    for (int c = 0; c < p.n_columns; c++) {
      around_[c] = near.mean(p.values, p.n_columns, c, p.means[c]);
      if (p.n_features == 1) continue;
      of_[2 * p.n_known + c] = around_[c] - p.means[c];
      of_[2 * p.n_known + p.n_columns + c] = 0;
    }
  }

  int64_t around(int c) const { return around_[c]; }

  int64_t predict(int c) const {
    if (p_.n_features == 1) return p_.means[c] + ((around_[c] - p_.means[c]) * p_.rule[c] >> kRuleBits);
    int64_t sum = 0;
    for (int f = 0; f < p_.n_features; f++) sum += of_[f] * p_.rule[c * p_.n_features + f];
    return p_.means[c] + (sum >> kRuleBits);
  }

  void learn(int c, int64_t value) {
    if (p_.n_features > 1) of_[2 * p_.n_known + p_.n_columns + c] = value - around_[c];
  }

 private:
  const Planes& p_;
  int64_t of_[2 * kMostKnown + 2 * kMostColumns], around_[kMostColumns];
};

int clip(int64_t value, int limit) { return static_cast<int>(value > limit ? limit : value < -limit ? -limit : value); }

int32_t quantize(int64_t residual, int32_t step, int32_t dead_zone) {
  const int64_t size = residual < 0 ? -residual : residual;
  const int64_t level = (size * 256 + static_cast<int64_t>(128 - dead_zone) * step) / (int64_t{256} * step);
  return static_cast<int32_t>(residual < 0 ? -level : level);
}

int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }

int32_t limited(int64_t value) { return clip(value, 0x3FFFFFFF); }

// Residuals of a row and what of them says something about the next ones.
template <class Coder>
class PlaneCoder {
 public:
  PlaneCoder(Coder& coder, const Planes& p)
      : coder_(coder), p_(p), nodes_({p.n_columns * 64, p.n_columns * 49, p.n_columns * kSides, p.n_columns * kSides * 4, p.n_columns * 64}, p.n_columns * 3),
        zero_({(p.n_columns + 1) * 8, (p.n_columns + 1) * kSides, (p.n_columns + 1) * 9}, 1, p.n_columns + 1), tails_(static_cast<size_t>(p.n_columns)), by_guess_(static_cast<size_t>(p.n_columns * 32)),
        residuals_(static_cast<size_t>(p.n_columns)), energies_(static_cast<size_t>(p.n * p.n_columns)) {}

  void run() {
    const int n = p_.n_columns;
    for (int64_t row = 0; row < p_.n; row++) {
      const Near near(p_, row);
      Features features(p_, near, row);
      int n_nonzero = 0;
      for (int begin = 0; begin < n; begin += p_.group) {
        const int end = begin + p_.group < n ? begin + p_.group : n;
        const bool is_zero = p_.group < n && code_zero(row, begin, end, features, n_nonzero);
        for (int c = begin; c < end; c++) {
          code_number(row, c, near, features, is_zero);
          n_nonzero += residuals_[static_cast<size_t>(c)] != 0;
        }
      }
    }
  }

 private:
  // Whether all of a group are 0; its columns do not look at each other then.
  bool code_zero(int64_t row, int begin, int end, const Features& features, int n_nonzero) {
    bool is_zero = true;
    for (int c = begin; Coder::kEncodes && c < end; c++) {
      const int64_t off = p_.values[row * p_.n_columns + c] - features.predict(c);
      is_zero = is_zero && quantize(off, step_size(step_index(row, c)), p_.dead_zone) == 0;
    }
    const int at = begin / p_.group;
    const int contexts[3] = {at * 8 + (n_nonzero > 7 ? 7 : n_nonzero), at * kSides + p_.sides[2 * row], at * 9 + step_index(row, begin) / 16};
    zero_.select(contexts, at);
    return zero_.code(coder_, is_zero, 0);
  }

  void code_number(int64_t row, int c, const Near& near, Features& features, bool is_zero) {
    const int64_t guess = limited(features.predict(c));
    const int index = step_index(row, c);
    const int32_t step = step_size(index);
    int32_t& value = p_.values[row * p_.n_columns + c];
    int32_t& residual = residuals_[static_cast<size_t>(c)];
    residual = 0;
    if (!is_zero) {
      if constexpr (Coder::kEncodes) residual = quantize(value - guess, step, p_.dead_zone);
      look(row, c, near, features, guess, index);
      residual = code_residual(coder_, nodes_, tails_[static_cast<size_t>(c)], by_guess_[static_cast<size_t>(c * 32 + place_of(guess, step))], residual);
    }
    value = limited(guess + int64_t{residual} * step);
    features.learn(c, value);
    energies_[static_cast<size_t>(row * p_.n_columns + c)] = static_cast<uint8_t>(loudness(residual) == 0 ? 0 : loudness(residual) + index);
  }

  // Chooses the contexts of a number.
  void look(int64_t row, int c, const Near& near, const Features& features, int64_t guess, int index) {
    const int n = p_.n_columns;
    const int32_t step = step_size(index);
    const int32_t before = c > 0 ? residuals_[static_cast<size_t>(c - 1)] : 0, earlier = c > 1 ? residuals_[static_cast<size_t>(c - 2)] : 0;
    int loud = 0;
    for (int k = 0; k < near.count && k < 3; k++) loud += (k == 0 ? 2 : 1) * energy(near.ids[k], c, index);
    // Of up to three neighbours the first counts twice.
    loud = near.count == 0 ? 15 : loud * (near.count > 2 ? 3 : near.count > 1 ? 4 : 6) / 24;
    if (loud > 15) loud = 15;
    const int spread = near.count == 0 ? 15 : octave_ratio(near.spread(p_.values, n, c, features.around(c)), index);
    const uint8_t* const side = p_.sides + 2 * row;
    const int contexts[5] = {
        c * 64 + spread * 4 + (loud >> 2),
        c * 49 + signed_size(before) * 7 + signed_size(earlier),
        c * kSides + side[0],
        (c * kSides + side[1]) * 4 + big(before),
        (c * 32 + place_of(guess, step)) * 2 + (spread > 6),
    };
    nodes_.begin(contexts, c * 3 + (loud < 5 ? 0 : loud < 8 ? 1 : 2));
  }

  int step_index(int64_t row, int c) const { return p_.steps[row * p_.n_columns + c]; }

  // Size of a neighbour's residual in steps of this one, half octaves: 0 none or below a quarter step.
  int energy(int64_t row, int c, int index) const {
    const int quarter = energies_[static_cast<size_t>(row * p_.n_columns + c)];
    const int half = quarter == 0 ? 0 : (quarter - index) / 2 + 2;
    return half < 0 ? 0 : half > 15 ? 15 : half;
  }

  // Quarter octaves of a residual's size, from 4 on; 0 for none.
  static int loudness(int32_t residual) {
    const uint32_t size = static_cast<uint32_t>(residual < 0 ? -residual : residual);
    if (size == 0) return 0;
    const int top = 31 - __builtin_clz(size);
    const int quarters = static_cast<int>((uint64_t{size} << 2 >> top) & 3);
    const int found = 4 + 4 * top + quarters;
    return found > 120 ? 120 : found;
  }

  // value / step on a logarithmic scale, half octaves: 0 below a quarter, at most 14.
  static int octave_ratio(int64_t value, int index) {
    if (value <= 0) return 0;
    const int top = 63 - __builtin_clzll(static_cast<uint64_t>(value));
    const int quarters = 4 * top + static_cast<int>((static_cast<uint64_t>(value) << 2 >> top) & 3);
    const int half = (quarters - 4 * 16 - (index - kStepOne)) / 2 + 4;
    return half < 0 ? 0 : half > 14 ? 14 : half;
  }

  static int place_of(int64_t guess, int32_t step) { return clip(static_cast<int32_t>(guess) / step, 15) + 15; }

  static int big(int32_t residual) { return magnitude(residual) < 1 ? 0 : magnitude(residual) < 3 ? 1 : magnitude(residual) < 7 ? 2 : 3; }
  static int signed_size(int32_t residual) { return residual < 0 ? 3 - big(residual) : 3 + big(residual); }

  Coder& coder_;
  const Planes& p_;
  MixedNodes<5> nodes_;
  MixedBits<3> zero_;
  std::vector<Tail> tails_, by_guess_;
  std::vector<int32_t> residuals_;
  std::vector<uint8_t> energies_;
};

using Values = Array<int32_t, nb::ndim<2>>;
using Bytes2 = Array<const uint8_t, nb::ndim<2>>;
using Table = Array<const int32_t, nb::ndim<2>>;
using Row = Array<const int32_t, nb::ndim<1>>;

Planes planes_of(Values values, Bytes2 steps, Table neighbors, Bytes2 distances, Bytes2 sides, Table known, Row means, Table rule, int group, int dead_zone) {
  const size_t n = values.shape(0), n_columns = values.shape(1), k = neighbors.shape(1), n_known = known.shape(1);
  if (k > kMostNeighbors || n_columns < 1 || n_columns > kMostColumns || group < 1 || n_known > kMostKnown)
    throw nb::value_error("expected 1 to 64 columns, at most 8 neighbors and 8 known columns");
  const size_t n_features = 2 * (n_columns + n_known);
  if (steps.shape(0) != n || steps.shape(1) != n_columns || neighbors.shape(0) != n || distances.shape(0) != n || distances.shape(1) != k ||
      sides.shape(0) != n || sides.shape(1) != 2 || known.shape(0) != n || means.shape(0) != n_columns + n_known || rule.shape(0) != n_columns ||
      (rule.shape(1) != n_features && rule.shape(1) != 1))
    throw nb::value_error("values, steps, neighbors, distances, sides, known, means and rule do not fit together");
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < k; j++)
      if (neighbors.data()[i * k + j] >= static_cast<int64_t>(i)) throw nb::value_error("neighbors: expected rows before");
    if (sides.data()[2 * i] >= kSides || sides.data()[2 * i + 1] >= kSides) throw nb::value_error("sides: expected 0 to 63");
  }
  for (size_t i = 0; i < n * n_columns; i++)
    if (steps.data()[i] >= kStepCount) throw nb::value_error("steps: expected 0 to 127");
  return {static_cast<int64_t>(n), static_cast<int>(n_columns), static_cast<int>(k), static_cast<int>(n_known), static_cast<int>(rule.shape(1)), group, values.data(), steps.data(),
          neighbors.data(), distances.data(), sides.data(), known.data(), means.data(), rule.data(), dead_zone};
}

nb::bytes encode_planes(Values values, Bytes2 steps, Table neighbors, Bytes2 distances, Bytes2 sides, Table known, Row means, Table rule, int group, int dead_zone) {
  const Planes planes = planes_of(values, steps, neighbors, distances, sides, known, means, rule, group, dead_zone);
  std::vector<uint8_t> bytes;
  {
    nb::gil_scoped_release release;
    Encoder encoder;
    PlaneCoder<Encoder>(encoder, planes).run();
    bytes = encoder.finish();
  }
  return as_bytes(bytes);
}

void decode_planes(nb::bytes data, Values values, Bytes2 steps, Table neighbors, Bytes2 distances, Bytes2 sides, Table known, Row means, Table rule, int group) {
  const Planes planes = planes_of(values, steps, neighbors, distances, sides, known, means, rule, group, 0);
  nb::gil_scoped_release release;
  Decoder decoder(static_cast<const uint8_t*>(data.data()), data.size());
  PlaneCoder<Decoder>(decoder, planes).run();
}

}  // namespace

void bind_planes(nb::module_& m) {
  const auto fixed = nb::arg().noconvert();
  m.def("encode_planes", &encode_planes, fixed, fixed, fixed, fixed, fixed, fixed, fixed, fixed, nb::arg(), nb::arg());
  m.def("decode_planes", &decode_planes, nb::arg(), fixed, fixed, fixed, fixed, fixed, fixed, fixed, fixed, nb::arg());
}

}  // namespace scene3d
