// Colour transforms of photos and their gradients: shown = A rgb + b.
#include "gpu/descent.h"
#include "gpu/sum_columns.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256, kPixelsPerThread = 4, kBlockPixels = kThreads * kPixelsPerThread;

__global__ void __launch_bounds__(kThreads) show_kernel(const float* transform, const float* rgb, int64_t n_pixels, float* shown) {
  const int64_t p = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (p >= n_pixels) return;
  const float r = rgb[3 * p], g = rgb[3 * p + 1], b = rgb[3 * p + 2];
  for (int i = 0; i < 3; i++) {
    const float* const row = transform + 4 * i;
    shown[3 * p + i] = row[0] * r + row[1] * g + row[2] * b + row[3];
  }
}

// v_rgb = A^T v_shown; v_transform = Σ v_shown [rgb 1]^T.
__global__ void __launch_bounds__(kThreads)
    show_vjp_kernel(const float* transform, const float* rgb, const float* v_shown, int64_t n_pixels, float* partials, float* v_rgb) {
  float terms[kColumns] = {};
  for (int k = 0; k < kPixelsPerThread; k++) {
    const int64_t p = blockIdx.x * static_cast<int64_t>(kBlockPixels) + k * kThreads + threadIdx.x;
    if (p >= n_pixels) continue;
    const float x[3] = {rgb[3 * p], rgb[3 * p + 1], rgb[3 * p + 2]}, v[3] = {v_shown[3 * p], v_shown[3 * p + 1], v_shown[3 * p + 2]};
    for (int j = 0; j < 3; j++) v_rgb[3 * p + j] = transform[j] * v[0] + transform[4 + j] * v[1] + transform[8 + j] * v[2];
    for (int i = 0; i < 3; i++) {
      for (int j = 0; j < 3; j++) terms[4 * i + j] += v[i] * x[j];
      terms[4 * i + 3] += v[i];
    }
  }
  store_column_sums<kThreads / 32>(terms, partials);
}

}  // namespace

void show_colors(const float* transform, const float* rgb, int64_t n_pixels, float* shown, Stream stream) {
  S3D_LAUNCH(show_kernel, blocks_for(n_pixels, kThreads), kThreads, stream, transform, rgb, n_pixels, shown);
}

int64_t color_partial_floats(int64_t n_pixels) { return blocks_for(n_pixels, kBlockPixels) * kColumns; }

void show_colors_vjp(const float* transform, const float* rgb, const float* v_shown, int64_t n_pixels, const float* loss,
                     float* partials, float* v_rgb, float* v_transform, Stream stream) {
  const int64_t n_blocks = blocks_for(n_pixels, kBlockPixels);
  S3D_LAUNCH(show_vjp_kernel, n_blocks, kThreads, stream, transform, rgb, v_shown, n_pixels, partials, v_rgb);
  sum_columns(n_blocks, partials, loss, kColumns, v_transform, stream);
}

}  // namespace gpu
}  // namespace scene3d
