// Delaunay tetrahedra of points on a grid of whole numbers.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace scene3d {

// Coordinates of at most so many bits: all that is decided is decided exactly.
constexpr int kDelaunayBits = 20;

// Corners of the tetrahedra of points [n, 3], in [0, 2^20) each; with positive (b - a) x (c - a) . (d - a). Points that
// were there before, and all where they lie in one plane, are in none. In the order of insertion points should be near
// the one before: that is where the search for their place begins.
std::vector<std::array<int32_t, 4>> delaunay_tetrahedra(const int32_t* points, int64_t n);

}  // namespace scene3d
