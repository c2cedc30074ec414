// Fields behind a small network at every sample: of a hash grid (Müller et al. 2022) or of waves of the position alone
// (Mildenhall et al. 2020), and the way back to tables and layers.
//
// Sixteen units of a layer are one vector, and four samples share each row of weights that is loaded. All units of the
// last layer are features of colour; of density, the sum of the first half less the sum of the second. The way back of a
// set is one task: what reaches a table has gone through all units.
#include <cstring>

#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

constexpr int kHashCorners = 8 * kMaxHashLevels;
constexpr double kLeak = 0.01;  // of a unit below 0, what passes
constexpr int kInputRow = 64;  // kMaxInputs, padded
constexpr int kTogether = 8;      // samples that share a row of transposed weights
constexpr int kRowsTogether = 4;  // rows of weights that share a gradient
static_assert(kMaxInputs <= kInputRow && kHashFeatures * kMaxHashLevels <= kMaxInputs);

// The numbers of a row.
template <class T>
struct TableRow {
  typedef T type __attribute__((vector_size(kHashFeatures * sizeof(T))));

  S3D_MEMBER static void read(const T* p, type& row) { std::memcpy(&row, p, sizeof(row)); }
  S3D_MEMBER static void write(T* p, const type& row) { std::memcpy(p, &row, sizeof(row)); }
};

// The corners around a sample: rows of the table, and their weights.
template <class T>
struct HashPlaces {
  uint32_t rows[kHashCorners];
  T weights[kHashCorners];
};

template <class T>
S3D_INLINE void find_corners(const HashGrid& grid, const T* unit, HashPlaces<T>& places) {
  for (int l = 0; l < grid.n; l++) {
    const int* const cells = grid.cells[l];
    const Place<T> x = place_of(unit[0] * static_cast<T>(cells[0]), cells[0] + 1);
    const Place<T> y = place_of(unit[1] * static_cast<T>(cells[1]), cells[1] + 1);
    const Place<T> z = place_of(unit[2] * static_cast<T>(cells[2]), cells[2] + 1);
    const int corner[3] = {x.i, y.i, z.i};
    hash_rows(grid, l, corner, places.rows + 8 * l);
    T* const weights = places.weights + 8 * l;
    corner_weights(x, y, weights);
    for (int k = 0; k < 4; k++) weights[4 + k] = weights[k] * z.f, weights[k] *= 1 - z.f;
  }
}

template <class T>
S3D_INLINE void read_table(const HashGrid& grid, const T* table, const HashPlaces<T>& places, T* inputs) {
  for (int l = 0; l < grid.n; l++) {
    typename TableRow<T>::type sum = {}, row;
    for (int k = 8 * l; k < 8 * l + 8; k++) {
      TableRow<T>::read(table + static_cast<size_t>(places.rows[k]) * kHashFeatures, row);
      sum += places.weights[k] * row;
    }
    TableRow<T>::write(inputs + kHashFeatures * l, sum);
  }
}

// The position from -1 to 1, and sines and cosines of pi 2^k times it.
template <class T>
S3D_INLINE void waves_of(const T* unit, T* inputs) {
  using V = typename LanesOf<T>::type;
  constexpr int kAngles = 3 * kWaveOctaves, kPadded = (kAngles + kLanes - 1) / kLanes * kLanes;
  T angles[kPadded] = {}, sines[kPadded], cosines[kPadded];
  for (int a = 0; a < 3; a++) inputs[a] = 2 * unit[a] - 1;
  for (int i = 0; i < kAngles; i++)
    angles[i] = inputs[i % 3] * static_cast<T>(3.14159265358979323846 * (1 << i / 3));
  for (int i = 0; i < kPadded; i += kLanes) {
    V s, c;
    sincos(load(angles + i), s, c);
    store(sines + i, s), store(cosines + i, c);
  }
  for (int i = 0; i < kAngles; i++) inputs[3 + i] = sines[i], inputs[3 + kAngles + i] = cosines[i];
}

// Up to sixteen samples on their way through the network of one set: what goes into each layer, and what comes out.
template <class T>
struct NetworkPass {
  using V = typename LanesOf<T>::type;
  const FieldCall<T>& call;
  const int set, rank, n;
  HashPlaces<T> places[kLanes];
  T inputs[kLanes][kInputRow];
  T units[kMaxNetworkLayers][kLanes][kMaxNetworkWidth];

  // samples: places of n samples in the box, 0 to 1.
  S3D_MEMBER NetworkPass(const FieldCall<T>& call_, int set_, const T* const* samples, int n_)
      : call(call_), set(set_), rank(call_.rank[set_]), n(n_) {
    for (int i = 0; i < n; i++) {
      if (call.kind == FieldKind::mlp) {
        waves_of(samples[i], inputs[i]);
        continue;
      }
      find_corners(call.hash, samples[i], places[i]);
      read_table(call.hash, call.slabs[set][0].values, places[i], inputs[i]);
    }
    for (int l = 0; l < call.n_layers(); l++) forward(l);
  }
  S3D_MEMBER const Slab<T>& slab(int layer) const { return call.slabs[set][call.first_layer() + layer]; }
  S3D_MEMBER int n_in(int layer) const { return layer == 0 ? call.n_inputs() : rank; }
  S3D_MEMBER const T* before(int layer, int i) const { return layer == 0 ? inputs[i] : units[layer - 1][i]; }
  S3D_MEMBER const T* last(int i) const { return units[call.n_layers() - 1][i]; }

  S3D_MEMBER void forward(int layer) {
    const T* const weights = slab(layer).values;
    const int width = n_in(layer);
    for (int first = 0; first < n; first += 4) {
      // Those past the end repeat the last.
      int at[4];
      const T* in[4];
      for (int k = 0; k < 4; k++) at[k] = first + k < n ? first + k : n - 1, in[k] = before(layer, at[k]);
      for (int g = 0; g < rank; g += kLanes) {
        V sums[4];
        for (int k = 0; k < 4; k++) sums[k] = load(weights + static_cast<int64_t>(width) * rank + g);
        for (int j = 0; j < width; j++) {
          const V row = load(weights + static_cast<int64_t>(j) * rank + g);
          S3D_UNROLL
          for (int k = 0; k < 4; k++) sums[k] = fma(V(in[k][j]), row, sums[k]);
        }
        for (int k = 0; k < 4; k++) store(units[layer][at[k]] + g, max(sums[k], V(T(kLeak)) * sums[k]));
      }
    }
  }
};

// +1 for the first half of the units, -1 for the second.
template <class T>
S3D_INLINE void unit_signs(int rank, T* signs) {
  for (int j = 0; j < rank; j++) signs[j] = j < rank / 2 ? T(1) : T(-1);
}

// Units of n samples times `factors`, lane by lane, of those that are wanted.
template <class T, class V = typename LanesOf<T>::type>
static void network_rows(const FieldCall<T>& call, int set, const T* nodes, int64_t stride, int n, const bool* wanted,
                         const T* factors, V* rows) {
  const T* samples[kLanes];
  int number[kLanes], n_here = 0;
  for (int i = 0; i < n; i++)
    if (!wanted || wanted[i]) samples[n_here] = nodes + i * stride, number[n_here++] = i;
  if (n_here == 0) return;
  const NetworkPass<T> pass(call, set, samples, n_here);
  for (int i = 0; i < n_here; i++) {
    V sum = V(T(0));
    for (int g = 0; g < pass.rank; g += kLanes) sum = fma(load(pass.last(i) + g), load(factors + g), sum);
    rows[number[i]] = sum;
  }
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void network_densities(const FieldCall<T>& call, const T* nodes, int64_t stride, int n, V* rows) {
  T signs[kMaxNetworkWidth];
  unit_signs(call.rank[0], signs);
  network_rows<T>(call, 0, nodes, stride, n, nullptr, signs, rows);
}

// Adds features times amounts; those of amount 0 are left out.
template <class T, class V = typename LanesOf<T>::type>
static void add_network_features(const FieldCall<T>& call, const T* nodes, int64_t stride, int n, const T* amounts, T* sums) {
  const T* samples[kLanes];
  T amount[kLanes];
  int n_here = 0;
  for (int i = 0; i < n; i++)
    if (amounts[i] != 0) samples[n_here] = nodes + i * stride, amount[n_here++] = amounts[i];
  if (n_here == 0) return;
  const NetworkPass<T> pass(call, 1, samples, n_here);
  for (int g = 0; g < pass.rank; g += kLanes) {
    V sum = load(sums + g);
    for (int i = 0; i < n_here; i++) sum = fma(V(amount[i]), load(pass.last(i) + g), sum);
    store(sums + g, sum);
  }
}

// The way back of one pass. v: gradients of the units of the last layer, changed.
template <class T>
struct NetworkBack {
  using V = typename LanesOf<T>::type;
  const NetworkPass<T>& pass;
  T (&v)[kLanes][kMaxNetworkWidth];

  // Of a unit below 0 little comes back, but not nothing: it may rise again.
  S3D_MEMBER void through_units(int layer) const {
    for (int i = 0; i < pass.n; i++) {
      for (int g = 0; g < pass.rank; g += kLanes) {
        const V unit = load(pass.units[layer][i] + g);
        const V back = load(v[i] + g);
        store(v[i] + g, choose(V(T(0)) < unit, back, V(T(kLeak)) * back));
      }
    }
  }
  S3D_MEMBER void add_weights(int layer) const {
    T* const grads = pass.slab(layer).grads;
    const int width = pass.n_in(layer), rank = pass.rank;
    for (int g = 0; g < rank; g += kLanes) {
      // Those past the end repeat the last, and are not stored.
      for (int j = 0; j < width; j += kRowsTogether) {
        V sums[kRowsTogether];
        int at[kRowsTogether];
        for (int k = 0; k < kRowsTogether; k++) at[k] = j + k < width ? j + k : width - 1, sums[k] = V(T(0));
        for (int i = 0; i < pass.n; i++) {
          const V amount = load(v[i] + g);
          const T* const in = pass.before(layer, i);
          S3D_UNROLL
          for (int k = 0; k < kRowsTogether; k++) sums[k] = fma(V(in[at[k]]), amount, sums[k]);
        }
        for (int k = 0; k < kRowsTogether && j + k < width; k++) add_row(grads, j + k, g, sums[k]);
      }
      V bias = V(T(0));
      for (int i = 0; i < pass.n; i++) bias = bias + load(v[i] + g);
      add_row(grads, width, g, bias);
    }
  }
  S3D_MEMBER void add_row(T* grads, int row, int g, V sum) const {
    T* const at = grads + static_cast<int64_t>(row) * pass.rank + g;
    store(at, load(at) + sum);
  }
  // Gradients of what went into a layer, n_in of each sample.
  S3D_MEMBER void to_inputs(int layer, T (&out)[kLanes][kMaxNetworkWidth]) const {
    const T* const weights = pass.slab(layer).values;
    const int width = pass.n_in(layer), rank = pass.rank;
    for (int first = 0; first < width; first += kLanes) {
      const int n_here = width - first < kLanes ? width - first : kLanes;
      for (int g = 0; g < rank; g += kLanes) {
        // Row r: what unit g + r has to do with each of sixteen inputs.
        V rows[kLanes];
        for (int j = 0; j < kLanes; j++)
          rows[j] = j < n_here ? load(weights + static_cast<int64_t>(first + j) * rank + g) : V(T(0));
        transpose(rows);
        for (int i = 0; i < pass.n; i += kTogether) {
          V sums[kTogether];
          const T* from[kTogether];
          S3D_UNROLL
          for (int k = 0; k < kTogether; k++) {
            const int at = i + k < pass.n ? i + k : pass.n - 1;
            from[k] = v[at] + g, sums[k] = g == 0 ? V(T(0)) : load(out[at] + first);
          }
          S3D_UNROLL
          for (int r = 0; r < kLanes; r++) {
            S3D_UNROLL
            for (int k = 0; k < kTogether; k++) sums[k] = fma(V(from[k][r]), rows[r], sums[k]);
          }
          S3D_UNROLL
          for (int k = 0; k < kTogether; k++) store(out[i + k < pass.n ? i + k : pass.n - 1] + first, sums[k]);
        }
      }
    }
  }
  S3D_MEMBER void to_table(const T (&v_inputs)[kLanes][kMaxNetworkWidth]) const {
    const Slab<T>& table = pass.call.slabs[pass.set][0];
    const uint32_t groups = static_cast<uint32_t>(pass.rank / kLanes);
    // A division by groups, for numbers below 2^29: at most eight groups make a row.
    const uint64_t inverse = ((uint64_t{1} << 32) + groups - 1) / groups;
    for (int i = 0; i < pass.n; i++) {
      const HashPlaces<T>& places = pass.places[i];
      for (int k = 0; k < 8 * pass.call.hash.n; k++) {
        T* const grads = table.grads + static_cast<size_t>(places.rows[k]) * kHashFeatures;
        typename TableRow<T>::type sum, v_row;
        TableRow<T>::read(v_inputs[i] + kHashFeatures * (k / 8), v_row), TableRow<T>::read(grads, sum);
        TableRow<T>::write(grads, sum + places.weights[k] * v_row);
        const uint32_t group = places.rows[k] / (kLanes / kHashFeatures);
        const uint32_t node = static_cast<uint32_t>(group * inverse >> 32);
        table.touched[(group - node * groups) * table.n_rows + node] = 1;
      }
    }
  }
};

// All that the samples of one ray add to one set. v_ray: gradients of its features of colour.
template <class T>
static void scatter_ray_network(const FieldCall<T>& call, int set, const SampleRows<T>& rows, int ray, const T* v_ray) {
  T factors[kMaxNetworkWidth], v[kLanes][kMaxNetworkWidth], v_inputs[kLanes][kMaxNetworkWidth];
  const int rank = call.rank[set];
  if (set == 0) unit_signs(rank, factors);
  for (int j = 0; set == 1 && j < rank; j++) factors[j] = v_ray[j];
  const int64_t end = rows.begin[ray + 1];
  for (int64_t first = rows.begin[ray]; first < end; first += kLanes) {
    const int n = static_cast<int>(end - first < kLanes ? end - first : kLanes);
    const T* samples[kLanes];
    for (int i = 0; i < n; i++) samples[i] = rows.samples[first + i].nodes;
    const NetworkPass<T> pass(call, set, samples, n);
    const NetworkBack<T> back = {pass, v};
    for (int i = 0; i < n; i++)
      for (int j = 0; j < rank; j++) v[i][j] = rows.samples[first + i].amount * factors[j];
    for (int l = call.n_layers() - 1; l >= 0; l--) {
      back.through_units(l), back.add_weights(l);
      if (l == 0 && call.kind == FieldKind::mlp) break;
      back.to_inputs(l, v_inputs);
      for (int i = 0; l > 0 && i < n; i++)
        for (int j = 0; j < rank; j++) v[i][j] = v_inputs[i][j];
    }
    if (call.kind == FieldKind::hash) back.to_table(v_inputs);
  }
  if (rows.begin[ray] == end) return;
  for (int l = 0; l < call.n_layers(); l++) {
    const Slab<T>& slab = call.slabs[set][call.first_layer() + l];
    for (int64_t i = 0; i < slab.n_rows * (rank / kLanes); i++) slab.touched[i] = 1;
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
