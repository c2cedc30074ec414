#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace scene3d {
namespace {

struct Level {
  const char* name;
  const Kernels& (*table)();
  bool runs;
};

#if defined(__x86_64__)
bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
const Level* levels() {
  static const Level table[] = {{"avx512", avx512_kernels, runs_avx512()},
                                {"avx2", avx2_kernels, runs_avx2()},
                                {"scalar", scalar_kernels, true},
                                {nullptr, nullptr, false}};
  return table;
}
#elif defined(__aarch64__)
const Level* levels() {
  static const Level table[] = {
      {"neon", neon_kernels, true}, {"scalar", scalar_kernels, true}, {nullptr, nullptr, false}};
  return table;
}
#else
const Level* levels() {
  static const Level table[] = {{"scalar", scalar_kernels, true}, {nullptr, nullptr, false}};
  return table;
}
#endif

const Kernels* find(const char* name) {
  for (const Level* level = levels(); level->name; level++)
    if (level->runs && (!name || !std::strcmp(level->name, name))) return &level->table();
  return nullptr;
}

const Kernels* initial() {
  const Kernels* asked = find(std::getenv("SCENE3D_SIMD"));
  return asked ? asked : find(nullptr);
}

const Kernels*& current() {
  static const Kernels* table = initial();
  return table;
}

}  // namespace

const Kernels& kernels() { return *current(); }

bool set_simd_level(const char* name) {
  const Kernels* table = find(name);
  if (table) current() = table;
  return table != nullptr;
}

const char* const* simd_levels() {
  static const char* names[8] = {};
  int n = 0;
  for (const Level* level = levels(); level->name; level++)
    if (level->runs) names[n++] = level->name;
  names[n] = nullptr;
  return names;
}

}  // namespace scene3d
