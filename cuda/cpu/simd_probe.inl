// Runs every operation of simd.h once and writes what came out, so that a test can compare instruction sets.
#include "cpu/simd_probe.h"

namespace scene3d {
namespace S3D_NS {

struct ProbeRows {
  float (*rows)[16];
  const char** names;
  int n;

  void add(const char* name, f32x16 a) {
    names[n] = name;
    store(rows[n++], a);
  }
  void add(const char* name, mask16 a) { add(name, keep(a, f32x16(1.f))); }
  void add(const char* name, uint32_t a) { add(name, f32x16(static_cast<float>(a))); }
};

static void probe_arithmetic(ProbeRows& out, f32x16 a, f32x16 b, f32x16 c) {
  out.add("a + b", a + b);
  out.add("a - b", a - b);
  out.add("a * b", a * b);
  out.add("a / b", a / b);
  out.add("fma", fma(a, b, c));
  out.add("fnma", fnma(a, b, c));
  out.add("min", min(a, b));
  out.add("max", max(a, b));
  out.add("abs", abs(a));
  out.add("sqrt", sqrt(abs(a)));
  out.add("reciprocal", reciprocal(b));
}

static void probe_masks(ProbeRows& out, f32x16 a, f32x16 b, f32x16 c) {
  const mask16 low = a < b, high = a >= c;
  out.add("a < b", low);
  out.add("a >= c", high);
  out.add("and", low & high);
  out.add("bits", bits(low));
  out.add("mask_of", mask_of(0x9c35));
  out.add("any", static_cast<uint32_t>(any(low)) + 2 * static_cast<uint32_t>(any(a < a)));
  out.add("keep", keep(low, a));
  out.add("select", select(low, a, c));
}

static void probe_moves(ProbeRows& out, f32x16 a, f32x16 b) {
  float lanes[16];
  store(lanes, a);
  out.add("lane_index", lane_index());
  out.add("shift_up", shift_up(a));
  out.add("shift_down", shift_down(a));
  for (int n = 0; n <= 16; n += 5) {
    out.add("load_first", load_first(lanes, n));
    float kept[16];
    store(kept, b);
    store_first(kept, a, n);
    out.add("store_first", load(kept));
  }
  f32x16 square[16];
  for (int i = 0; i < 16; i++) square[i] = a * f32x16(static_cast<float>(i));
  transpose(square);
  for (int i = 0; i < 16; i++) out.add("transpose", square[i]);
}

static int simd_probe(const float* input, float (*rows)[16], const char** names) {
  const f32x16 a = load(input), b = load(input + 16), c = load(input + 32);
  ProbeRows out = {rows, names, 0};
  probe_arithmetic(out, a, b, c);
  probe_masks(out, a, b, c);
  probe_moves(out, a, b);
  return out.n;
}

}  // namespace S3D_NS
}  // namespace scene3d
