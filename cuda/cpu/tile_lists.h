// Which items reach into which tile of an image, in the order in which the items are given.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "math/constants.h"

namespace scene3d {

struct TileRect {
  int32_t x0, y0, x1, y1;  // tiles, x1 and y1 excluded
  bool empty() const { return x1 <= x0 || y1 <= y0; }
};

struct TileLists {
  int tiles_x = 0, tiles_y = 0;
  std::vector<int64_t> begin;  // [tiles + 1]
  std::vector<int32_t> items;
};

inline int tiles_of(int pixels) { return (pixels + kTileSize - 1) / kTileSize; }

inline int32_t tile_at(double pixel, int n_tiles) {
  return static_cast<int32_t>(std::clamp(std::floor(pixel / kTileSize), 0.0, static_cast<double>(n_tiles)));
}

// Tiles that the box from (x0, y0) to (x1, y1), pixels, touches.
inline TileRect tiles_within(double x0, double y0, double x1, double y1, int tiles_x, int tiles_y) {
  return {tile_at(x0, tiles_x), tile_at(y0, tiles_y), tile_at(x1 + kTileSize, tiles_x), tile_at(y1 + kTileSize, tiles_y)};
}

inline TileLists list_by_tile(const std::vector<TileRect>& rects, const std::vector<int32_t>& order, int tiles_x,
                              int tiles_y) {
  TileLists lists;
  lists.tiles_x = tiles_x, lists.tiles_y = tiles_y;
  lists.begin.assign(static_cast<size_t>(tiles_x * tiles_y) + 1, 0);
  const auto each = [&](auto&& visit) {
    for (const int32_t i : order) {
      const TileRect& r = rects[static_cast<size_t>(i)];
      for (int32_t y = r.y0; y < r.y1; y++)
        for (int32_t x = r.x0; x < r.x1; x++) visit(static_cast<size_t>(y * tiles_x + x), i);
    }
  };
  each([&](size_t tile, int32_t) { lists.begin[tile + 1]++; });
  for (size_t t = 1; t < lists.begin.size(); t++) lists.begin[t] += lists.begin[t - 1];
  lists.items.resize(static_cast<size_t>(lists.begin.back()));
  std::vector<int64_t> next(lists.begin.begin(), lists.begin.end() - 1);
  each([&](size_t tile, int32_t i) { lists.items[static_cast<size_t>(next[tile]++)] = i; });
  return lists;
}

}  // namespace scene3d
