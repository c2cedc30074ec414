// The decoder: colour of a pixel from the features that its ray gathered. One evaluation a pixel instead of one a sample
// (deferred shading, Hedman et al. 2021) is what makes a network affordable on a CPU.
//
// Rows go through the layers 64 at a time; products keep a block of rows times columns in registers.
#include "cpu/field.h"
#include "cpu/field_lanes.h"
#include "math/sh.h"

namespace scene3d {
namespace S3D_NS {

// Below this opacity a pixel has no colour.
constexpr double kMinPixelOpacity = 1e-6;

// Rows and vectors of columns that registers hold.
#if S3D_LEVEL == 2
constexpr int kBlockRows = 6, kBlockColumns = 4;
#else
constexpr int kBlockRows = 2, kBlockColumns = 3;
#endif

// A matrix in a product: element (i, k) at data[i * row + k * column].
template <class T>
struct Matrix {
  const T* data;
  int64_t row, column;
};

// c[m, 16 nv] += a[m, k] b[k, 16 nv] for m <= kBlockRows.
template <int nv, int m, class T>
static void multiply_block(Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int n_inner) {
  using V = typename LanesOf<T>::type;
  V sum[m][nv];
  S3D_UNROLL
  for (int i = 0; i < m; i++)
    for (int j = 0; j < nv; j++) sum[i][j] = load(c + i * c_row + kLanes * j);
  for (int k = 0; k < n_inner; k++) {
    V columns[nv];
    S3D_UNROLL
    for (int j = 0; j < nv; j++) columns[j] = load(b + k * b_row + kLanes * j);
    S3D_UNROLL
    for (int i = 0; i < m; i++) {
      const V factor = V(a.data[i * a.row + k * a.column]);
      for (int j = 0; j < nv; j++) sum[i][j] = fma(factor, columns[j], sum[i][j]);
    }
  }
  S3D_UNROLL
  for (int i = 0; i < m; i++)
    for (int j = 0; j < nv; j++) store(c + i * c_row + kLanes * j, sum[i][j]);
}

template <int nv, class T>
static void multiply_columns(Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int n_rows, int n_inner) {
  int i = 0;
  for (; i + kBlockRows <= n_rows; i += kBlockRows) {
    const Matrix<T> rows = {a.data + i * a.row, a.row, a.column};
    multiply_block<nv, kBlockRows>(rows, b, b_row, c + i * c_row, c_row, n_inner);
  }
  for (; i < n_rows; i++) {
    const Matrix<T> rows = {a.data + i * a.row, a.row, a.column};
    multiply_block<nv, 1>(rows, b, b_row, c + i * c_row, c_row, n_inner);
  }
}

// c[n_rows, n_columns] += a[n_rows, n_inner] b[n_inner, n_columns]; n_columns is a multiple of 16.
template <class T>
static void multiply_add(Matrix<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int n_rows, int n_columns,
                         int n_inner) {
  int j = 0;
  for (; j + kBlockColumns * kLanes <= n_columns; j += kBlockColumns * kLanes)
    multiply_columns<kBlockColumns>(a, b + j, b_row, c + j, c_row, n_rows, n_inner);
  for (; j + 2 * kLanes <= n_columns; j += 2 * kLanes)
    multiply_columns<2>(a, b + j, b_row, c + j, c_row, n_rows, n_inner);
  for (; j < n_columns; j += kLanes) multiply_columns<1>(a, b + j, b_row, c + j, c_row, n_rows, n_inner);
}

// What the layers hold for up to kDecoderRows pixels, and the gradients of it.
template <class T>
struct DecoderRows {
  T *mean, *input, *hidden0, *hidden1, *output;
  int n_input_columns;

  DecoderRows(const DecoderCall<T>& call, T* scratch) {
    mean = scratch;
    const int n_input = call.is_harmonic ? call.layers[0].n_out : call.layers[1].n_in;
    input = mean + static_cast<int64_t>(kDecoderRows) * call.n_features;
    hidden0 = input + static_cast<int64_t>(kDecoderRows) * n_input;
    hidden1 = hidden0 + static_cast<int64_t>(kDecoderRows) * call.layers[1].n_out;
    output = hidden1 + static_cast<int64_t>(kDecoderRows) * call.layers[2].n_out;
    n_input_columns = n_input;
  }

  T* of_layer(int layer) const {
    T* const values[kDecoderLayers + 1] = {mean, input, hidden0, hidden1, output};
    return values[layer];
  }
};

template <class T>
static void apply_layer(const Dense<T>& layer, const T* in, int64_t in_row, T* out, int64_t out_row, int n) {
  using V = typename LanesOf<T>::type;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < layer.n_out; j += kLanes)
      store(out + i * out_row + j, layer.bias ? load(layer.bias + j) : V(T(0)));
  multiply_add(Matrix<T>{in, in_row, 1}, layer.weights, layer.n_out, out, out_row, n, layer.n_out, layer.n_in);
}

template <class T>
static void rectify(T* values, int64_t n) {
  using V = typename LanesOf<T>::type;
  for (int64_t i = 0; i < n; i += kLanes) store(values + i, max(load(values + i), V(T(0))));
}

// Features, their sines and cosines at frequencies 1 and 2, spherical harmonics of the direction.
template <class T>
static void encode(const DecoderCall<T>& call, int64_t row, T* input) {
  using V = typename LanesOf<T>::type;
  const int n = call.layers[0].n_out;
  for (int j = 0; j < n; j += kLanes) {
    V s, c;
    sincos(load(input + j), s, c);
    store(input + n + j, s), store(input + 2 * n + j, c);
    const V twice = s + s;
    store(input + 3 * n + j, twice * c), store(input + 4 * n + j, V(T(1)) - twice * s);
  }
  sh_basis(3, call.directions + 3 * row, input + 5 * n);
}

// Adds to v_input[: n] what comes through the sines and cosines.
template <class T>
static void encode_backward(const DecoderCall<T>& call, const T* input, T* v_input) {
  using V = typename LanesOf<T>::type;
  const int n = call.layers[0].n_out;
  for (int j = 0; j < n; j += kLanes) {
    const V s = load(input + n + j), c = load(input + 2 * n + j), s2 = load(input + 3 * n + j), c2 = load(input + 4 * n + j);
    V v = load(v_input + j);
    v = fma(load(v_input + n + j), c, v) - load(v_input + 2 * n + j) * s;
    v = v + V(T(2)) * (load(v_input + 3 * n + j) * c2 - load(v_input + 4 * n + j) * s2);
    store(v_input + j, v);
  }
}

// Harmonics of degree l count 1 / (1 + l): steps of a fit change the colour of a place more than how it shines.
template <class T>
static void scaled_harmonics(const T* direction, T* harmonics) {
  sh_basis(3, direction, harmonics);
  for (int k = 1; k < kDirectionTerms; k++) harmonics[k] /= k < 4 ? T(2) : k < 9 ? T(3) : T(4);
}

// 0.5 + features . harmonics of the direction, of each channel.
template <class T>
static void sum_harmonics(const T* direction, const T* features, T* colors) {
  T harmonics[kDirectionTerms];
  scaled_harmonics(direction, harmonics);
  for (int c = 0; c < 3; c++) colors[c] = T(0.5) + lane_sum(load(harmonics) * load(features + c * kDirectionTerms));
}

// The way back through the harmonics: gradients of their features, and of opacity but for what comes through the mean.
template <class T>
static void harmonics_backward(const DecoderCall<T>& call, int64_t row, const T* colors, T* v_features) {
  using V = typename LanesOf<T>::type;
  T harmonics[kDirectionTerms], v_opacity = 0;
  scaled_harmonics(call.directions + 3 * row, harmonics);
  const T opacity = call.opacity[row];
  const bool has_color = opacity > T(kMinPixelOpacity);
  for (int c = 0; c < 3; c++) {
    const T v = has_color ? call.v_colors[3 * row + c] : T(0);
    store(v_features + c * kDirectionTerms, V(opacity * v) * load(harmonics));
    v_opacity += v * colors[c];
  }
  call.v_opacity[row] = v_opacity;
}

template <class T>
static void forward_rows(const DecoderCall<T>& call, int64_t begin, int n, const DecoderRows<T>& rows) {
  using V = typename LanesOf<T>::type;
  for (int i = 0; i < n; i++) {
    const T opacity = call.opacity[begin + i];
    const V scale = V(opacity > T(kMinPixelOpacity) ? T(1) / opacity : T(0));
    for (int j = 0; j < call.n_features; j += kLanes)
      store(rows.mean + i * call.n_features + j, scale * load(call.features + (begin + i) * call.n_features + j));
  }
  const Dense<T>* const layers = call.layers;
  apply_layer(layers[0], rows.mean, call.n_features, rows.input, rows.n_input_columns, n);
  if (call.is_harmonic) {
    for (int i = 0; i < n; i++)
      sum_harmonics(call.directions + 3 * (begin + i), rows.input + i * rows.n_input_columns, rows.output + i * kLanes);
    return;
  }
  for (int i = 0; i < n; i++) encode(call, begin + i, rows.input + i * rows.n_input_columns);
  apply_layer(layers[1], rows.input, rows.n_input_columns, rows.hidden0, layers[1].n_out, n);
  rectify(rows.hidden0, static_cast<int64_t>(n) * layers[1].n_out);
  apply_layer(layers[2], rows.hidden0, layers[2].n_in, rows.hidden1, layers[2].n_out, n);
  rectify(rows.hidden1, static_cast<int64_t>(n) * layers[2].n_out);
  apply_layer(layers[3], rows.hidden1, layers[3].n_in, rows.output, layers[3].n_out, n);
}

template <class T>
static void decode(const DecoderCall<T>& call, int64_t begin, int64_t end, T* scratch) {
  const DecoderRows<T> rows(call, scratch);
  for (int64_t from = begin; from < end; from += kDecoderRows) {
    const int n = static_cast<int>(end - from < kDecoderRows ? end - from : kDecoderRows);
    forward_rows(call, from, n, rows);
    for (int i = 0; i < n; i++) {
      const T opacity = call.opacity[from + i];
      for (int c = 0; c < 3; c++) {
        const T color = call.is_harmonic ? rows.output[i * kLanes + c] : sigmoid(rows.output[i * kLanes + c]);
        call.colors[3 * (from + i) + c] = opacity > T(kMinPixelOpacity) ? opacity * color : T(0);
      }
    }
  }
}

// Gradients of one layer from those of its output: of weights, bias and, where v_in is given, of its input.
template <class T>
static void layer_backward(const Dense<T>& layer, const T* in, int64_t in_row, const T* v_out, int64_t out_row, int n,
                           T* v_weights, T* v_bias, T* v_in, int64_t v_in_row) {
  using V = typename LanesOf<T>::type;
  multiply_add(Matrix<T>{in, 1, in_row}, v_out, out_row, v_weights, layer.n_out, layer.n_in, layer.n_out, n);
  if (v_bias) {
    for (int i = 0; i < n; i++)
      for (int j = 0; j < layer.n_out; j += kLanes) add_to(v_bias + j, T(1), load(v_out + i * out_row + j));
  }
  const int columns = (layer.n_in + kLanes - 1) / kLanes * kLanes;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < columns; j += kLanes) store(v_in + i * v_in_row + j, V(T(0)));
  multiply_add(Matrix<T>{v_out, out_row, 1}, layer.transposed, columns, v_in, v_in_row, n, columns, layer.n_out);
}

// Zeroes gradients where the rectifier gave 0.
template <class T>
static void rectify_backward(const T* values, T* grads, int64_t n) {
  for (int64_t i = 0; i < n; i++) grads[i] = values[i] > 0 ? grads[i] : T(0);
}

template <class T>
static void output_backward(const DecoderCall<T>& call, int64_t begin, int n, const T* output, T* v_output) {
  for (int i = 0; i < n; i++) {
    const T opacity = call.opacity[begin + i];
    const bool has_color = opacity > T(kMinPixelOpacity);
    zero(v_output + i * kLanes, kLanes);
    T v_opacity = 0;
    for (int c = 0; c < 3 && has_color; c++) {
      const T color = sigmoid(output[i * kLanes + c]), v = call.v_colors[3 * (begin + i) + c];
      v_output[i * kLanes + c] = opacity * v * color * (1 - color);
      v_opacity += v * color;
    }
    call.v_opacity[begin + i] = v_opacity;
  }
}

// From the mean features back to their sum: mean = sum / opacity.
template <class T>
static void mean_backward(const DecoderCall<T>& call, int64_t begin, int n, const T* mean, const T* v_mean) {
  using V = typename LanesOf<T>::type;
  for (int i = 0; i < n; i++) {
    const T opacity = call.opacity[begin + i];
    const T scale = opacity > T(kMinPixelOpacity) ? T(1) / opacity : T(0);
    V along = V(T(0));
    for (int j = 0; j < call.n_features; j += kLanes) {
      const V v = V(scale) * load(v_mean + i * call.n_features + j);
      store(call.v_features + (begin + i) * call.n_features + j, v);
      along = fma(v, load(mean + i * call.n_features + j), along);
    }
    call.v_opacity[begin + i] = call.v_opacity[begin + i] - lane_sum(along);
  }
}

template <class T>
static void decode_backward(const DecoderCall<T>& call, int64_t begin, int64_t end, const DecoderGrads<T>& grads,
                            T* scratch) {
  const DecoderRows<T> rows(call, scratch);
  const DecoderRows<T> v_rows(call, rows.output + kDecoderRows * kLanes);
  const Dense<T>* const layers = call.layers;
  for (int64_t from = begin; from < end; from += kDecoderRows) {
    const int n = static_cast<int>(end - from < kDecoderRows ? end - from : kDecoderRows);
    forward_rows(call, from, n, rows);
    if (call.is_harmonic) {
      for (int i = 0; i < n; i++)
        harmonics_backward(call, from + i, rows.output + i * kLanes, v_rows.input + i * rows.n_input_columns);
    } else {
      output_backward(call, from, n, rows.output, v_rows.output);
    }
    for (int l = call.is_harmonic ? 0 : kDecoderLayers - 1; l >= 0; l--) {
      const int64_t in_row = l == 0 ? call.n_features : layers[l].n_in;
      const int64_t out_row = l == 0 ? rows.n_input_columns : layers[l].n_out;
      layer_backward(layers[l], rows.of_layer(l), in_row, v_rows.of_layer(l + 1), out_row, n, grads.weights[l],
                     grads.biases[l], v_rows.of_layer(l), in_row);
      if (l >= 2) rectify_backward(rows.of_layer(l), v_rows.of_layer(l), static_cast<int64_t>(n) * layers[l].n_in);
      if (l == 1)
        for (int i = 0; i < n; i++)
          encode_backward(call, rows.input + i * in_row, v_rows.input + i * in_row);
    }
    mean_backward(call, from, n, rows.mean, v_rows.mean);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
