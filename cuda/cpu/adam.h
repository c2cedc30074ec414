// One step of Adam (Kingma and Ba 2015) on several arrays of N rows at once; rows that are not visible stay as they are,
// moments included (selective Adam, Mallick et al. 2024).
#pragma once
#include <cstdint>

namespace scene3d {

// One array of [N, n_columns] with its gradient and moments.
struct AdamGroup {
  float* param;
  const float* grad;
  float *exp_avg, *exp_avg_sq;
  int64_t n_columns;
  float step_size;  // lr / (1 - beta1^step)
};

struct AdamArgs {
  const AdamGroup* groups;
  int n_groups;
  const uint8_t* visible;  // [N], or nullptr: all
  float beta1, beta2;
  float root_correction;  // 1 / sqrt(1 - beta2^step)
  float eps;
};

}  // namespace scene3d
