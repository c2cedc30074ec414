// Sixteen places at a time against the Gaussians of their tile.
#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "cpu/surface.h"

namespace scene3d {
namespace S3D_NS {

// Light that is left below this: the rest hides nothing that counts.
constexpr float kDark = 0.01f;
constexpr int kBetweenChecks = 8;

static void opacity_tile(const OpacityTile& tile) {
  for (int64_t begin = 0; begin < tile.n_places; begin += 16) {
    const int n = static_cast<int>(tile.n_places - begin < 16 ? tile.n_places - begin : 16);
    const f32x16 x = load_first(tile.x + begin, n), y = load_first(tile.y + begin, n),
                 z = load_first(tile.z + begin, n);
    const float deepest = tile.z[begin + n - 1];
    // Lanes without a place are dark from the beginning.
    f32x16 light = keep(mask_of((1u << n) - 1), f32x16(1.f));
    for (int64_t k = 0; k < tile.n_list; k++) {
      const RayGaussian<float>& g = tile.gaussians[tile.list[k]];
      if (g.z0 - g.reach > deepest) continue;
      light = light * (f32x16(1.f) - min(opacity_until(g, x, y, z), f32x16(0.999f)));
      if (k % kBetweenChecks == 0 && !bits(light >= f32x16(kDark))) break;
    }
    store_first(tile.opacity + begin, f32x16(1.f) - light, n);
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
