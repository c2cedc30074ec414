// The decoder over threads: rows in fixed chunks, one set of gradients for each chunk, summed in their order.
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "cpu/field_native.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kDecodeGrain = 256, kReduceGrain = 1024;

template <class T>
using Values = FieldValues<T>;

void expect(bool holds, const char* problem) {
  if (!holds) throw nb::value_error(problem);
}

template <class T>
void pack(NativeDecoder<T>& self, int l, const T* w, const T* bias) {
  const int columns = NativeDecoder<T>::padded(self.n_out[l]);
  T* const straight = self.weights[l].reserve(static_cast<size_t>(self.n_in[l]) * columns);
  T* const across = self.transposed[l].reserve(static_cast<size_t>(self.n_in[l]) * columns);
  T* const offsets = self.biases[l].reserve(static_cast<size_t>(columns));
  for (int j = 0; j < columns; j++) {
    const bool is_real = j < self.n_out[l];
    offsets[j] = bias && is_real ? bias[j] : T(0);
    for (int i = 0; i < self.n_in[l]; i++)
      straight[i * columns + j] = across[j * self.n_in[l] + i] = is_real ? w[i * self.n_out[l] + j] : T(0);
  }
}

// weights: [n_in, n_out] of each layer; biases of all but the first.
template <class T>
void set_layers(NativeDecoder<T>& self, const std::vector<Values<const T>>& w, const std::vector<Values<const T>>& b) {
  const bool has_network = w.size() == kDecoderLayers;
  expect((has_network || w.size() == 1) && b.size() + 1 == w.size(), "decoder: wrong number of layers");
  self.n_layers = static_cast<int>(w.size());
  for (int l = 0; l < self.n_layers; l++) {
    expect(w[l].ndim() == 2, "decoder: expected matrices");
    self.n_in[l] = static_cast<int>(w[l].shape(0)), self.n_out[l] = static_cast<int>(w[l].shape(1));
    const bool is_last = l == kDecoderLayers - 1;
    expect(self.n_in[l] % kLanes == 0 && self.n_in[l] > 0 && (is_last ? self.n_out[l] == 3 : self.n_out[l] % kLanes == 0),
           "decoder: expected widths that are multiples of 16");
    expect(l == 0 || b[l - 1].size() == static_cast<size_t>(self.n_out[l]), "decoder: a bias has the wrong size");
    pack(self, l, w[l].data(), l == 0 ? nullptr : b[l - 1].data());
  }
  expect(has_network || self.n_out[0] == 3 * kDirectionTerms, "decoder: expected 16 harmonics of each channel");
  if (!has_network) return;
  expect(self.n_in[1] == 5 * self.n_out[0] + kDirectionTerms && self.n_in[2] == self.n_out[1] &&
             self.n_in[3] == self.n_out[2],
         "decoder: the layers do not follow from each other");
}

// Where the gradients of a layer begin; of no layer: their number. Columns are padded.
template <class T>
size_t offset(const NativeDecoder<T>& d, int layer, bool of_bias) {
  size_t at = 0;
  for (int l = 0; l < layer; l++) at += static_cast<size_t>(d.n_in[l] + 1) * d.padded(d.n_out[l]);
  return of_bias ? at + static_cast<size_t>(d.n_in[layer]) * d.padded(d.n_out[layer]) : at;
}

template <class T>
size_t grad_size(const NativeDecoder<T>& d) {
  return offset(d, d.n_layers, false);
}

template <class T>
DecoderGrads<T> grads_in(const NativeDecoder<T>& d, T* memory) {
  DecoderGrads<T> g = {};
  for (int l = 0; l < d.n_layers; l++)
    g.weights[l] = memory + offset(d, l, false), g.biases[l] = l == 0 ? nullptr : memory + offset(d, l, true);
  return g;
}

template <class T>
using Matrix2 = Array<T, nb::ndim<2>>;
template <class T>
using Column = Array<T, nb::ndim<1>>;

template <class T>
int64_t set_rows(DecoderCall<T>& c, const Matrix2<const T>& features, const Column<const T>& opacity,
                 const Matrix2<const T>& directions) {
  const size_t n = features.shape(0);
  expect(static_cast<int>(features.shape(1)) == c.n_features, "features: wrong number of columns");
  expect(opacity.size() == n && directions.shape(0) == n && directions.shape(1) == 3, "rows differ in number");
  c.features = features.data(), c.opacity = opacity.data(), c.directions = directions.data();
  return static_cast<int64_t>(n);
}

template <class T>
T* thread_scratch(size_t n) {
  thread_local Buffer<T> scratch;
  return scratch.reserve(n);
}

template <class T>
void call_decode(const NativeDecoder<T>& decoder, const Matrix2<const T>& features, const Column<const T>& opacity,
                 const Matrix2<const T>& directions, const Matrix2<T>& colors) {
  DecoderCall<T> c = decoder.call();
  const int64_t n = set_rows(c, features, opacity, directions);
  expect(static_cast<int64_t>(colors.size()) == 3 * n, "colors: wrong size");
  c.colors = colors.data();
  nb::gil_scoped_release release;
  const auto decode = field_table<T>().decode;
  parallel_ranges(n, kDecodeGrain, [&](int64_t begin, int64_t end) {
    decode(c, begin, end, thread_scratch<T>(decoder_scratch(c)));
  });
}

// Sums the gradients of all chunks in their order, and drops the padding.
template <class T>
void reduce(const NativeDecoder<T>& decoder, const T* partial, int64_t n_chunks, T* sum) {
  const int64_t size = static_cast<int64_t>(grad_size(decoder));
  parallel_ranges(size, kReduceGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) sum[i] = partial[i];
    for (int64_t c = 1; c < n_chunks; c++)
      for (int64_t i = begin; i < end; i++) sum[i] += partial[c * size + i];
  });
}

template <class T>
void call_decode_backward(const NativeDecoder<T>& decoder, const Matrix2<const T>& features,
                          const Column<const T>& opacity, const Matrix2<const T>& directions,
                          const Matrix2<const T>& v_colors, const Matrix2<T>& v_features, const Column<T>& v_opacity,
                          const std::vector<Values<T>>& v_weights, const std::vector<Values<T>>& v_biases) {
  DecoderCall<T> c = decoder.call();
  const int64_t n = set_rows(c, features, opacity, directions);
  expect(static_cast<int64_t>(v_colors.size()) == 3 * n && v_features.size() == features.size() &&
             static_cast<int64_t>(v_opacity.size()) == n,
         "gradients: wrong size");
  expect(static_cast<int>(v_weights.size()) == decoder.n_layers && v_biases.size() + 1 == v_weights.size(),
         "gradients: wrong number");
  for (int l = 0; l < decoder.n_layers; l++) {
    const size_t n_in = static_cast<size_t>(decoder.n_in[l]), n_out = static_cast<size_t>(decoder.n_out[l]);
    expect(v_weights[l].size() == n_in * n_out && (l == 0 || v_biases[l - 1].size() == n_out), "gradients: wrong size");
  }
  c.v_colors = v_colors.data(), c.v_features = v_features.data(), c.v_opacity = v_opacity.data();
  nb::gil_scoped_release release;
  const int64_t n_chunks = std::max<int64_t>(1, (n + kDecodeGrain - 1) / kDecodeGrain);
  static thread_local Buffer<T> memory;
  const size_t size = grad_size(decoder);
  T* const partial = memory.reserve(size * static_cast<size_t>(n_chunks + 1));
  std::fill(partial, partial + size, T(0));
  const auto backward = field_table<T>().decode_backward;
  parallel_ranges(n, kDecodeGrain, [&](int64_t begin, int64_t end) {
    T* const mine = partial + static_cast<size_t>(begin / kDecodeGrain) * size;
    std::fill(mine, mine + size, T(0));
    backward(c, begin, end, grads_in(decoder, mine), thread_scratch<T>(decoder_scratch(c)));
  });
  T* const sum = partial + size * static_cast<size_t>(n_chunks);
  reduce(decoder, partial, n_chunks, sum);
  for (int l = 0; l < decoder.n_layers; l++) {
    const int n_in = decoder.n_in[l], n_out = decoder.n_out[l], columns = decoder.padded(n_out);
    const T *const w = sum + offset(decoder, l, false), *const b = l == 0 ? nullptr : sum + offset(decoder, l, true);
    for (int i = 0; i < n_in; i++) std::copy(w + i * columns, w + i * columns + n_out, v_weights[l].data() + i * n_out);
    if (l > 0) std::copy(b, b + n_out, v_biases[l - 1].data());
  }
}

template <class T>
void bind_type(nb::module_& m, const char* suffix) {
  nb::class_<NativeDecoder<T>>(m, (std::string("FieldDecoder") + suffix).c_str())
      .def(nb::init<>())
      .def("set", &set_layers<T>, nb::arg().noconvert(), nb::arg().noconvert())
      .def("decode", &call_decode<T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert())
      .def("backward", &call_decode_backward<T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert());
}

}  // namespace

template <class T>
size_t decoder_scratch(const DecoderCall<T>& call) {
  size_t columns = static_cast<size_t>(call.n_features) + kLanes;
  if (call.is_harmonic) columns += static_cast<size_t>(call.layers[0].n_out);
  for (int l = 1; l < kDecoderLayers; l++) columns += static_cast<size_t>(call.layers[l].n_in);
  return 2 * columns * kDecoderRows;
}
template size_t decoder_scratch<float>(const DecoderCall<float>& call);
template size_t decoder_scratch<double>(const DecoderCall<double>& call);

void bind_field_decoder(nb::module_& m) {
  bind_type<float>(m, "32");
  bind_type<double>(m, "64");
}

}  // namespace scene3d
