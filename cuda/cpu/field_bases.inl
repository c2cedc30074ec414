// Radial bases at the samples of a ray, and the way back to their rows.
//
// The samples of a block that lie in one cell share its list of bases: how near each is to a basis is found for all of
// them at once, sixteen lanes; the ranks of the rows of the bases that reach a sample are vectors again.
#include "cpu/field.h"
#include "cpu/field_lanes.h"

namespace scene3d {
namespace S3D_NS {

// Pairs of samples and bases of a block.
template <class T>
struct BasisHits {
  int n = 0;
  int32_t basis[kLanes * kMaxListed];
  T phi[kLanes * kMaxListed];
  uint8_t sample[kLanes * kMaxListed];
};

// nodes: places in nodes of n samples, `stride` numbers from one to the next.
template <class T>
static void find_bases(const FieldCall<T>& call, const T* nodes, int64_t stride, int n, BasisHits<T>& hits) {
  using V = typename LanesOf<T>::type;
  T unit[3][kLanes] = {}, phi[kLanes];
  int64_t cell[kLanes];
  for (int i = 0; i < n; i++) {
    T at[3];
    for (int a = 0; a < 3; a++) at[a] = unit[a][i] = nodes[i * stride + a] / static_cast<T>(call.n[a] - 1);
    cell[i] = basis_cell(call.bases, at);
  }
  const V x = load(unit[0]), y = load(unit[1]), z = load(unit[2]);
  int n_hits = 0;
  for (int begin = 0, end; begin < n; begin = end) {
    end = begin + 1;
    while (end < n && cell[end] == cell[begin]) end++;
    const int32_t last = call.bases.starts[cell[begin] + 1];
    for (int32_t k = call.bases.starts[cell[begin]]; k < last; k++) {
      const int32_t basis = call.bases.items[k];
      store(phi, basis_value(call.bases.bases + static_cast<int64_t>(kBasisNumbers) * basis, x, y, z));
      for (int i = begin; i < end; i++) {
        if (!(phi[i] > 0)) continue;
        hits.basis[n_hits] = basis, hits.phi[n_hits] = phi[i], hits.sample[n_hits] = static_cast<uint8_t>(i);
        n_hits++;
      }
    }
  }
  hits.n = n_hits;
}

// Sixteen channels of a basis.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V basis_channels(const FieldCall<T>& call, int set, int group, T phi) {
  if (!call.bases.has_waves) return V(phi);
  return sine(V(phi) * load(call.bases.waves[set] + kLanes * group));
}

template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE V basis_product(const FieldCall<T>& call, int set, int group, int32_t basis, T phi) {
  const T* const row = call.slabs[set][kBasisSlab].values + static_cast<int64_t>(basis) * call.rank[set] + kLanes * group;
  return basis_channels(call, set, group, phi) * load(row);
}

// Adds the sums of density, spread over the lanes, of each sample.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void add_basis_densities(const FieldCall<T>& call, const BasisHits<T>& hits, V* rows) {
  for (int h = 0; h < hits.n; h++) {
    V sum = rows[hits.sample[h]];
    for (int g = 0; g < call.rank[0] / kLanes; g++) sum = sum + basis_product(call, 0, g, hits.basis[h], hits.phi[h]);
    rows[hits.sample[h]] = sum;
  }
}

// Adds the features of colour, each times the amount of its sample.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void add_basis_features(const FieldCall<T>& call, const BasisHits<T>& hits, const T* amounts, T* sums) {
  const int rank = call.rank[1];
  for (int g = 0; g < rank / kLanes; g++) {
    T* const out = sums + 3 * rank + kLanes * g;
    V sum = load(out);
    for (int h = 0; h < hits.n; h++) {
      const T amount = amounts[hits.sample[h]];
      if (amount != 0) sum = fma(V(amount), basis_product(call, 1, g, hits.basis[h], hits.phi[h]), sum);
    }
    store(out, sum);
  }
}

// Products of features and their gradients, lane by lane, of the samples that have colour.
template <class T, class V = typename LanesOf<T>::type>
S3D_INLINE void add_basis_color_rows(const FieldCall<T>& call, const BasisHits<T>& hits, const bool* has_color,
                                     const T* v_features, V* rows) {
  for (int g = 0; g < call.rank[1] / kLanes; g++) {
    const V v = load(v_features + 3 * call.rank[1] + kLanes * g);
    for (int h = 0; h < hits.n; h++) {
      const int i = hits.sample[h];
      if (has_color[i]) rows[i] = fma(basis_product(call, 1, g, hits.basis[h], hits.phi[h]), v, rows[i]);
    }
  }
}

// Groups [group, end_group) of the rows of bases, from the samples of one ray; gradient(g): of the features of a group.
template <class T, class G>
S3D_INLINE void scatter_ray_bases(const FieldCall<T>& call, int set, int group, int end_group, const SampleRows<T>& rows,
                                  int ray, G&& gradient) {
  const Slab<T>& slab = call.slabs[set][kBasisSlab];
  const int64_t rank = call.rank[set], end = rows.begin[ray + 1];
  BasisHits<T> hits;
  for (int64_t first = rows.begin[ray]; first < end; first += kLanes) {
    const SampleGrad<T>* const samples = rows.samples + first;
    const int n = static_cast<int>(end - first < kLanes ? end - first : kLanes);
    find_bases(call, samples->nodes, sizeof(SampleGrad<T>) / sizeof(T), n, hits);
    for (int g = group; g < end_group; g++) {
      const auto v = gradient(g);
      for (int h = 0; h < hits.n; h++) {
        T* const p = slab.grads + hits.basis[h] * rank + kLanes * g;
        add_to(p, samples[hits.sample[h]].amount, basis_channels(call, set, g, hits.phi[h]) * v);
        slab.touched[g * slab.n_rows + hits.basis[h]] = 1;
      }
    }
  }
}

}  // namespace S3D_NS
}  // namespace scene3d
