#include "gpu/loss.h"

#include "gpu/warp.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kTile = 16, kHalf = 5, kWide = kTile + 2 * kHalf;  // a tile, half the window, a tile with its halo
constexpr int kThreads = kTile * kTile;
constexpr int kSumBlocks = 64;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

// The half window, edge to centre: exp(-i^2 / (2 * 1.5^2)), normalised to a sum of 1 over the 11 taps.
__device__ inline float tap(int i) {
  constexpr float taps[6] = {0.00102838008f, 0.00759875814f, 0.0360007721f, 0.10936069f, 0.213005538f, 0.266011725f};
  return taps[i <= kHalf ? i : 2 * kHalf - i];
}

struct LossArgs {
  LossInput in;
  float* maps;              // [3, H, W, 3]
  const float* per_weight;  // 1 / (3 sum of weights), 0 where that sum is 0
  float* partials;          // [n_tiles, 2]: sums of w |x - y| and w ssim
  float* v_rgb;
};

struct TilePlace {
  int x0, y0, column, row;  // of the tile in the image, of the thread in the tile

  __device__ int x() const { return x0 + column; }
  __device__ int y() const { return y0 + row; }
};

__device__ inline TilePlace tile_place(int width) {
  const int tiles_x = (width + kTile - 1) / kTile, tile = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  return {tile % tiles_x * kTile, tile / tiles_x * kTile, thread % kTile, thread / kTile};
}

__device__ inline float weight_at(const LossInput& in, int x, int y) {
  if (x >= in.width || y >= in.height) return 0.f;
  return in.weight ? in.weight[static_cast<int64_t>(y) * in.width + x] : 1.f;
}

__device__ inline float target_at(const LossInput& in, int64_t i) {
  return in.target ? in.target[i] : static_cast<float>(in.target_bytes[i]) * (1.f / 255.f);
}

// Loads a tile with its halo, zeros beyond the image, by read(index in [H, W, 3]).
template <class F>
__device__ inline void load_wide(const LossInput& in, const TilePlace& at, float (*to)[kWide * 3], F read) {
  for (int k = static_cast<int>(threadIdx.x); k < kWide * kWide * 3; k += kThreads) {
    const int row = k / (kWide * 3), column = k % (kWide * 3), x = at.x0 - kHalf + column / 3, y = at.y0 - kHalf + row;
    const bool is_inside = x >= 0 && x < in.width && y >= 0 && y < in.height;
    to[row][column] = is_inside ? read((static_cast<int64_t>(y) * in.width + x) * 3 + column % 3) : 0.f;
  }
}

// Sum over the window along a row, of the products of a and b (b null: of a alone).
__device__ inline float blur_row(const float* a, const float* b, int column, int channel) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i <= 2 * kHalf; i++) {
    const int k = 3 * (column + i) + channel;
    sum += tap(i) * (b ? a[k] * b[k] : a[k]);
  }
  return sum;
}

__device__ inline float blur_column(const float (*rows)[kTile], int row, int column) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i <= 2 * kHalf; i++) sum += tap(i) * rows[row + i][column];
  return sum;
}

struct SsimMaps {
  float ssim, by_x, by_xx, by_xy;
};

// SSIM of blurred x, y, xx + yy and xy, and its derivatives times `v`.
__device__ inline SsimMaps ssim_of(float p, float q, float squares, float product, float v) {
  const float top1 = 2.f * p * q + kC1, top2 = 2.f * (product - p * q) + kC2;
  // Rounding could make the variance of bright flat parts negative, and the quotient explode.
  const float bottom1 = p * p + q * q + kC1, bottom2 = fmaxf(squares - (p * p + q * q), 0.f) + kC2;
  const float inverse = 1.f / (bottom1 * bottom2), ssim = top1 * top2 * inverse, scaled = v * inverse;
  return {ssim, 2.f * scaled * (q * (top2 - top1) - p * ssim * (bottom2 - bottom1)), -scaled * ssim * bottom1, 2.f * scaled * top1};
}

// Adds two numbers of all threads of the block and writes them, in a fixed order.
__device__ inline void store_partials(float a, float b, float* to) {
  __shared__ float part[kThreads / 32][2];
  a = warp_sum(a), b = warp_sum(b);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32][0] = a, part[threadIdx.x / 32][1] = b;
  __syncthreads();
  if (threadIdx.x >= 2) return;
  float sum = 0.f;
  for (int warp = 0; warp < kThreads / 32; warp++) sum += part[warp][threadIdx.x];
  to[threadIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) maps_kernel(LossArgs a) {
  __shared__ float x[kWide][kWide * 3], y[kWide][kWide * 3];
  __shared__ float blurred[4][kWide][kTile];
  const LossInput& in = a.in;
  const TilePlace at = tile_place(in.width);
  load_wide(in, at, x, [&](int64_t i) { return in.rgb[i]; });
  load_wide(in, at, y, [&](int64_t i) { return target_at(in, i); });
  const bool is_inside = at.x() < in.width && at.y() < in.height;
  const float weight = weight_at(in, at.x(), at.y()), v = -in.ssim_lambda * *a.per_weight * weight;
  const int64_t n_values = static_cast<int64_t>(in.height) * in.width * 3;
  float l1 = 0.f, ssim = 0.f;
  for (int channel = 0; channel < 3; channel++) {
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < kWide * kTile; k += kThreads) {
      const int row = k / kTile, column = k % kTile;
      blurred[0][row][column] = blur_row(x[row], nullptr, column, channel);
      blurred[1][row][column] = blur_row(y[row], nullptr, column, channel);
      blurred[2][row][column] = blur_row(x[row], x[row], column, channel) + blur_row(y[row], y[row], column, channel);
      blurred[3][row][column] = blur_row(x[row], y[row], column, channel);
    }
    __syncthreads();
    float sums[4];
    for (int m = 0; m < 4; m++) sums[m] = blur_column(blurred[m], at.row, at.column);
    const SsimMaps maps = ssim_of(sums[0], sums[1], sums[2], sums[3], v);
    const int k = 3 * (at.column + kHalf) + channel;
    l1 += weight * fabsf(x[at.row + kHalf][k] - y[at.row + kHalf][k]), ssim += weight * maps.ssim;
    if (!is_inside) continue;
    float* const to = a.maps + (static_cast<int64_t>(at.y()) * in.width + at.x()) * 3 + channel;
    to[0] = maps.by_x, to[n_values] = maps.by_xx, to[2 * n_values] = maps.by_xy;
  }
  store_partials(l1, ssim, a.partials + 2 * blockIdx.x);
}

__global__ void __launch_bounds__(kThreads) gradient_kernel(LossArgs a) {
  __shared__ float maps[3][kWide][kWide * 3];
  __shared__ float blurred[3][kWide][kTile];
  const LossInput& in = a.in;
  const TilePlace at = tile_place(in.width);
  const int64_t n_values = static_cast<int64_t>(in.height) * in.width * 3;
  for (int m = 0; m < 3; m++) load_wide(in, at, maps[m], [&](int64_t i) { return a.maps[m * n_values + i]; });
  const float step = (1.f - in.ssim_lambda) * *a.per_weight * weight_at(in, at.x(), at.y());
  for (int channel = 0; channel < 3; channel++) {
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < kWide * kTile; k += kThreads)
      for (int m = 0; m < 3; m++) blurred[m][k / kTile][k % kTile] = blur_row(maps[m][k / kTile], nullptr, k % kTile, channel);
    __syncthreads();
    if (at.x() >= in.width || at.y() >= in.height) continue;
    const int64_t i = (static_cast<int64_t>(at.y()) * in.width + at.x()) * 3 + channel;
    const float x = in.rgb[i], y = target_at(in, i), difference = x - y;
    float sums[3];
    for (int m = 0; m < 3; m++) sums[m] = blur_column(blurred[m], at.row, at.column);
    const float sign = difference > 0.f ? step : difference < 0.f ? -step : 0.f;
    a.v_rgb[i] = sums[0] + 2.f * x * sums[1] + y * sums[2] + sign;
  }
}

// Sum of doubles over the block, in a fixed order; thread 0 gets it.
__device__ inline double block_sum(double value) {
  __shared__ double part[kThreads];
  part[threadIdx.x] = value;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
  }
  __syncthreads();
  const double sum = part[0];
  __syncthreads();
  return sum;
}

__global__ void __launch_bounds__(kThreads) weight_kernel(const float* weight, int64_t n, double* partials) {
  double sum = 0;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < n; i += static_cast<int64_t>(kSumBlocks) * kThreads)
    sum += weight[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// per_weight from sums of weights, or from the number of pixels where there are none.
__global__ void __launch_bounds__(kThreads) scale_kernel(const double* partials, int64_t n_pixels, float* per_weight) {
  const double sum = block_sum(partials && threadIdx.x < kSumBlocks ? partials[threadIdx.x] : 0.0);
  const double total = 3 * (partials ? sum : static_cast<double>(n_pixels));
  if (threadIdx.x == 0) *per_weight = total > 0 ? static_cast<float>(1 / total) : 0.f;
}

__global__ void __launch_bounds__(kThreads) parts_kernel(const float* partials, int64_t n_tiles, float ssim_lambda, const float* per_weight, float* parts) {
  double sums[2] = {0, 0};
  for (int64_t i = threadIdx.x; i < n_tiles; i += kThreads) sums[0] += partials[2 * i], sums[1] += partials[2 * i + 1];
  const double l1 = block_sum(sums[0]) * *per_weight, ssim = block_sum(sums[1]) * *per_weight;
  if (threadIdx.x > 0) return;
  parts[0] = static_cast<float>((1 - ssim_lambda) * l1 + (*per_weight > 0.f ? ssim_lambda * (1 - ssim) : 0.0));
  parts[1] = static_cast<float>(l1), parts[2] = static_cast<float>(ssim);
}

int64_t tile_count(int height, int width) { return blocks_for(height, kTile) * blocks_for(width, kTile); }

}  // namespace

int64_t loss_scratch_floats(int height, int width) {
  return 2 * kSumBlocks + 2 + 2 * tile_count(height, width) + INT64_C(9) * height * width;
}

void l1_ssim(const LossInput& input, float* scratch, float* v_rgb, float* parts, Stream stream) {
  const int64_t n_tiles = tile_count(input.height, input.width), n_pixels = static_cast<int64_t>(input.height) * input.width;
  double* const weight_sums = reinterpret_cast<double*>(scratch);
  float *const per_weight = scratch + 2 * kSumBlocks, *const partials = per_weight + 2, *const maps = partials + 2 * n_tiles;
  const LossArgs args = {input, maps, per_weight, partials, v_rgb};
  if (input.weight) S3D_LAUNCH(weight_kernel, kSumBlocks, kThreads, stream, input.weight, n_pixels, weight_sums);
  const double* const sums = input.weight ? weight_sums : nullptr;
  S3D_LAUNCH(scale_kernel, 1, kThreads, stream, sums, n_pixels, per_weight);
  S3D_LAUNCH(maps_kernel, n_tiles, kThreads, stream, args);
  S3D_LAUNCH(gradient_kernel, n_tiles, kThreads, stream, args);
  S3D_LAUNCH(parts_kernel, 1, kThreads, stream, partials, n_tiles, input.ssim_lambda, per_weight, parts);
}

}  // namespace gpu
}  // namespace scene3d
