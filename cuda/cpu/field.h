// Radiance fields that are sums of products of planes, lines, or vectors of leaves: arguments of the kernels.
//
// A field has two sets of factors: set 0 gives density, set 1 the features of colour. All values are rank-last: the
// ranks of a node lie side by side, sixteen of them are one vector, and a set holds a multiple of sixteen.
//   VM: three modes, the product of a plane and the line across it: xy z, xz y, yz x. Slabs of a set: xy xz yz z y x.
//   CP: one mode, the product of three lines. Slabs of a set: x y z.
//   Tri-vectors: a mode per level, the product of the three vectors of the leaf around the sample. Slabs: x y z of each
//   level, the vectors of all leaves one after the other (Gao et al. 2023, Strivec, without overlap).
//   Radial bases: the modes of VM, and a fourth, the sum of the channels of bases times their rows (Chen et al. 2023,
//   NeuRBF). Slabs: those of VM, then the rows of all bases.
//   Hash grid, waves: one mode, the units of the last layer of a network of its inputs at the sample (see
//   field_network.inl). Slabs: the table, of a hash grid alone, then the layers, each with its bias as the last row.
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/field_bases.h"
#include "math/field_hash.h"
#include "math/field_leaves.h"
#include "math/field_walk.h"
#include "math/field_warp.h"

// Members that kernels call: never a shared symbol, which one instruction set would provide for all.
#define S3D_MEMBER __attribute__((always_inline)) inline

namespace scene3d {

constexpr int kSets = 2, kMaxSlabs = 7, kLanes = 16;
constexpr int kBasisMode = 3, kBasisSlab = 6;
constexpr int kHashLayers = 1, kWaveLayers = 4, kMaxNetworkLayers = 4, kMaxNetworkWidth = 128;
constexpr int kWaveOctaves = 8, kMaxInputs = 64;
constexpr int kRayChunk = 64;  // rays of a task: 8x8 pixels of an image

enum class FieldKind { vm = 0, cp = 1, trivec = 2, rbf = 3, hash = 4, mlp = 5 };

// Values of one plane or line in [n_rows, rank], and where their gradients go.
template <class T>
struct Slab {
  const T* values = nullptr;
  T* grads = nullptr;
  uint8_t* touched = nullptr;  // [rank / 16, n_rows]: cells, by their lowest node
  int64_t n_rows = 0;
};

template <class T>
struct FieldCall {
  FieldKind kind;
  int n[3];          // nodes along x y z; 2 of leaves and networks, so that positions in nodes run from 0 to 1
  int rank[kSets];   // multiples of 16
  T low[3], high[3];
  T step;            // between samples
  T density_scale;   // optical depth = softplus(feature + density_shift) density_scale length
  T density_shift;
  T near, far;
  T min_weight;         // samples below have no colour
  T min_transmittance;  // a ray ends below it
  T distortion;         // of the way back: weight of the spread of a ray's weights
  Warp<T> warp;         // of the world to the frame in which box, step and density are meant
  OccupancyBits occupancy;
  Slab<T> slabs[kSets][kMaxSlabs];
  LeafLevel levels[kMaxLevels];
  int n_levels;  // 0 where there are no leaves
  int64_t n_leaves[kMaxLevels];
  BasisGrid<T> bases;  // of rbf
  HashGrid hash;       // of hash

  S3D_MEMBER bool has_planes() const { return kind == FieldKind::vm || kind == FieldKind::rbf; }
  S3D_MEMBER int n_modes() const {
    if (has_planes()) return kind == FieldKind::rbf ? 4 : 3;
    return kind == FieldKind::trivec ? n_levels : 1;
  }
  S3D_MEMBER int n_slabs() const {
    if (has_network()) return first_layer() + n_layers();
    return has_planes() ? 3 + n_modes() : 3 * n_modes();
  }
  S3D_MEMBER bool has_network() const { return kind == FieldKind::hash || kind == FieldKind::mlp; }
  S3D_MEMBER int first_layer() const { return kind == FieldKind::hash ? 1 : 0; }
  S3D_MEMBER int n_layers() const { return kind == FieldKind::hash ? kHashLayers : kWaveLayers; }
  S3D_MEMBER int n_inputs() const { return kind == FieldKind::hash ? kHashFeatures * hash.n : 3 + 6 * kWaveOctaves; }
  S3D_MEMBER int n_features() const { return rank[1] * n_modes(); }
};

// One sample of a ray that lay in an occupied cell.
template <class T>
struct FieldSample {
  T nodes[3];  // position in nodes
  T t;      // distance in the world
  T along;  // length of the ray so far in the frame of the field
  T slope;          // of density by its feature
  T alpha;
  T transmittance;  // in front of it
  T v_feature;

  S3D_MEMBER T weight() const { return transmittance * alpha; }
};

template <class T>
struct RayResult {
  T* features;  // sum of weight times feature [n_features]
  T opacity;    // sum of weights
  T distance;   // sum of weight times t
  int n_samples = 0;  // whose density was looked up; filled by bricks
};

// A sample with a gradient: of density, its own; of colour, its weight times that of its ray.
template <class T>
struct SampleGrad {
  T nodes[3], amount;
};

// Those of kRayChunk rays at most; ray i has [begin[i], begin[i + 1]).
template <class T>
struct SampleRows {
  const SampleGrad<T>* samples;
  const int64_t* begin;
  int n_rays;
};

// A layer of the decoder's network, columns a multiple of 16.
template <class T>
struct Dense {
  const T* weights;     // [n_in, n_out]
  const T* transposed;  // [n_out, n_in], n_in padded to 16: for the way back
  const T* bias;        // [n_out], nullptr: none
  int n_in, n_out;
};

constexpr int kDirectionTerms = 16;  // spherical harmonics of degree 3
constexpr int kDecoderLayers = 4;    // basis, hidden, hidden, colour

// Colour of a pixel from its features: basis, then a network of the features, their sines and cosines at frequencies 1
// and 2, and the direction. colour = opacity sigmoid(network(features / opacity, direction)). Without layers after the
// basis, its features are 16 harmonics of each channel: colour = opacity (0.5 + features . harmonics of the direction)
template <class T>
struct DecoderCall {
  Dense<T> layers[kDecoderLayers];
  const T* features;    // [n_rows, n_features]
  const T* opacity;     // [n_rows]
  const T* directions;  // [n_rows, 3]
  T* colors;            // [n_rows, 3]
  // The way back.
  const T* v_colors;  // [n_rows, 3]
  T* v_features;      // [n_rows, n_features]
  T* v_opacity;       // [n_rows]
  int n_features;
  bool is_harmonic;
};

// Where one task of the way back puts gradients of the network: [n_in, n_out] and [n_out] of each layer.
template <class T>
struct DecoderGrads {
  T* weights[kDecoderLayers];
  T* biases[kDecoderLayers];
};

template <class T>
struct FieldAdam {
  T* values;
  T* grads;             // set to 0 where they are used
  T *exp_avg, *exp_avg_sq;
  const uint8_t* touched;  // [rank / 16, n_rows]: cells, by their lowest node
  int64_t n_rows;
  int64_t width;        // nodes along the faster axis of a plane; n_rows for a line; 0: rows have no neighbours
  int rank;
  T step_size;          // lr / (1 - beta1^step)
  T beta1, beta2, root_correction, eps;
  T l1;                 // gradient of l1 |value|
};

template <class T>
struct FieldTable {
  // Samples of a ray, at most kMaxRaySamples; returns their number.
  int (*forward_ray)(const FieldCall<T>& call, const FieldRay<T>& ray, FieldSample<T>* samples, RayResult<T>& out);
  // v_feature of each sample from the gradients of a ray's results. v_colored: gradients by the weights of the samples
  // that have colour, where each has one of its own; nullptr: they follow from v_features.
  void (*backward_ray)(const FieldCall<T>& call, FieldSample<T>* samples, int n, const T* v_features, T v_opacity,
                       T v_distance, const T* v_colored);
  // Rows of the samples that have colour: weight times features [n, n_features], weight [n]; returns their number.
  int (*color_rows)(const FieldCall<T>& call, const FieldSample<T>* samples, int n, T* features, T* weights);
  // Adds the gradients of groups of sixteen ranks of one mode of a set. v_features: rows of these rays.
  void (*scatter)(const FieldCall<T>& call, int set, int mode, int group, int end_group, const SampleRows<T>& rows,
                  const T* v_features);
  // Whether a ray meets an occupied cell.
  bool (*hits)(const FieldCall<T>& call, const FieldRay<T>& ray);
  // Density feature at points [n, 3] in the world; any n.
  void (*density_at)(const FieldCall<T>& call, const T* points, int n, T* features);
  // Features of colour at points [n, 3] in the world. [n, n_features]
  void (*features_at)(const FieldCall<T>& call, const T* points, int n, T* features);
  // Rows [begin, end) with scratch of decoder_scratch() numbers.
  void (*decode)(const DecoderCall<T>& call, int64_t begin, int64_t end, T* scratch);
  void (*decode_backward)(const DecoderCall<T>& call, int64_t begin, int64_t end, const DecoderGrads<T>& grads, T* scratch);
  // Rows [begin, end) of one group of sixteen ranks; returns how many gradient values were not finite.
  int64_t (*adam_rows)(const FieldAdam<T>& adam, int group, int64_t begin, int64_t end);
};

struct FieldBricks;  // cpu/field_bricks.h

struct FieldKernels {
  FieldTable<float> f32;
  FieldTable<double> f64;  // only in the scalar table
  // What a ray gathers, by bricks; opacity 0 where that is nothing. scratch: kBrickScratch numbers.
  void (*brick_ray)(const FieldCall<float>& call, const FieldBricks& bricks, const FieldRay<float>& ray, float* scratch,
                    RayResult<float>& out);
};

const FieldKernels& scalar_field_kernels();
const FieldKernels& avx2_field_kernels();
const FieldKernels& avx512_field_kernels();
const FieldKernels& neon_field_kernels();

// Of the instruction set in use.
const FieldKernels& field_kernels();

// The table of the instruction set in use for float, the scalar one for double.
template <class T>
const FieldTable<T>& field_table();

constexpr int kDecoderRows = 64;  // rows that a decoder works on at once

// Numbers of scratch that decode and decode_backward need.
template <class T>
size_t decoder_scratch(const DecoderCall<T>& call);

}  // namespace scene3d
