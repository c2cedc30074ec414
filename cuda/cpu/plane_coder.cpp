// Columns of numbers of N splats in Morton order, quantized with a step of their own each and coded against what is known:
// the neighbours coded before, the columns before, and two side numbers of the splat.
//
// A column is predicted as mean + gain * (weighted mean of the neighbours - mean); the residual is quantized in steps around
// the prediction (so a residual of 0 costs least and falls on what the neighbours say) and coded by mixed contexts.
// 100,000 splats of 3 columns, one core of a Zen 4: 60 ms.
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/context_mixing.h"
#include "cpu/fixed_steps.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kSides = 64;  // values a side number may have

struct Planes {
  int64_t n;
  int n_columns, n_neighbors, group;
  int32_t* values;             // [n, n_columns] fixed point; becomes what a decoder sees
  const uint8_t* steps;        // [n, n_columns] step indices
  const int32_t* neighbors;    // [n, n_neighbors] smaller than the row, or -1
  const uint8_t* distances;    // [n, n_neighbors] quarter octaves
  const uint8_t* sides;        // [n, 2]
  const int32_t *means, *gains;  // [n_columns] fixed point
  int32_t dead_zone, pull;     // of 256 steps
};

struct Guess {
  int32_t value, spread;
  int count;
};

// Mean of column c over the neighbours by inverse distance, and how far they lie from it.
Guess guess(const Planes& p, int64_t row, int c) {
  const int32_t* const ids = p.neighbors + row * p.n_neighbors;
  const uint8_t* const distances = p.distances + row * p.n_neighbors;
  int64_t sum = 0, total = 0, weights[8];
  int count = 0;
  for (; count < p.n_neighbors && ids[count] >= 0; count++) {
    const int behind = (distances[count] - distances[0]) / 3;
    weights[count] = 256 >> (behind > 8 ? 8 : behind);
    sum += weights[count] * p.values[static_cast<int64_t>(ids[count]) * p.n_columns + c];
    total += weights[count];
  }
  if (count == 0) return {p.means[c], p.gains[c], 0};
  const int32_t mean = static_cast<int32_t>(sum / total);
  int64_t deviation = 0;
  for (int k = 0; k < count; k++) {
    const int64_t off = static_cast<int64_t>(p.values[static_cast<int64_t>(ids[k]) * p.n_columns + c]) - mean;
    deviation += weights[k] * (off < 0 ? -off : off);
  }
  const int64_t centered = static_cast<int64_t>(mean) - p.means[c];
  return {static_cast<int32_t>(p.means[c] + (centered * p.gains[c] >> 16)), static_cast<int32_t>(deviation / total), count};
}

int clip(int64_t value, int limit) { return static_cast<int>(value > limit ? limit : value < -limit ? -limit : value); }

int32_t quantize(int64_t residual, int32_t step, int32_t dead_zone) {
  const int64_t size = residual < 0 ? -residual : residual;
  const int64_t level = (size * 256 + static_cast<int64_t>(128 - dead_zone) * step) / (int64_t{256} * step);
  return static_cast<int32_t>(residual < 0 ? -level : level);
}

template <class Coder>
void code_planes(Coder& coder, const Planes& p) {
  const int n = p.n_columns;
  MixedBits<7> bits({n * 12, n * 35, n * kSides, n * kSides * 7, n * 49, n * 128, n * 31 * 2}, kResidualNodes, n);
  std::vector<Escape> escapes(static_cast<size_t>(n));
  std::vector<int32_t> residuals(static_cast<size_t>(n));
  MixedBits<3> zero({(n + 1) * 8, (n + 1) * kSides, (n + 1) * 9}, 1, n + 1);
  for (int64_t row = 0; row < p.n; row++) {
    const uint8_t* const side = p.sides + 2 * row;
    int32_t* const values = p.values + row * n;
    int n_nonzero = 0;
    for (int begin = 0; begin < n; begin += p.group) {
      const int end = begin + p.group < n ? begin + p.group : n;
      Guess guesses[64];
      bool is_zero = true;
      for (int c = begin; c < end; c++) {
        guesses[c - begin] = guess(p, row, c);
        residuals[static_cast<size_t>(c)] = 0;
        if constexpr (Coder::kEncodes) {
          const int64_t off = static_cast<int64_t>(values[c]) - guesses[c - begin].value;
          residuals[static_cast<size_t>(c)] = quantize(off, step_size(p.steps[row * n + c]), p.dead_zone);
          is_zero = is_zero && residuals[static_cast<size_t>(c)] == 0;
        }
      }
      if (p.group < n) {
        const int at = begin / p.group;
        const int contexts[3] = {at * 8 + (n_nonzero > 7 ? 7 : n_nonzero), at * kSides + side[0], at * 9 + p.steps[row * n + begin] / 16};
        zero.select(contexts, at);
        is_zero = zero.code(coder, is_zero, 0);
      } else {
        is_zero = false;
      }
      for (int c = begin; c < end; c++) {
        const Guess& g = guesses[c - begin];
        const int32_t step = step_size(p.steps[row * n + c]);
        int32_t& residual = residuals[static_cast<size_t>(c)];
        if (!is_zero) {
          const int32_t before = c > 0 ? residuals[static_cast<size_t>(c - 1)] : 0, earlier = c > 1 ? residuals[static_cast<size_t>(c - 2)] : 0;
          const int32_t* const ids = p.neighbors + row * p.n_neighbors;
          int pattern = 24;
          if (g.count > 0) pattern = coarse_ratio(static_cast<int64_t>(p.values[static_cast<int64_t>(ids[0]) * n + c]) - g.value, step) * 7 + 3;
          if (g.count > 1) pattern += coarse_ratio(static_cast<int64_t>(p.values[static_cast<int64_t>(ids[1]) * n + c]) - g.value, step) - 3;
          const int spread = g.count == 0 ? 11 : fine_ratio(g.spread, step);
          const int contexts[7] = {
              c * 12 + spread,
              c * 35 + (clip(before, 3) + 3) * 5 + clip(earlier, 2) + 2,
              c * kSides + side[0],
              (c * kSides + side[1]) * 7 + clip(before, 3) + 3,
              c * 49 + pattern,
              c * 128 + p.steps[row * n + c],
              (c * 31 + clip(g.value / step, 15) + 15) * 2 + (spread > 4),
          };
          bits.select(contexts, c);
          residual = code_residual(coder, bits, escapes[static_cast<size_t>(c)], residual);
        }
        n_nonzero += residual != 0;
        const int64_t pull = residual == 0 ? 0 : static_cast<int64_t>(step) * p.pull / 256;
        const int64_t value = g.value + static_cast<int64_t>(residual) * step - (residual > 0 ? pull : -pull);
        values[c] = clip(value, 0x3FFFFFFF);
      }
    }
  }
}

using Values = Array<int32_t, nb::ndim<2>>;
using Bytes2 = Array<const uint8_t, nb::ndim<2>>;
using Ids = Array<const int32_t, nb::ndim<2>>;
using Row = Array<const int32_t, nb::ndim<1>>;

Planes planes_of(Values values, Bytes2 steps, Ids neighbors, Bytes2 distances, Bytes2 sides, Row means, Row gains, int group, int dead_zone, int pull) {
  const size_t n = values.shape(0), n_columns = values.shape(1), k = neighbors.shape(1);
  if (steps.shape(0) != n || steps.shape(1) != n_columns || neighbors.shape(0) != n || distances.shape(0) != n || distances.shape(1) != k ||
      sides.shape(0) != n || sides.shape(1) != 2 || means.shape(0) != n_columns || gains.shape(0) != n_columns)
    throw nb::value_error("values, steps, neighbors, distances, sides, means and gains do not fit together");
  if (k > 8 || n_columns < 1 || n_columns > 64 || group < 1 || group > 64) throw nb::value_error("expected 1 to 64 columns, at most 8 neighbors");
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < k; j++)
      if (neighbors.data()[i * k + j] >= static_cast<int64_t>(i)) throw nb::value_error("neighbors: expected rows before");
    if (sides.data()[2 * i] >= kSides || sides.data()[2 * i + 1] >= kSides) throw nb::value_error("sides: expected 0 to 63");
  }
  for (size_t i = 0; i < n * n_columns; i++)
    if (steps.data()[i] >= kStepCount) throw nb::value_error("steps: expected 0 to 127");
  return {static_cast<int64_t>(n), static_cast<int>(n_columns), static_cast<int>(k), group, values.data(), steps.data(), neighbors.data(),
          distances.data(), sides.data(), means.data(), gains.data(), dead_zone, pull};
}

nb::bytes encode_planes(Values values, Bytes2 steps, Ids neighbors, Bytes2 distances, Bytes2 sides, Row means, Row gains, int group, int dead_zone, int pull) {
  const Planes planes = planes_of(values, steps, neighbors, distances, sides, means, gains, group, dead_zone, pull);
  Encoder encoder;
  std::vector<uint8_t> bytes;
  {
    nb::gil_scoped_release release;
    code_planes(encoder, planes);
    bytes = encoder.finish();
  }
  return as_bytes(bytes);
}

void decode_planes(nb::bytes data, Values values, Bytes2 steps, Ids neighbors, Bytes2 distances, Bytes2 sides, Row means, Row gains, int group, int pull) {
  const Planes planes = planes_of(values, steps, neighbors, distances, sides, means, gains, group, 0, pull);
  nb::gil_scoped_release release;
  Decoder decoder(static_cast<const uint8_t*>(data.data()), data.size());
  code_planes(decoder, planes);
}

}  // namespace

void bind_planes(nb::module_& m) {
  m.def("encode_planes", &encode_planes, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg());
  m.def("decode_planes", &decode_planes, nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}

}  // namespace scene3d
