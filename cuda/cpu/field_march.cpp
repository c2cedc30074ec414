#include "cpu/field_march.h"

#include <algorithm>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace scene3d {
namespace {

constexpr int64_t kPointGrain = 4096;

template <class T>
FieldSample<T>* scratch_samples() {
  thread_local Buffer<FieldSample<T>> scratch;
  return scratch.reserve(kMaxRaySamples);
}

template <class T>
FieldRay<T> ray_of(const FieldRays<T>& rays, int64_t i) {
  FieldRay<T> ray;
  for (int a = 0; a < 3; a++) ray.origin[a] = rays.origins[3 * i + a], ray.direction[a] = rays.directions[3 * i + a];
  ray.jitter = rays.jitter ? rays.jitter[i] : T(0.5);
  return ray;
}

template <class T>
void march_chunk(const FieldCall<T>& call, const FieldRays<T>& rays, int64_t begin, int64_t end, const FieldSums<T>& out,
                 typename FieldTape<T>::Chunk* kept) {
  FieldSample<T>* const samples = scratch_samples<T>();
  const auto forward_ray = field_table<T>().forward_ray;
  if (kept) kept->n_rays = static_cast<int>(end - begin);
  for (int64_t i = begin; i < end; i++) {
    RayResult<T> result = {out.features ? out.features + i * call.n_features() : nullptr, 0, 0};
    const int n = forward_ray(call, ray_of(rays, i), samples, result);
    out.opacity[i] = result.opacity, out.distance[i] = result.distance;
    if (!kept) continue;
    const int64_t used = kept->begin[i - begin];
    const size_t total = static_cast<size_t>(used + n);
    std::memcpy(kept->samples.extend(total, static_cast<size_t>(used)) + used, samples, sizeof(FieldSample<T>) * n);
    kept->begin[i - begin + 1] = used + n;
  }
}

// Appends the gradients of a ray that is done to the lists of its chunk.
template <class T>
void list_grads(const FieldCall<T>& call, typename FieldTape<T>::Chunk& chunk, int ray) {
  int64_t n_density = chunk.grad_begin[0][ray], n_color = chunk.grad_begin[1][ray];
  SampleGrad<T>*const density = chunk.grads[0].data(), *const color = chunk.grads[1].data();
  for (int64_t i = chunk.begin[ray]; i < chunk.begin[ray + 1]; i++) {
    const FieldSample<T>& sample = chunk.samples[static_cast<size_t>(i)];
    const T *const at = sample.nodes, weight = sample.weight();
    density[n_density] = {{at[0], at[1], at[2]}, sample.v_feature};
    color[n_color] = {{at[0], at[1], at[2]}, weight};
    n_density += sample.v_feature != 0;
    n_color += weight > call.min_weight;
  }
  chunk.grad_begin[0][ray + 1] = n_density, chunk.grad_begin[1][ray + 1] = n_color;
}

struct ScatterTask {
  int set, mode, group, end_group;
};

// Where the rows of each chunk begin, and their number.
template <class T>
std::vector<int64_t> row_begins(const FieldCall<T>& call, const FieldTape<T>& tape) {
  std::vector<int64_t> begins(tape.chunks.size() + 1, 0);
  for (size_t c = 0; c < tape.chunks.size(); c++) {
    const auto& chunk = tape.chunks[c];
    int64_t n = 0;
    for (int64_t i = 0; i < chunk.begin[chunk.n_rays]; i++)
      n += chunk.samples[static_cast<size_t>(i)].weight() > call.min_weight;
    begins[c + 1] = begins[c] + n;
  }
  return begins;
}

// Gradients of colour where each sample has a row of its own: as if it were a ray. v_features: rows of the chunk.
template <class T>
void scatter_rows(const FieldCall<T>& call, const ScatterTask& task, const typename FieldTape<T>::Chunk& chunk,
                  const T* v_features) {
  int64_t each[kRayChunk + 1];
  for (int i = 0; i <= kRayChunk; i++) each[i] = i;
  const int64_t n = chunk.grad_begin[1][chunk.n_rays];
  for (int64_t begin = 0; begin < n; begin += kRayChunk) {
    const int n_here = static_cast<int>(std::min<int64_t>(kRayChunk, n - begin));
    field_table<T>().scatter(call, 1, task.mode, task.group, task.end_group, {chunk.grads[1].data() + begin, each, n_here},
                             v_features + begin * call.n_features());
  }
}

// Colour first: its tasks are the longer ones. Groups share the work of finding cells where there are threads for the
// modes alone; what is added to a value, and in which order, is the same either way.
template <class T>
std::vector<ScatterTask> scatter_tasks(const FieldCall<T>& call) {
  std::vector<ScatterTask> tasks;
  // Of a network all units of a set belong together.
  const bool is_split = thread_count() > call.n_modes() && !call.has_network();
  for (int set : {1, 0}) {
    for (int mode = 0; mode < call.n_modes(); mode++) {
      const int groups = call.rank[set] / kLanes, size = is_split ? 1 : groups;
      for (int group = 0; group < groups; group += size) tasks.push_back({set, mode, group, group + size});
    }
  }
  return tasks;
}

}  // namespace

const FieldKernels& field_kernels() {
  const char* const level = kernels().name;
#if defined(__x86_64__)
  if (!std::strcmp(level, "avx512")) return avx512_field_kernels();
  if (!std::strcmp(level, "avx2")) return avx2_field_kernels();
#elif defined(__aarch64__)
  if (!std::strcmp(level, "neon")) return neon_field_kernels();
#endif
  (void)level;
  return scalar_field_kernels();
}

template <>
const FieldTable<float>& field_table<float>() {
  return field_kernels().f32;
}

template <>
const FieldTable<double>& field_table<double>() {
  return scalar_field_kernels().f64;
}

template <class T>
void march(const FieldCall<T>& call, const FieldRays<T>& rays, const FieldSums<T>& out, FieldTape<T>* tape) {
  const size_t n_chunks = static_cast<size_t>((rays.n + kRayChunk - 1) / kRayChunk);
  if (tape) tape->chunks.resize(n_chunks), tape->n_rays = rays.n;
  parallel_ranges(rays.n, kRayChunk, [&](int64_t begin, int64_t end) {
    march_chunk(call, rays, begin, end, out, tape ? &tape->chunks[static_cast<size_t>(begin / kRayChunk)] : nullptr);
  });
}

template <class T>
int64_t count_rows(const FieldCall<T>& call, const FieldTape<T>& tape) {
  return row_begins(call, tape).back();
}

template <class T>
void gather_rows(const FieldCall<T>& call, const FieldTape<T>& tape, const ColorRows<T>& out, int64_t* rays) {
  const auto color_rows = field_table<T>().color_rows;
  const std::vector<int64_t> begins = row_begins(call, tape);
  parallel_for(static_cast<int64_t>(tape.chunks.size()), [&](int64_t c) {
    const auto& chunk = tape.chunks[static_cast<size_t>(c)];
    int64_t row = begins[static_cast<size_t>(c)];
    for (int i = 0; i < chunk.n_rays; i++) {
      const int n = static_cast<int>(chunk.begin[i + 1] - chunk.begin[i]);
      const int n_rows = color_rows(call, chunk.samples.data() + chunk.begin[i], n, out.features + row * call.n_features(),
                                    out.weights + row);
      std::fill(rays + row, rays + row + n_rows, c * kRayChunk + i);
      row += n_rows;
    }
  });
}

template <class T>
void march_backward(const FieldCall<T>& call, FieldTape<T>& tape, const FieldSums<const T>& v,
                    const ColorRows<const T>* rows) {
  const FieldTable<T>& table = field_table<T>();
  const int64_t n_features = call.n_features();
  const std::vector<int64_t> begins = rows ? row_begins(call, tape) : std::vector<int64_t>();
  parallel_for(static_cast<int64_t>(tape.chunks.size()), [&](int64_t c) {
    typename FieldTape<T>::Chunk& chunk = tape.chunks[static_cast<size_t>(c)];
    for (auto& grads : chunk.grads) grads.reserve(static_cast<size_t>(chunk.begin[chunk.n_rays] + 1));
    for (int i = 0; i < chunk.n_rays; i++) {
      const int64_t ray = c * kRayChunk + i, begin = chunk.begin[i];
      const T* const v_colored = rows ? rows->weights + begins[static_cast<size_t>(c)] + chunk.grad_begin[1][i] : nullptr;
      table.backward_ray(call, chunk.samples.data() + begin, static_cast<int>(chunk.begin[i + 1] - begin),
                         rows ? nullptr : v.features + ray * n_features, v.opacity[ray], v.distance[ray], v_colored);
      list_grads(call, chunk, i);
    }
  });
  const std::vector<ScatterTask> tasks = scatter_tasks(call);
  parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const ScatterTask& task = tasks[static_cast<size_t>(i)];
    for (size_t c = 0; c < tape.chunks.size(); c++) {
      const auto& chunk = tape.chunks[c];
      if (rows && task.set == 1) {
        scatter_rows(call, task, chunk, rows->features + begins[c] * n_features);
        continue;
      }
      const SampleRows<T> list = {chunk.grads[task.set].data(), chunk.grad_begin[task.set], chunk.n_rays};
      table.scatter(call, task.set, task.mode, task.group, task.end_group, list,
                    v.features + static_cast<int64_t>(c) * kRayChunk * n_features);
    }
  });
}

template <class T>
void find_hits(const FieldCall<T>& call, const FieldRays<T>& rays, uint8_t* out) {
  const auto hits = field_table<T>().hits;
  parallel_ranges(rays.n, kPointGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = hits(call, ray_of(rays, i));
  });
}

template <class T>
void mark_seen(const FieldCall<T>& call, const FieldRays<T>& rays, T least, bool is_light, const int* size, uint8_t* cells) {
  const auto forward_ray = field_table<T>().forward_ray;
  T scale[3];
  for (int a = 0; a < 3; a++) scale[a] = static_cast<T>(size[a]) / static_cast<T>(call.n[a] - 1);
  parallel_ranges(rays.n, kRayChunk, [&](int64_t begin, int64_t end) {
    FieldSample<T>* const samples = scratch_samples<T>();
    for (int64_t i = begin; i < end; i++) {
      RayResult<T> result = {nullptr, 0, 0};
      const int n = forward_ray(call, ray_of(rays, i), samples, result);
      for (int k = 0; k < n; k++) {
        if (!((is_light ? samples[k].transmittance : samples[k].weight()) > least)) continue;
        int64_t cell = 0;
        for (int a = 2; a >= 0; a--)
          cell = cell * size[a] + std::clamp(static_cast<int>(samples[k].nodes[a] * scale[a]), 0, size[a] - 1);
        // Whoever comes first, the byte is the same.
        __atomic_store_n(cells + cell, uint8_t{1}, __ATOMIC_RELAXED);
      }
    }
  });
}

template <class T>
void look_up(const FieldCall<T>& call, const T* points, int64_t n, bool colors, T* out) {
  const FieldTable<T>& table = field_table<T>();
  parallel_ranges(n, kPointGrain, [&](int64_t begin, int64_t end) {
    const int count = static_cast<int>(end - begin);
    if (colors) table.features_at(call, points + 3 * begin, count, out + begin * call.n_features());
    else table.density_at(call, points + 3 * begin, count, out + begin);
  });
}

template struct FieldTape<float>;
template struct FieldTape<double>;
#define S3D_INSTANTIATE(T)                                                                                   \
  template void march<T>(const FieldCall<T>&, const FieldRays<T>&, const FieldSums<T>&, FieldTape<T>*);      \
  template void march_backward<T>(const FieldCall<T>&, FieldTape<T>&, const FieldSums<const T>&,             \
                                  const ColorRows<const T>*);                                                \
  template int64_t count_rows<T>(const FieldCall<T>&, const FieldTape<T>&);                                  \
  template void gather_rows<T>(const FieldCall<T>&, const FieldTape<T>&, const ColorRows<T>&, int64_t*);     \
  template void find_hits<T>(const FieldCall<T>&, const FieldRays<T>&, uint8_t*);                            \
  template void mark_seen<T>(const FieldCall<T>&, const FieldRays<T>&, T, bool, const int*, uint8_t*);       \
  template void look_up<T>(const FieldCall<T>&, const T*, int64_t, bool, T*);
S3D_INSTANTIATE(float)
S3D_INSTANTIATE(double)
#undef S3D_INSTANTIATE

}  // namespace scene3d
