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

// 32-bit words of `n_columns` planes, row by row: as differences to the row before in an order-preserving code, byte by
// byte from the highest, seen from the bytes above it and from those of the column before.
template <class Coder>
void code_words(Coder& coder, uint32_t* words, int64_t n, int n_columns) {
  MixedBits<4> bits({n_columns * 4, n_columns * 4 * 256, n_columns * 4 * 256, 4 * 256}, 256, n_columns * 4);
  std::vector<uint32_t> before(static_cast<size_t>(n_columns), 0), tops(static_cast<size_t>(n_columns), 0);
  for (int64_t i = 0; i < n; i++) {
    uint32_t left = 0;
    for (int c = 0; c < n_columns; c++) {
      uint32_t& word = words[i * n_columns + c];
      // Signs folded, so that small differences of either sign have high bytes of 0.
      const uint32_t difference = word - before[static_cast<size_t>(c)];
      const uint32_t folded = difference << 1 ^ (difference >> 31 ? 0xFFFFFFFFu : 0);
      uint32_t coded = 0;
      for (int byte = 3; byte >= 0; byte--) {
        const int at = c * 4 + byte, above = static_cast<int>(coded & 255);
        const int contexts[4] = {at, at * 256 + above, at * 256 + static_cast<int>(tops[static_cast<size_t>(c)] >> 8 * byte & 255), byte * 256 + static_cast<int>(left >> 8 * byte & 255)};
        bits.select(contexts, at);
        int node = 1;
        for (int b = 7; b >= 0; b--) node = node << 1 | bits.code(coder, folded >> (8 * byte + b) & 1, node);
        coded = coded << 8 | static_cast<uint32_t>(node & 255);
      }
      tops[static_cast<size_t>(c)] = left = coded;
      const uint32_t back = coded >> 1 ^ (coded & 1 ? 0xFFFFFFFFu : 0);
      word = before[static_cast<size_t>(c)] += back;
    }
  }
}

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
  m.def("encode_words", [](Words words) {
    check_columns(words);
    return encoded([&](Encoder& coder) { code_words(coder, words.data(), static_cast<int64_t>(words.shape(0)), static_cast<int>(words.shape(1))); });
  }, fixed);
  m.def("decode_words", [](nb::bytes data, Words words) {
    check_columns(words);
    decoded(data, [&](Decoder& coder) { code_words(coder, words.data(), static_cast<int64_t>(words.shape(0)), static_cast<int>(words.shape(1))); });
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
