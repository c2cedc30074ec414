// Which tiles, and which blocks of pixels in them, the alpha = 1/255 ellipse of a projected Gaussian reaches.
//
// Everything follows from the record that the tiles read, not from the projection, so that counting and listing see the
// same numbers. At height dy above its centre an ellipse spans dy * slope +- sqrt(spread * (1 - dy^2 / half_y^2)); it is
// widest at +-widest.
#pragma once
#include "math/config.h"
#include "math/constants.h"

namespace scene3d {

// An ellipse is widened by this many pixels when its tiles are listed: rounding must not lose a contribution.
constexpr float kReachSlack = 0.01f;

// Extent of one ellipse, pixels.
struct Reach {
  float x, y, half_x, half_y;
  float slope, widest;   // dx per dy of its spine; dy of its rightmost point
  float inv_y2, spread;  // 1 / half_y^2, square of half its width at dy = 0
};

// A range of tiles, both ends included; empty where first > last.
struct TileSpan {
  int first, last;
};

struct TileBox {
  TileSpan x, y;
};

S3D_HD float least(float a, float b) { return b < a ? b : a; }
S3D_HD float most(float a, float b) { return a < b ? b : a; }
S3D_HD float held(float low, float x, float high) { return most(low, least(x, high)); }

// From the whitening factor (see projection.h) and the logarithm of opacity: with w = kHalfLog2eRoot, the screen
// covariance has yy = w^2 / l22^2, det / yy = w^2 / l11^2 and xy = slope yy.
S3D_HD Reach make_reach(float x, float y, float l11, float l22, float slope, float log2_opacity) {
  const float w2 = static_cast<float>(kHalfLog2eRoot * kHalfLog2eRoot);
  const float reach = most(0.f, static_cast<float>(2 * kLn2) * (log2_opacity - static_cast<float>(kLog2MinAlpha)));
  const float yy = w2 / (l22 * l22), across = w2 / (l11 * l11), xx = across + slope * slope * yy;
  Reach r;
  r.x = x, r.y = y, r.slope = slope;
  r.half_x = sqrt(reach * xx), r.half_y = sqrt(reach * yy);
  r.widest = r.half_y * slope * sqrt(yy / xx);
  r.inv_y2 = 1.f / (reach * yy), r.spread = reach * across;
  return r;
}

// Tile with the first pixel centre beyond `low`, and with the last before `high`, held within [0, n] and [-1, n - 1].
S3D_HD int first_tile_beyond(float low, int n) {
  const float tile = -floorf((kTileSize - 0.5f + kReachSlack - low) * (1.f / kTileSize));
  return static_cast<int>(held(0.f, tile, static_cast<float>(n)));
}

S3D_HD int last_tile_before(float high, int n) {
  const float tile = floorf((high + kReachSlack - 0.5f) * (1.f / kTileSize));
  return static_cast<int>(held(-1.f, tile, static_cast<float>(n - 1)));
}

// Tiles of the bounding box, cut to the image and to the rows [row_begin, row_end).
S3D_HD TileBox tile_box(const Reach& r, int tiles_x, int tiles_y, int row_begin, int row_end) {
  TileBox box;
  box.x.first = first_tile_beyond(r.x - r.half_x, tiles_x), box.x.last = last_tile_before(r.x + r.half_x, tiles_x);
  box.y.first = first_tile_beyond(r.y - r.half_y, tiles_y), box.y.last = last_tile_before(r.y + r.half_y, tiles_y);
  if (box.y.first < row_begin) box.y.first = row_begin;
  if (box.y.last >= row_end) box.y.last = row_end - 1;
  if (box.x.first > box.x.last) box.y.last = box.y.first - 1;
  return box;
}

// Tiles of row `row` that the ellipse itself reaches.
S3D_HD TileSpan tile_span(const Reach& r, const TileSpan& columns, int row) {
  const float top = static_cast<float>(row * kTileSize) - r.y;
  const float low = most(top + 0.5f - kReachSlack, -r.half_y);
  const float high = least(top + kTileSize - 0.5f + kReachSlack, r.half_y);
  if (!(low <= high)) return {1, 0};
  const float root_low = sqrt(most(0.f, r.spread * (1.f - low * low * r.inv_y2)));
  const float root_high = sqrt(most(0.f, r.spread * (1.f - high * high * r.inv_y2)));
  const bool has_right = r.widest >= low && r.widest <= high, has_left = -r.widest >= low && -r.widest <= high;
  const float right = has_right ? r.half_x : most(r.slope * low + root_low, r.slope * high + root_high);
  const float left = has_left ? -r.half_x : least(r.slope * low - root_low, r.slope * high - root_high);
  TileSpan span = {first_tile_beyond(r.x + left, columns.last + 1), last_tile_before(r.x + right, columns.last + 1)};
  if (span.first < columns.first) span.first = columns.first;
  return span;
}

// Number of tiles in the rows [row_begin, row_end).
S3D_HD int count_tiles(const Reach& r, int tiles_x, int tiles_y, int row_begin, int row_end) {
  const TileBox box = tile_box(r, tiles_x, tiles_y, row_begin, row_end);
  int count = 0;
  for (int row = box.y.first; row <= box.y.last; row++) {
    const TileSpan span = tile_span(r, box.x, row);
    if (span.first <= span.last) count += span.last - span.first + 1;
  }
  return count;
}

// Bits of a sort key that holds the tiles 0 to n_tiles and one number more, the mark of an unused place.
S3D_HD int tile_key_bits(uint32_t n_tiles) {
  int bits = 1;
  while (bits < 32 && (n_tiles >> bits)) bits++;
  return bits;
}

// What the test of a block of pixels needs of a Gaussian; x and y are relative to the block's coordinates.
struct BlockTest {
  float x, y, l11, l21, l22, log2_opacity, slope_x, slope_y;
};

// Whether a rectangle of pixel centres, corners included, holds a point with alpha >= 1/255. The exponent is convex: on
// a rectangle it is least at the centre, or on the edge nearest in x, or on the edge nearest in y.
S3D_HD bool reaches_block(const BlockTest& s, float left, float top, float right, float bottom) {
  const float x0 = left - s.x, x1 = right - s.x, y0 = top - s.y, y1 = bottom - s.y;
  const float x = held(x0, 0.f, x1), y = held(y0, 0.f, y1);
  const float y_at_x = held(y0, x * s.slope_x, y1), x_at_y = held(x0, y * s.slope_y, x1);
  const float u1 = s.l11 * x + s.l21 * y_at_x, v1 = s.l22 * y_at_x;
  const float u2 = s.l11 * x_at_y + s.l21 * y, v2 = s.l22 * y;
  const float distance = least(u1 * u1 + v1 * v1, u2 * u2 + v2 * v2);
  return s.log2_opacity - static_cast<float>(kLog2MinAlpha) >= distance;
}

}  // namespace scene3d
