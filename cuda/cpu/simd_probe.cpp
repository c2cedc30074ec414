#include "cpu/simd_probe.h"

#include "cpu/bindings.h"
#include "cpu/kernels.h"

namespace scene3d {

// [(operation, [16 lanes])] of the instruction set in use, for three vectors of 16 lanes.
void bind_simd_probe(nb::module_& m) {
  m.def(
      "simd_probe",
      [](Array<const float, nb::shape<3, 16>> input) {
        float rows[kMaxProbes][16];
        const char* names[kMaxProbes];
        const int n = kernels().simd_probe(input.data(), rows, names);
        nb::list result;
        for (int i = 0; i < n; i++) {
          nb::list lanes;
          for (float lane : rows[i]) lanes.append(lane);
          result.append(nb::make_tuple(names[i], lanes));
        }
        return result;
      },
      nb::arg().noconvert());
}

}  // namespace scene3d
