// The inner loops of the grid sorter: running means and the best order of four items.
#include "cpu/grid_sort.h"

namespace scene3d {
namespace S3D_NS {

static void grid_blur_line(const GridLine& line) {
  f32x16 sums[kMaxLineVectors];
  for (int v = 0; v < line.n_vectors; v++) sums[v] = f32x16(0.f);
  int64_t begin = 0, end = 0;  // steps in the window
  for (int64_t i = 0; i < line.n_steps; i++) {
    for (; end <= i + line.radius && end < line.n_steps; end++)
      for (int v = 0; v < line.n_vectors; v++) sums[v] = sums[v] + load(line.input + end * line.stride + 16 * v);
    for (; begin < i - line.radius; begin++)
      for (int v = 0; v < line.n_vectors; v++) sums[v] = sums[v] - load(line.input + begin * line.stride + 16 * v);
    const f32x16 scale(1.f / static_cast<float>(end - begin));
    for (int v = 0; v < line.n_vectors; v++) store(line.output + i * line.stride + 16 * v, sums[v] * scale);
  }
}

// The permutation p of four with the largest sum of gain[4 * p[j] + j]: item p[j] goes to cell j. The order as it is
// wins unless another is better by more than rounding, so that sorting comes to rest.
static bool best_order(const float* gain, int* order) {
  static const int splits[6][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}, {1, 2, 0, 3}, {1, 3, 0, 2}, {2, 3, 0, 1}};
  const float kept = gain[0] + gain[5] + gain[10] + gain[15];
  float best = kept + 1e-6f * std::fabs(kept) + 1e-12f;
  int found = -1;
  for (int s = 0; s < 6; s++) {
    const int *const split = splits[s], a = split[0], b = split[1], c = split[2], d = split[3];
    const float straight = gain[4 * a] + gain[4 * b + 1], crossed = gain[4 * b] + gain[4 * a + 1];
    const float straight2 = gain[4 * c + 2] + gain[4 * d + 3], crossed2 = gain[4 * d + 2] + gain[4 * c + 3];
    const int which = 4 * s + (crossed > straight ? 2 : 0) + (crossed2 > straight2 ? 1 : 0);
    const float sum = (crossed > straight ? crossed : straight) + (crossed2 > straight2 ? crossed2 : straight2);
    found = sum > best ? which : found;
    best = sum > best ? sum : best;
  }
  if (found < 0) return false;
  const int* split = splits[found / 4];
  order[0] = split[found & 2 ? 1 : 0], order[1] = split[found & 2 ? 0 : 1];
  order[2] = split[found & 1 ? 3 : 2], order[3] = split[found & 1 ? 2 : 3];
  return true;
}

// |x - t|^2 summed over a group differs between orders only by -2 x.t: gains are the sixteen inner products.
static void grid_gains(const GridGroups& groups, const int32_t* cells, float* gain) {
  f32x16 products[16];
  for (f32x16& product : products) product = f32x16(0.f);
  const int64_t width = 16 * groups.n_vectors;
  for (int v = 0; v < groups.n_vectors; v++) {
    f32x16 target[4];
    S3D_UNROLL
    for (int j = 0; j < 4; j++) target[j] = load(groups.targets + cells[j] * width + 16 * v);
    S3D_UNROLL
    for (int i = 0; i < 4; i++) {
      const f32x16 item = load(groups.features + cells[i] * width + 16 * v);
      S3D_UNROLL
      for (int j = 0; j < 4; j++) products[4 * i + j] = fma(item, target[j], products[4 * i + j]);
    }
  }
  transpose(products);
  S3D_UNROLL
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; i++) products[i] = products[i] + products[i + step];
  store(gain, products[0]);
}

static void grid_reorder(const GridGroups& groups) {
  const int64_t width = 16 * groups.n_vectors;
  for (int64_t g = 0; g < groups.n_groups; g++) {
    const int32_t* const cells = groups.cells + 4 * g;
    float gain[16];
    int order[4];
    grid_gains(groups, cells, gain);
    if (!best_order(gain, order)) continue;
    int32_t items[4];
    for (int j = 0; j < 4; j++) items[j] = groups.items[cells[order[j]]];
    for (int j = 0; j < 4; j++) groups.items[cells[j]] = items[j];
    for (int v = 0; v < groups.n_vectors; v++) {
      f32x16 moved[4];
      for (int j = 0; j < 4; j++) moved[j] = load(groups.features + cells[order[j]] * width + 16 * v);
      for (int j = 0; j < 4; j++) store(groups.features + cells[j] * width + 16 * v, moved[j]);
    }
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
