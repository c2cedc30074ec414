// A field and a decoder as Python holds them: the arguments of kernels, with the arrays that they point to.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/field.h"
#include "cpu/field_bindings.h"
#include "cpu/field_bricks.h"

namespace scene3d {

template <class T>
using FieldValues = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using FieldWords = Array<const int64_t, nb::ndim<1>>;
using Items = Array<const int32_t, nb::ndim<1>>;
using BrickFree = Array<const uint8_t, nb::ndim<1>>;
using BrickTable = Array<const int32_t, nb::ndim<1>>;
using BrickValues = Array<const float, nb::ndim<2>>;
using LeafGrid = Array<const int32_t, nb::ndim<3>>;

template <class T>
struct NativeField {
  FieldCall<T> call;
  std::vector<FieldValues<const T>> values;
  std::optional<FieldWords> words, coarse;
  std::vector<LeafGrid> leaves;
  std::vector<FieldValues<const T>> bases;
  std::optional<Items> starts, items;
  bool is_per_sample = false;  // the decoder makes a colour of each sample, not of each pixel
  FieldBricks bricks;  // of float, for images; without values: none
  std::optional<BrickTable> brick_table;
  std::optional<BrickValues> brick_values;
  std::optional<FieldWords> brick_words;
  std::optional<BrickFree> brick_free;
};

// The layers with their columns padded, and transposed.
template <class T>
struct NativeDecoder {
  int n_layers = 0;  // with the basis: all, or the basis alone
  int n_in[kDecoderLayers], n_out[kDecoderLayers];  // n_out as Python has it: 3 at the end
  Buffer<T> weights[kDecoderLayers], transposed[kDecoderLayers], biases[kDecoderLayers];

  static int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

  DecoderCall<T> call() const {
    DecoderCall<T> c = {};
    for (int l = 0; l < n_layers; l++)
      c.layers[l] = {weights[l].data(), transposed[l].data(), l == 0 ? nullptr : biases[l].data(), n_in[l], padded(n_out[l])};
    c.n_features = n_in[0], c.is_harmonic = n_layers == 1;
    return c;
  }
};

}  // namespace scene3d
