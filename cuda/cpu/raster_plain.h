// The rasterizer as plain loops over pixels and Gaussians, for any floating type: the specification of the fast one,
// and, in double and without cut-offs, what finite differences check.
#pragma once
#include "cpu/raster_call.h"

namespace scene3d {

// cutoff = false blends every Gaussian into every pixel, so that images are smooth in all inputs.
void plain_forward(const RasterCall<double>& call, bool cutoff, const RasterImages<double>& out, double* radii);

void plain_backward(const RasterCall<double>& call, bool cutoff, const RasterImages<double>& images,
                    const RasterUpstream<double>& upstream, RasterGrads<double>& out);

}  // namespace scene3d
