// Rays through a field, forward and back, over threads. Nothing depends on the number of threads: a chunk of rays
// belongs to one task, and on the way back sixteen ranks of one mode belong to one task that goes through all samples
// in order, so that no two tasks add to the same value.
#pragma once
#include <vector>

#include "cpu/buffer.h"
#include "cpu/field.h"

namespace scene3d {

// The samples of a forward call, for the way back.
template <class T>
struct FieldTape {
  struct Chunk {
    Buffer<FieldSample<T>> samples;
    int64_t begin[kRayChunk + 1] = {};
    int n_rays = 0;
    // Of the way back: what each set has to add to the factors.
    Buffer<SampleGrad<T>> grads[kSets];
    int64_t grad_begin[kSets][kRayChunk + 1] = {};
  };
  std::vector<Chunk> chunks;
  int64_t n_rays = 0;

  FieldTape() = default;
  FieldTape(const FieldTape&) = delete;
  FieldTape& operator=(const FieldTape&) = delete;

  int64_t n_samples() const {
    int64_t total = 0;
    for (const Chunk& chunk : chunks) total += chunk.begin[chunk.n_rays];
    return total;
  }
};

template <class T>
struct FieldRays {
  const T *origins, *directions;  // [n, 3]
  const T* jitter;                // [n], nullptr: one half
  int64_t n;
};

template <class T>
struct FieldSums {
  T* features;  // [n, n_features], or nullptr
  T *opacity, *distance;  // [n]
};

template <class T>
void march(const FieldCall<T>& call, const FieldRays<T>& rays, const FieldSums<T>& out, FieldTape<T>* tape);

// Samples that have colour, each a row of its own, ray after ray: weight times features, weight, number of the ray.
// On the way back: the gradients of the first two, those of weights with what comes through the features.
template <class T>
struct ColorRows {
  T* features;  // [n, n_features]
  T* weights;   // [n]
};

// How many rows a forward call has.
template <class T>
int64_t count_rows(const FieldCall<T>& call, const FieldTape<T>& tape);

// rays: [n]
template <class T>
void gather_rows(const FieldCall<T>& call, const FieldTape<T>& tape, const ColorRows<T>& out, int64_t* rays);

// v: gradients of what march wrote; those of features come from rows where these are given. Adds to the gradients of
// call.slabs.
template <class T>
void march_backward(const FieldCall<T>& call, FieldTape<T>& tape, const FieldSums<const T>& v,
                    const ColorRows<const T>* rows);

template <class T>
void find_hits(const FieldCall<T>& call, const FieldRays<T>& rays, uint8_t* out);

// Sets the bytes of the cells [z, y, x] of the box in which a sample of some ray has more weight than `least`, or, where
// is_light, more light before it.
template <class T>
void mark_seen(const FieldCall<T>& call, const FieldRays<T>& rays, T least, bool is_light, const int* size, uint8_t* cells);

// Feature of density [n] or features of colour [n, n_features] at points [n, 3].
template <class T>
void look_up(const FieldCall<T>& call, const T* points, int64_t n, bool colors, T* out);

}  // namespace scene3d
