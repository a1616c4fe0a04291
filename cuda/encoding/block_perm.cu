// Null of permuted blocks of responses against predictions (gpu.md 2.3), for one group of
// n_blocks blocks of `length` rows:
//
//   gain[t,p] += sum_j G_t[order[p,j], j] - sum_j G_t[j,j]
//   G_t[i,j]   = sum_s y_t[rows[i,s]] yhat_t[rows[j,s]]
//
// so a permutation costs n_blocks look-ups in place of n_blocks * length products. Then
//
//   count[t] = #{p : m + spread (gain[t,p] - m) >= tolerance},  m = mean_p gain[t,p]
//
// Layout    y, yhat (n_targets, n_samples) contiguous: a row a target; rows
//           (n_blocks, length); order (n_blocks, n_permutations), transposed, so that
//           neighbouring threads read neighbouring values; gain
//           (n_targets, n_permutations).
// Launch    one block of 256 threads a target, strided over targets. G lies in shared
//           memory, or in `workspace` (gridDim.x, n_blocks^2) if that is not null;
//           shared bytes as in neuromm/kernels/gpu_permutation.py.
// Numerics  products and sums in double, also of float32 data; the order is fixed.

#include "../common.cuh"

constexpr int kThreads = 256;      // blockDim.x
constexpr int kSamples = 8;        // samples of a block in shared memory at a time
constexpr size_t kRowsAThread = 4; // blocks of responses that share a load of yhat

// G += products of samples `start` to `start + samples` of each block.
NEUROMM_DEVICE void add_products(double *pairs, const double *moved, const double *still,
                                 size_t n_blocks, size_t samples, bool first) {
  const size_t n_strips = (n_blocks + kRowsAThread - 1) / kRowsAThread;
  for (size_t task = threadIdx.x; task < n_strips * n_blocks; task += kThreads) {
    const size_t j = task % n_blocks, top = task / n_blocks * kRowsAThread;
    double sum[kRowsAThread] = {0.0, 0.0, 0.0, 0.0};
    for (size_t s = 0; s < samples; ++s) {
      const double held = still[s * n_blocks + j];
      NEUROMM_UNROLL
      for (size_t row = 0; row < kRowsAThread; ++row)
        if (top + row < n_blocks) sum[row] += moved[s * n_blocks + top + row] * held;
    }
    NEUROMM_UNROLL
    for (size_t row = 0; row < kRowsAThread; ++row) {
      if (top + row < n_blocks) {
        double *pair = pairs + (top + row) * n_blocks + j;
        *pair = first ? sum[row] : *pair + sum[row];
      }
    }
  }
}

template <typename T>
NEUROMM_DEVICE void block_perm(const T *y, const T *yhat, const int *rows,
                               const unsigned short *order, double *gain,
                               double *workspace, size_t n_targets, size_t n_samples,
                               size_t n_blocks, size_t length, size_t n_permutations) {
  NEUROMM_DYNAMIC_SHARED(double, shared);
  double *scratch = shared;
  double *moved = scratch + NEUROMM_WARP;
  double *still = moved + kSamples * n_blocks;
  double *pairs = workspace ? workspace + blockIdx.x * n_blocks * n_blocks
                            : still + kSamples * n_blocks;
  for (size_t target = blockIdx.x; target < n_targets; target += gridDim.x) {
    for (size_t start = 0; start < length; start += kSamples) {
      const size_t samples = smaller(kSamples, length - start);
      __syncthreads();  // what the shared memory held has been read
      for (size_t place = threadIdx.x; place < samples * n_blocks; place += kThreads) {
        const size_t block = place / samples, s = place % samples;
        const size_t from = target * n_samples + rows[block * length + start + s];
        moved[s * n_blocks + block] = static_cast<double>(y[from]);
        still[s * n_blocks + block] = static_cast<double>(yhat[from]);
      }
      __syncthreads();
      add_products(pairs, moved, still, n_blocks, samples, start == 0);
    }
    __syncthreads();  // all pairs are there
    double part = 0.0;
    for (size_t j = threadIdx.x; j < n_blocks; j += kThreads)
      part += pairs[j * n_blocks + j];
    const double observed = block_sum(part, scratch);
    for (size_t p = threadIdx.x; p < n_permutations; p += kThreads) {
      double sum = 0.0;
      for (size_t j = 0; j < n_blocks; ++j)
        sum += pairs[order[j * n_permutations + p] * n_blocks + j];
      gain[target * n_permutations + p] += sum - observed;
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    block_perm_f32(const float *y, const float *yhat, const int *rows,
                   const unsigned short *order, double *gain, double *workspace,
                   size_t n_targets, size_t n_samples, size_t n_blocks, size_t length,
                   size_t n_permutations) {
  block_perm<float>(y, yhat, rows, order, gain, workspace, n_targets, n_samples,
                    n_blocks, length, n_permutations);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    block_perm_f64(const double *y, const double *yhat, const int *rows,
                   const unsigned short *order, double *gain, double *workspace,
                   size_t n_targets, size_t n_samples, size_t n_blocks, size_t length,
                   size_t n_permutations) {
  block_perm<double>(y, yhat, rows, order, gain, workspace, n_targets, n_samples,
                     n_blocks, length, n_permutations);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    exceed_count(const double *gain, int *count, size_t n_targets,
                 size_t n_permutations, double spread, double tolerance) {
  // One scratch for each of two sums: the barrier of the other one parts their uses.
  __shared__ double scratch[2 * NEUROMM_WARP];
  for (size_t target = blockIdx.x; target < n_targets; target += gridDim.x) {
    const double *row = gain + target * n_permutations;
    double part = 0.0;
    for (size_t p = threadIdx.x; p < n_permutations; p += kThreads) part += row[p];
    const double mean =
        block_sum(part, scratch) / static_cast<double>(n_permutations);
    double reached = 0.0;  // exact: far below 2^53
    for (size_t p = threadIdx.x; p < n_permutations; p += kThreads)
      if (mean + spread * (row[p] - mean) >= tolerance) reached += 1.0;
    reached = block_sum(reached, scratch + NEUROMM_WARP);
    if (threadIdx.x == 0) count[target] = static_cast<int>(reached);
  }
}
