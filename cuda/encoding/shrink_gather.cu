// z[j,t] *= table[choice[t], j]: each target shrunken by its own penalty, in place, so
// that one product with the eigenvectors gives the weights of all targets.
//
// Layout    z (rank, n_targets) row-major with a leading dimension; table
//           (n_alphas, rank) contiguous; choice (n_targets,).
// Launch    one thread a target and 64 modes: neighbouring threads touch neighbouring
//           values of z, and a thread walks along a row of the table, which stays in
//           the L1 cache. Grid (ceil(n_targets / blockDim.x), any), strided over modes.
// Numerics  one product in the precision of the data. A choice that is not in the table
//           gives nan, so that it shows and nothing outside is read.

#include "../common.cuh"

constexpr size_t kModesAThread = 64;

template <typename T>
NEUROMM_DEVICE void shrink_gather(T *z, size_t ld_z, const T *table, const int *choice,
                                  size_t rank, size_t n_targets, size_t n_alphas) {
  const size_t target = first_index();
  if (target >= n_targets) return;
  const int chosen = choice[target];
  const bool known = chosen >= 0 && static_cast<size_t>(chosen) < n_alphas;
  const T *row = known ? table + chosen * rank : table;
  for (size_t start = blockIdx.y * kModesAThread; start < rank;
       start += gridDim.y * kModesAThread) {
    const size_t stop = smaller(start + kModesAThread, rank);
    for (size_t mode = start; mode < stop; ++mode) {
      T &value = z[mode * ld_z + target];
      value = known ? value * row[mode] : static_cast<T>(nan(""));
    }
  }
}

extern "C" __global__ void shrink_gather_f32(float *z, size_t ld_z, const float *table,
                                             const int *choice, size_t rank,
                                             size_t n_targets, size_t n_alphas) {
  shrink_gather<float>(z, ld_z, table, choice, rank, n_targets, n_alphas);
}

extern "C" __global__ void shrink_gather_f64(double *z, size_t ld_z, const double *table,
                                             const int *choice, size_t rank,
                                             size_t n_targets, size_t n_alphas) {
  shrink_gather<double>(z, ld_z, table, choice, rank, n_targets, n_alphas);
}
