// The kernels that exist once per instruction set, as a table of functions; cpu/dispatch.cpp picks the table.
#pragma once
#include <cstdint>

namespace scene3d {

struct RasterTileArgs;  // cpu/raster.h
struct ProjectedRows;
struct PairRows;
struct Splat;
template <class T>
struct RasterCall;  // cpu/raster_call.h
template <class T>
struct RasterGrads;
template <class T>
struct ViewGrad;  // math/projection.h
struct LossArgs;  // cpu/loss.h
struct AdamArgs;  // cpu/adam.h
struct AdamGroup;
struct NearestArgs;  // cpu/kmeans.h
struct DescentArgs;  // cpu/descent.h
struct GridLine;  // cpu/grid_sort.h
struct GridGroups;

struct Kernels {
  const char* name;
  void (*raster_forward_tile)(const RasterTileArgs& args, int64_t tile);
  void (*raster_backward_tile)(const RasterTileArgs& args, int64_t tile);
  // Projects Gaussians [begin, begin + n), n <= 16, and writes the splats of those seen.
  void (*project_rows)(const RasterCall<float>& call, int64_t begin, int n, Splat* splats, ProjectedRows& out);
  // Sums of the pairs of Gaussians [begin, end), [end - begin, kRowFloats].
  void (*sum_pair_rows)(const PairRows& pairs, int64_t begin, int64_t end, float* sums);
  // Gradients of Gaussians [begin, end) from those sums.
  void (*gradient_rows)(const RasterCall<float>& call, const PairRows& pairs, const float* sums, int64_t begin,
                        int64_t end, const RasterGrads<float>& out, ViewGrad<float>* v_view);
  // The same, and a step of Adam at once.
  void (*descend_rows)(const RasterCall<float>& call, const PairRows& pairs, const float* sums, int64_t begin,
                       int64_t end, const DescentArgs& descent, ViewGrad<float>* v_view);
  void (*loss_tile)(const LossArgs& args, int64_t tile, float* scratch);
  // Rows [begin, end) of a group. Returns how many gradient values are not finite.
  int64_t (*adam_rows)(const AdamArgs& args, const AdamGroup& group, int64_t begin, int64_t end);
  void (*grid_blur_line)(const GridLine& line);
  void (*grid_reorder)(const GridGroups& groups);
  // Nearest centers of a run of points; cpu/kmeans.h.
  void (*nearest_centers)(const NearestArgs& args);
  // Every operation of simd.h on three vectors; returns how many rows and names it wrote.
  int (*simd_probe)(const float* input, float (*rows)[16], const char** names);
};

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& neon_kernels();

// The table in use: the widest that this processor runs, unless SCENE3D_SIMD names another.
const Kernels& kernels();
// Selects a table by name; false where this processor cannot run it.
bool set_simd_level(const char* name);
// Names of the tables this processor runs, widest first, nullptr at the end.
const char* const* simd_levels();

}  // namespace scene3d
