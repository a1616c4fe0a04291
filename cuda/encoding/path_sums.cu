// Sums behind the held-out scores of every penalty (encoding.md 6.2, 6.3):
//
//   l[a,t] = sum_j fit[a,j] b[j,t] z[j,t]
//   q[a,t] = sum_j cross[a,j] z[j,t] w[j,t] + near[a,j] z[j,t] w2[j,t]
//
// Layout    z, w, w2, b (rank, n_targets) row-major, a leading dimension each; fit,
//           cross, near (n_alphas, rank) and l, q (n_alphas, n_targets) contiguous.
// Launch    blocks of (64, 4) threads: a thread takes one target and every fourth mode.
//           A block serves up to 16 penalties, held in registers; n_tiles blocks, next
//           to each other in the grid so that they meet in the L2 cache, serve all.
//           Grid n_tiles * ceil(n_targets / 64); shared memory as in
//           neuromm/kernels/gpu_ridge.py.
// Numerics  products and sums in double, also of float32 data; the order is fixed.

#include "../common.cuh"

constexpr int kAlphas = 16;   // penalties a block
constexpr int kModes = 32;    // rows of the tables in shared memory at a time
constexpr int kTargets = 64;  // blockDim.x
constexpr int kSplits = 4;    // blockDim.y
constexpr int kTable = 3 * kAlphas + 1;  // odd, so that 32 rows lie in 32 banks

template <typename T>
struct PathInputs {
  const T *z, *w, *w2, *b;
  size_t ld_z, ld_w, ld_w2, ld_b;
  const T *fit, *cross, *near;
  size_t rank, n_targets, n_alphas;
};

// Rows `start` to `start + modes` of the tables, transposed into shared memory.
template <typename T>
NEUROMM_DEVICE void load_tables(const PathInputs<T> &in, double *table, size_t start,
                                size_t modes, size_t first, int count) {
  const int n_threads = kTargets * kSplits;
  const int thread = threadIdx.y * kTargets + threadIdx.x;
  for (int place = thread; place < kAlphas * kModes; place += n_threads) {
    const int alpha = place / kModes, mode = place % kModes;
    if (alpha >= count || static_cast<size_t>(mode) >= modes) continue;
    const size_t from = (first + alpha) * in.rank + start + mode;
    double *row = table + mode * kTable + alpha;
    row[0] = static_cast<double>(in.fit[from]);
    row[kAlphas] = static_cast<double>(in.cross[from]);
    row[2 * kAlphas] = static_cast<double>(in.near[from]);
  }
}

template <typename T>
NEUROMM_DEVICE void path_sums(const PathInputs<T> &in, double *l, double *q) {
  NEUROMM_DYNAMIC_SHARED(double, shared);
  const size_t n_tiles = (in.n_alphas + kAlphas - 1) / kAlphas;
  const size_t per_tile = (in.n_alphas + n_tiles - 1) / n_tiles;
  const size_t first = blockIdx.x % n_tiles * per_tile;
  const int count = static_cast<int>(smaller(per_tile, in.n_alphas - first));
  const size_t target = blockIdx.x / n_tiles * kTargets + threadIdx.x;
  const bool inside = target < in.n_targets;

  double sum_l[kAlphas], sum_q[kAlphas];
  NEUROMM_UNROLL
  for (int alpha = 0; alpha < kAlphas; ++alpha) sum_l[alpha] = sum_q[alpha] = 0.0;
  for (size_t start = 0; start < in.rank; start += kModes) {
    const size_t modes = smaller(kModes, in.rank - start);
    __syncthreads();  // the rows before these have been read
    load_tables(in, shared, start, modes, first, count);
    __syncthreads();
    for (size_t mode = threadIdx.y; inside && mode < modes; mode += kSplits) {
      const size_t row = start + mode;
      const double z = static_cast<double>(in.z[row * in.ld_z + target]);
      const double bz = z * static_cast<double>(in.b[row * in.ld_b + target]);
      const double wz = z * static_cast<double>(in.w[row * in.ld_w + target]);
      const double w2z = z * static_cast<double>(in.w2[row * in.ld_w2 + target]);
      const double *table = shared + mode * kTable;
      NEUROMM_UNROLL
      for (int alpha = 0; alpha < kAlphas; ++alpha) {
        if (alpha < count) {
          sum_l[alpha] += table[alpha] * bz;
          sum_q[alpha] += table[kAlphas + alpha] * wz;
          sum_q[alpha] += table[2 * kAlphas + alpha] * w2z;
        }
      }
    }
  }

  // The four partial sums of a target, for four penalties at a time: row y of the block
  // adds those of penalty `group + y`.
  NEUROMM_UNROLL
  for (int group = 0; group < kAlphas; group += kSplits) {
    if (group < count) {
      __syncthreads();  // what the shared memory held has been read
      NEUROMM_UNROLL
      for (int step = 0; step < kSplits; ++step) {
        double *part = shared + (2 * step * kSplits + threadIdx.y) * kTargets;
        part[threadIdx.x] = sum_l[group + step];
        part[kSplits * kTargets + threadIdx.x] = sum_q[group + step];
      }
      __syncthreads();
      const int alpha = group + static_cast<int>(threadIdx.y);
      if (inside && alpha < count) {
        const double *part = shared + 2 * threadIdx.y * kSplits * kTargets + threadIdx.x;
        double total_l = 0.0, total_q = 0.0;
        for (int split = 0; split < kSplits; ++split) {
          total_l += part[split * kTargets];
          total_q += part[(kSplits + split) * kTargets];
        }
        l[(first + alpha) * in.n_targets + target] = total_l;
        q[(first + alpha) * in.n_targets + target] = total_q;
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kTargets * kSplits)
    path_sums_f32(const float *z, size_t ld_z, const float *w, size_t ld_w,
                  const float *w2, size_t ld_w2, const float *b, size_t ld_b,
                  const float *fit, const float *cross, const float *near, double *l,
                  double *q, size_t rank, size_t n_targets, size_t n_alphas) {
  path_sums<float>({z, w, w2, b, ld_z, ld_w, ld_w2, ld_b, fit, cross, near, rank,
                    n_targets, n_alphas},
                   l, q);
}

extern "C" __global__ void __launch_bounds__(kTargets * kSplits)
    path_sums_f64(const double *z, size_t ld_z, const double *w, size_t ld_w,
                  const double *w2, size_t ld_w2, const double *b, size_t ld_b,
                  const double *fit, const double *cross, const double *near, double *l,
                  double *q, size_t rank, size_t n_targets, size_t n_alphas) {
  path_sums<double>({z, w, w2, b, ld_z, ld_w, ld_w2, ld_b, fit, cross, near, rank,
                     n_targets, n_alphas},
                    l, q);
}
