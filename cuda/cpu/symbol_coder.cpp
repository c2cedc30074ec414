// Plain adaptive symbols, raw bits and the bytes of floats, for codecs that need no more.
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"
#include "cpu/coded_bytes.h"
#include "cpu/context_mixing.h"
#include "cpu/range_coder.h"

namespace scene3d {
namespace {

constexpr int kDirectBits = 8;  // symbols of more bits share the counters of their low bits

// A symbol as the path through a binary tree, highest bit first: seen from the symbol before, the two before, and nothing.
template <class Coder>
void code_symbols(Coder& coder, int32_t* symbols, int64_t n, int n_bits) {
  const int n_high = n_bits < kDirectBits ? n_bits : kDirectBits, n_low = n_bits - n_high;
  MixedBits<3> bits({1, 1 << n_high, 1 << n_high}, 1 << n_high, 1);
  std::vector<Counter> low(n_low > 0 ? size_t{1} << (n_bits + 1 < 20 ? n_bits + 1 : 20) : 0);
  int before = 0, earlier = 0;
  for (int64_t i = 0; i < n; i++) {
    const int symbol = symbols[i];
    const int contexts[3] = {0, before, earlier};
    bits.select(contexts, 0);
    int node = 1;
    for (int b = n_bits - 1; b >= n_low; b--) node = node << 1 | bits.code(coder, symbol >> b & 1, node);
    earlier = before;
    before = node - (1 << n_high);
    for (int b = n_low - 1; b >= 0; b--) node = node << 1 | code_bit(coder, symbol >> b & 1, low[static_cast<size_t>(node) & (low.size() - 1)]);
    symbols[i] = node - (1 << n_bits);
  }
}

// A symbol whose magnitude is folded into it (0, -1, 1, -2 ...), as far as it tells contexts apart.
int magnitude(int symbol) { return symbol + 1 < 32 ? (symbol + 1) / 2 : 15; }

int unfolded(int symbol) { return symbol & 1 ? -(symbol + 1) / 2 : symbol / 2; }

// -20 to 20 as they are, then ever wider steps: 0 to 62.
int bucket(int value) {
  const int size = value < 0 ? -value : value;
  int place = size <= 20 ? size : 20 + 2 * (31 - __builtin_clz(static_cast<unsigned>(size) / 10));
  place = place > 31 ? 31 : place;
  return value < 0 ? 31 - place : 31 + place;
}

// Layers of n numbers, layer after layer, folded; above: of each place one before it where similar numbers are, -1: none.
// Seen from the two symbols before, those above and beside that, what a plane through them gives, and how large they and
// that of the layer before are.
template <class Coder>
void code_layers(Coder& coder, int32_t* symbols, const int32_t* above, int64_t n, int64_t n_layers, int n_bits) {
  const int n_high = n_bits < kDirectBits ? n_bits : kDirectBits, n_low = n_bits - n_high;
  MixedBits<8> bits({1, 1 << n_high, 1 << n_high, 1 << n_high, 31 * 16, 16 * 16, 63 * 8, 63 * 8}, 1 << n_high, 1);
  std::vector<Counter> low(n_low > 0 ? size_t{1} << (n_bits + 1 < 20 ? n_bits + 1 : 20) : 0);
  for (int64_t layer = 0; layer < n_layers; layer++) {
    int32_t* const here = symbols + layer * n;
    const int32_t* const last = layer > 0 ? here - n : nullptr;
    for (int64_t i = 0; i < n; i++) {
      const int before = i > 0 ? here[i - 1] >> n_low : 0, earlier = i > 1 ? here[i - 2] >> n_low : 0;
      const int up = above[i] >= 0 ? here[above[i]] >> n_low : before, depth = last ? last[i] >> n_low : 0;
      const int64_t at = above[i];
      const int west = i > 0 ? here[i - 1] : 0, north = at >= 0 ? here[at] : west;
      // Beside the one above, where the row goes on there.
      const int corner = at > 0 && i > 0 && above[i - 1] == at - 1 ? here[at - 1] : north;
      const int beyond = at >= 0 && i + 1 < n && above[i + 1] == at + 1 && at + 1 < i ? here[at + 1] : north;
      const int w = unfolded(west), no = unfolded(north), plane = w + no - unfolded(corner);
      const int around = magnitude(before) + magnitude(up), symbol = here[i];
      const int spread = (around + magnitude(depth)) / 3, size = spread > 7 ? 7 : spread;
      const int contexts[8] = {0, before, earlier, up, around * 16 + magnitude(depth), magnitude(earlier) * 16 + magnitude(up),
                               bucket(plane) * 8 + size, bucket(w + no + unfolded(beyond)) * 8 + size};
      bits.select(contexts, 0);
      int node = 1;
      for (int b = n_bits - 1; b >= n_low; b--) node = node << 1 | bits.code(coder, symbol >> b & 1, node);
      for (int b = n_low - 1; b >= 0; b--) node = node << 1 | code_bit(coder, symbol >> b & 1, low[static_cast<size_t>(node) & (low.size() - 1)]);
      here[i] = node - (1 << n_bits);
    }
  }
}

// Bits that decisions of a probability cost, of 65536 a bit, by the highest 8 bits of the probability.
struct CostTable {
  uint32_t cost[256];

  // log2 by repeated squaring: no floating point, so no machine's own rounding.
  CostTable() {
    for (uint32_t i = 0; i < 256; i++) {
      const uint32_t p = 2 * i + 1;  // of 512
      const int top = 31 - __builtin_clz(p);
      uint64_t x = static_cast<uint64_t>(p) << (31 - top);  // 1..2 of 2^31
      uint32_t fraction = 0;
      for (int k = 0; k < 16; k++) {
        x = x * x >> 31;
        fraction <<= 1;
        if (x >> 32) x >>= 1, fraction |= 1;
      }
      cost[i] = (static_cast<uint32_t>(9 - top) << 16) - fraction;
    }
  }
};

// Whether a byte of a column is noise to the models: of each period of rows the first are coded by them and counted, the
// others as they are if that has saved nothing.
class Noise {
 public:
  void learn(int64_t row, uint32_t cost) {
    if (row / kPeriod != period_) period_ = row / kPeriod, spent_ = counted_ = 0;
    if (row % kPeriod >= kAsked - kCounted) spent_ += cost, counted_++;
  }

  bool is_raw(int64_t row) const { return row % kPeriod >= kAsked && counted_ >= kEnough && spent_ >= counted_ * kNoise; }

 private:
  static constexpr int64_t kPeriod = 1 << 15, kAsked = 1 << 12, kCounted = 1 << 11;
  static constexpr uint64_t kEnough = 256, kNoise = (8 << 16) - (1 << 16) / 20;  // a twentieth of a bit below eight

  int64_t period_ = -1;
  uint64_t spent_ = 0, counted_ = 0;
};

// 32-bit words of `n_columns` planes, row by row: whether a word is that of the row before; else the difference to it in an
// order-preserving code, byte by byte from the highest, seen from the bytes above it and from those of the column before.
template <class Coder>
class WordCoder {
 public:
  WordCoder(Coder& coder, int n_columns)
      : coder_(coder), n_(n_columns), same_({n_ * 4, n_ * 8}, 1, n_), bits_({n_ * 4, n_ * 4 * 256, n_ * 4 * 256, 4 * 256}, 256, n_ * 4),
        noise_(static_cast<size_t>(n_) * 4), before_(static_cast<size_t>(n_)), tops_(static_cast<size_t>(n_)), was_(static_cast<size_t>(n_)) {}

  void run(uint32_t* words, int64_t n_rows) {
    for (int64_t row = 0; row < n_rows; row++) {
      left_ = same_left_ = 0;
      for (int c = 0; c < n_; c++) code(words[row * n_ + c], row, c);
    }
  }

 private:
  void code(uint32_t& word, int64_t row, int c) {
    const size_t at = static_cast<size_t>(c);
    const int contexts[2] = {c * 4 + (was_[at] & 3), c * 8 + same_left_ * 2 + (was_[at] & 1)};
    same_.select(contexts, c);
    const int is_same = same_.code(coder_, word == before_[at], 0);
    was_[at] = static_cast<uint8_t>(was_[at] << 1 | is_same);
    same_left_ = (same_left_ << 1 | is_same) & 3;
    const uint32_t folded = is_same ? 0 : code_difference(fold(word - before_[at]), row, c);
    tops_[at] = left_ = folded;
    word = before_[at] += unfold(folded);
  }

  uint32_t code_difference(uint32_t folded, int64_t row, int c) {
    uint32_t coded = 0;
    for (int byte = 3; byte >= 0; byte--) {
      Noise& noise = noise_[static_cast<size_t>(c * 4 + byte)];
      const int value = static_cast<int>(folded >> 8 * byte & 255);
      if (noise.is_raw(row)) {
        coded = coded << 8 | coder_.uniform(static_cast<uint32_t>(value), 256);
        continue;
      }
      uint32_t cost = 0;
      coded = coded << 8 | static_cast<uint32_t>(code_byte(value, byte, c, coded & 255, cost));
      noise.learn(row, cost);
    }
    return coded;
  }

  int code_byte(int value, int byte, int c, uint32_t above, uint32_t& cost) {
    static const CostTable costs;
    const int at = c * 4 + byte;
    const int up = static_cast<int>(tops_[static_cast<size_t>(c)] >> 8 * byte & 255), left = static_cast<int>(left_ >> 8 * byte & 255);
    const int contexts[4] = {at, at * 256 + static_cast<int>(above), at * 256 + up, byte * 256 + left};
    bits_.select(contexts, at);
    int node = 1;
    for (int b = 7; b >= 0; b--) {
      node = node << 1 | bits_.code(coder_, value >> b & 1, node);
      cost += costs.cost[bits_.last_probability() >> 8];
    }
    return node & 255;
  }

  // Signs folded, so that small differences of either sign have high bytes of 0.
  static uint32_t fold(uint32_t difference) { return difference << 1 ^ (difference >> 31 ? 0xFFFFFFFFu : 0); }
  static uint32_t unfold(uint32_t folded) { return folded >> 1 ^ (folded & 1 ? 0xFFFFFFFFu : 0); }

  Coder& coder_;
  int n_;
  MixedBits<2> same_;
  MixedBits<4> bits_;
  std::vector<Noise> noise_;
  std::vector<uint32_t> before_, tops_;
  std::vector<uint8_t> was_;
  uint32_t left_ = 0;
  int same_left_ = 0;
};

// The lowest counts[i] bits of values[i], as they are.
template <class Coder>
void code_raw(Coder& coder, uint32_t* values, const uint8_t* counts, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t value = 0;
    for (int left = counts[i]; left > 0;) {
      const int take = left < 16 ? left : 16;
      left -= take;
      value = value << take | coder.uniform(values[i] >> left & ((1u << take) - 1), 1u << take);
    }
    values[i] = value;
  }
}

using Symbols = Array<int32_t, nb::ndim<1>>;
using Layers = Array<int32_t, nb::ndim<2>>;
using Above = Array<const int32_t, nb::ndim<1>>;
using Words = Array<uint32_t, nb::ndim<2>>;
using Raw = Array<uint32_t, nb::ndim<1>>;
using Counts = Array<const uint8_t, nb::ndim<1>>;

template <class Body>
nb::bytes encoded(Body&& body) {
  std::vector<uint8_t> bytes;
  {
    nb::gil_scoped_release release;
    Encoder encoder;
    body(encoder);
    bytes = encoder.finish();
  }
  return as_bytes(bytes);
}

template <class Body>
void decoded(const nb::bytes& data, Body&& body) {
  nb::gil_scoped_release release;
  Decoder decoder(static_cast<const uint8_t*>(data.data()), data.size());
  body(decoder);
}

void check_bits(int n_bits) {
  if (n_bits < 1 || n_bits > 16) throw nb::value_error("n_bits: expected 1 to 16");
}

void check_layers(const Layers& symbols, const Above& above) {
  if (symbols.shape(1) != above.shape(0)) throw nb::value_error("above: expected one number for each place");
  for (size_t i = 0; i < above.shape(0); i++)
    if (above.data()[i] < -1 || above.data()[i] >= static_cast<int64_t>(i)) throw nb::value_error("above: expected earlier places");
}

void check_columns(const Words& words) {
  if (words.shape(1) < 1 || words.shape(1) > 64) throw nb::value_error("words: expected 1 to 64 columns");
}

void check_counts(const Raw& values, const Counts& counts) {
  if (values.shape(0) != counts.shape(0)) throw nb::value_error("values and counts differ in length");
  for (size_t i = 0; i < counts.shape(0); i++)
    if (counts.data()[i] > 32) throw nb::value_error("counts: expected 0 to 32");
}

}  // namespace

void bind_symbols(nb::module_& m) {
  const auto fixed = nb::arg().noconvert();
  m.def("encode_symbols", [](Symbols symbols, int n_bits) {
    check_bits(n_bits);
    return encoded([&](Encoder& coder) { code_symbols(coder, symbols.data(), static_cast<int64_t>(symbols.shape(0)), n_bits); });
  }, fixed, nb::arg());
  m.def("decode_symbols", [](nb::bytes data, Symbols symbols, int n_bits) {
    check_bits(n_bits);
    decoded(data, [&](Decoder& coder) { code_symbols(coder, symbols.data(), static_cast<int64_t>(symbols.shape(0)), n_bits); });
  }, nb::arg(), fixed, nb::arg());
  m.def("encode_layers", [](Layers symbols, Above above, int n_bits) {
    check_bits(n_bits), check_layers(symbols, above);
    const int64_t n = static_cast<int64_t>(symbols.shape(1)), n_layers = static_cast<int64_t>(symbols.shape(0));
    return encoded([&](Encoder& coder) { code_layers(coder, symbols.data(), above.data(), n, n_layers, n_bits); });
  }, fixed, fixed, nb::arg());
  m.def("decode_layers", [](nb::bytes data, Layers symbols, Above above, int n_bits) {
    check_bits(n_bits), check_layers(symbols, above);
    const int64_t n = static_cast<int64_t>(symbols.shape(1)), n_layers = static_cast<int64_t>(symbols.shape(0));
    decoded(data, [&](Decoder& coder) { code_layers(coder, symbols.data(), above.data(), n, n_layers, n_bits); });
  }, nb::arg(), fixed, fixed, nb::arg());
  m.def("encode_words", [](Words words) {
    check_columns(words);
    return encoded([&](Encoder& coder) { WordCoder(coder, static_cast<int>(words.shape(1))).run(words.data(), static_cast<int64_t>(words.shape(0))); });
  }, fixed);
  m.def("decode_words", [](nb::bytes data, Words words) {
    check_columns(words);
    decoded(data, [&](Decoder& coder) { WordCoder(coder, static_cast<int>(words.shape(1))).run(words.data(), static_cast<int64_t>(words.shape(0))); });
  }, nb::arg(), fixed);
  m.def("encode_raw", [](Raw values, Counts counts) {
    check_counts(values, counts);
    return encoded([&](Encoder& coder) { code_raw(coder, values.data(), counts.data(), static_cast<int64_t>(values.shape(0))); });
  }, fixed, fixed);
  m.def("decode_raw", [](nb::bytes data, Raw values, Counts counts) {
    check_counts(values, counts);
    decoded(data, [&](Decoder& coder) { code_raw(coder, values.data(), counts.data(), static_cast<int64_t>(values.shape(0))); });
  }, nb::arg(), fixed, fixed);
}

}  // namespace scene3d
