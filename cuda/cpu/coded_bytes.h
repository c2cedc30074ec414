// Bytes of a coder as a Python object.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/bindings.h"

namespace scene3d {

inline nb::bytes as_bytes(const std::vector<uint8_t>& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

}  // namespace scene3d
