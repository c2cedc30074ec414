// Layers of numbers made three times as fine: whether each is one below, at, or one above three times its coarse value.
//
// All coarse numbers are known before the first fine one, so that a place is seen from all sides: what follows it is
// guessed from coarse neighbours, what came before it from fine ones. 80 ns a number on a Zen 4.
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/context_mixing.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kFiner = 3;

int size_of(int value) { return value < 0 ? -value : value; }

int bounded(int value, int limit) { return value < -limit ? -limit : value > limit ? limit : value; }

int at_most(int value, int limit) { return value < limit ? value : limit; }

// Sign and size of a coarse number: 0 to 8, 4 for 0.
int size_class(int value) {
  const int size = size_of(value), step = size < 3 ? size : size < 5 ? 3 : 4;
  return value < 0 ? 4 - step : 4 + step;
}

// The places around each: those before, and those after it.
struct Around {
  const int32_t* above;
  std::vector<int64_t> below;
  int64_t n;

  Around(const int32_t* above_, int64_t n_) : above(above_), below(static_cast<size_t>(n_), -1), n(n_) {
    for (int64_t i = 0; i < n; i++)
      if (above[i] >= 0) below[static_cast<size_t>(above[i])] = i;
  }
  // The one before and above, where the row goes on there; else that above.
  int64_t corner(int64_t i) const { return above[i] > 0 && i > 0 && above[i - 1] == above[i] - 1 ? above[i] - 1 : above[i]; }
};

// What is known of a layer when place i is coded, as contexts.
struct RefinedContexts {
  int values[8];
  int set;

  RefinedContexts(const Around& around, const int32_t* coarse, const int32_t* fine, const int32_t* last,
                  const int32_t* last_coarse, int64_t i) {
    const int64_t at = around.above[i], after = around.below[static_cast<size_t>(i)], corner = around.corner(i);
    const int c = coarse[i], scaled = kFiner * c;
    const int west = i > 0 ? fine[i - 1] : scaled, north = at >= 0 ? fine[at] : west;
    const int ce = i + 1 < around.n ? coarse[i + 1] : c, cs = after >= 0 ? coarse[after] : ce;
    const int cw = i > 0 ? coarse[i - 1] : c, cn = at >= 0 ? coarse[at] : cw;
    // Between all four, in quarters; and on the plane through those before.
    const int middle = bounded(west + north + kFiner * (ce + cs) - 4 * scaled, 15) + 15;
    const int plane = bounded(west + north - (corner >= 0 ? fine[corner] : north) - scaled, 7) + 7;
    const int spread = at_most((size_of(cw - c) + size_of(cn - c) + size_of(ce - c) + size_of(cs - c) + 1) / 2, 7);
    const int loud = at_most(size_of(cw) + size_of(cn) + size_of(ce) + size_of(cs), 15);
    const int dw = west - kFiner * cw + 1, dn = north - kFiner * cn + 1, dd = last ? last[i] - kFiner * last_coarse[i] + 1 : 1;
    const int size = size_class(c), sign = (c > 0) - (c < 0) + 1;
    const int all[8] = {size * 8 + spread,
                        middle * 9 + size,
                        middle * 8 + spread,
                        plane * 9 + at_most(dw, 2) * 3 + at_most(dn, 2),
                        plane * 9 + size,
                        ((at_most(dw, 2) * 3 + at_most(dn, 2)) * 3 + dd) * 9 + size,
                        (at_most(size_of(west), 7) * 8 + at_most(size_of(north), 7)) * 3 + sign,
                        (loud * 4 + (last_coarse ? at_most(size_of(last_coarse[i]), 3) : 0)) * 3 + sign};
    for (int k = 0; k < 8; k++) values[k] = all[k];
    set = at_most(size_of(c), 2);
  }
};

template <class Coder>
void code_refined(Coder& coder, int32_t* fine, const int32_t* coarse, const int32_t* above, int64_t n, int64_t n_layers) {
  MixedBits<8> bits({9 * 8, 31 * 9, 31 * 8, 15 * 9, 15 * 9, 27 * 9, 64 * 3, 64 * 3}, 2, 3);
  const Around around(above, n);
  for (int64_t layer = 0; layer < n_layers; layer++) {
    int32_t* const here = fine + layer * n;
    const int32_t* const known = coarse + layer * n;
    for (int64_t i = 0; i < n; i++) {
      const RefinedContexts contexts(around, known, here, layer > 0 ? here - n : nullptr, layer > 0 ? known - n : nullptr, i);
      bits.select(contexts.values, contexts.set);
      const int off = here[i] - kFiner * known[i];
      const bool is_same = bits.code(coder, off == 0, 0);
      here[i] = kFiner * known[i] + (is_same ? 0 : bits.code(coder, off > 0, 1) ? 1 : -1);
    }
  }
}

using Layers = Array<int32_t, nb::ndim<2>>;
using Coarse = Array<const int32_t, nb::ndim<2>>;
using Above = Array<const int32_t, nb::ndim<1>>;

void check(const Layers& fine, const Coarse& coarse, const Above& above) {
  if (fine.shape(0) != coarse.shape(0) || fine.shape(1) != coarse.shape(1))
    throw nb::value_error("coarse: expected as many as fine numbers");
  if (fine.shape(1) != above.shape(0)) throw nb::value_error("above: expected one number for each place");
  for (size_t i = 0; i < above.shape(0); i++)
    if (above.data()[i] < -1 || above.data()[i] >= static_cast<int64_t>(i))
      throw nb::value_error("above: expected earlier places");
  for (size_t i = 0; i < coarse.size(); i++)
    if (coarse.data()[i] < -(1 << 24) || coarse.data()[i] > 1 << 24) throw nb::value_error("coarse: expected less than 2^24");
}

}  // namespace

void bind_refinement(nb::module_& m) {
  const auto fixed = nb::arg().noconvert();
  m.def(
      "encode_refined",
      [](Layers fine, Coarse coarse, Above above) {
        check(fine, coarse, above);
        for (size_t i = 0; i < fine.size(); i++)
          if (size_of(fine.data()[i] - kFiner * coarse.data()[i]) > 1)
            throw nb::value_error("fine: expected three times coarse, give or take one");
        std::vector<uint8_t> bytes;
        {
          nb::gil_scoped_release release;
          Encoder coder;
          code_refined(coder, fine.data(), coarse.data(), above.data(), static_cast<int64_t>(fine.shape(1)),
                       static_cast<int64_t>(fine.shape(0)));
          bytes = coder.finish();
        }
        return as_bytes(bytes);
      },
      fixed, fixed, fixed);
  m.def(
      "decode_refined",
      [](nb::bytes data, Layers fine, Coarse coarse, Above above) {
        check(fine, coarse, above);
        nb::gil_scoped_release release;
        Decoder coder(static_cast<const uint8_t*>(data.data()), data.size());
        code_refined(coder, fine.data(), coarse.data(), above.data(), static_cast<int64_t>(fine.shape(1)),
                     static_cast<int64_t>(fine.shape(0)));
      },
      nb::arg(), fixed, fixed, fixed);
}

}  // namespace scene3d
