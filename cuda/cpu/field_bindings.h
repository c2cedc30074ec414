// What the module offers for radiance fields.
#pragma once
#include "cpu/bindings.h"

namespace scene3d {

void bind_field(nb::module_& m);
void bind_field_decoder(nb::module_& m);
void bind_field_image(nb::module_& m);

}  // namespace scene3d
