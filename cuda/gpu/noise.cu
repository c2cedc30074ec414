// Noise of splatting as Markov chain Monte Carlo, one thread a Gaussian; the same numbers as on the CPU up to rounding.
#include "gpu/parameters.h"

namespace scene3d {
namespace gpu {
namespace {

constexpr int kThreads = 256;

__global__ void noise_kernel(NoiseArgs args, int64_t n) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i < n) add_noise(args, i);
}

}  // namespace

void mcmc_noise(const NoiseArgs& args, int64_t n, Stream stream) {
  if (n > 0) S3D_LAUNCH(noise_kernel, blocks_for(n, kThreads), kThreads, stream, args, n);
}

}  // namespace gpu
}  // namespace scene3d
