// Sums of squares of every penalty's errors, from the errors of a few that span them
// (gpu.md 2.2, 2.3; neuromm/kernels/penalty_curves.py):
//
//   square[a,f,t] = sum_i (sum_r mix[a,r] error[r,f,i,t])^2
//
// so the errors of a few penalties are read, and those of all are never written.
//
// Layout    error (n_basis, n_folds, n_rows, n_targets) row-major, a leading dimension
//           from row to row; mix (n_alphas, n_basis) and square
//           (n_alphas, n_folds, n_targets) contiguous.
// Launch    blocks of (64, 4) threads: a thread takes one target of a fold and, two at a
//           time, the rows of one of `n_splits` parts of it. n_splits is 4, or 1: a
//           block then holds four folds, which are short. A block serves up to 16
//           penalties, held in registers; n_tiles blocks, next to each other in the
//           grid so that they meet in the L2 cache, serve all. Grid n_tiles *
//           ceil(n_targets / 64) * ceil(n_folds * n_splits / 4).
// Numerics  a mixture is added up in the precision of the data, by fused multiply-add in
//           the order of the basis; its square and the sums are double, in a fixed
//           order. Moments of pairs of errors and a quadratic form for each penalty
//           would take fewer products (R (R + 1) / 2 a row in place of R A), all of them
//           double, and what is small by cancellation would be lost in its square.

#include "../common.cuh"

constexpr int kAlphas = 16;   // penalties a block
constexpr int kBasis = 32;    // columns of mix in shared memory at a time
constexpr int kRows = 2;      // rows that a thread mixes at a time
constexpr int kTargets = 64;  // blockDim.x
constexpr int kThreadRows = 4;  // blockDim.y

NEUROMM_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
NEUROMM_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// What one instruction loads from shared memory: 16 bytes, or twice so much.
template <typename T>
struct alignas(16) Four {
  T value[4];
};

template <typename T>
struct Mixtures {
  const T *error;
  size_t ld_error;
  const T *mix;
  size_t n_basis, n_folds, n_rows, n_targets, n_alphas, n_splits;
};

// Columns `start` to `start + columns` of mix, transposed into shared memory. Penalties
// beyond `count` are 0, so that a thread need not ask.
template <typename T>
NEUROMM_DEVICE void load_mix(const Mixtures<T> &in, Four<T> *table, size_t start,
                             size_t columns, size_t first, size_t count) {
  const int thread = threadIdx.y * kTargets + threadIdx.x;
  for (int place = thread; place < kAlphas * kBasis; place += kTargets * kThreadRows) {
    const size_t alpha = place / kBasis, column = place % kBasis;
    if (column >= columns) continue;
    const size_t from = (first + alpha) * in.n_basis + start + column;
    table[(column * kAlphas + alpha) / 4].value[alpha % 4] =
        alpha < count ? in.mix[from] : static_cast<T>(0);
  }
}

template <typename T>
NEUROMM_DEVICE void alpha_combine(const Mixtures<T> &in, double *square) {
  __shared__ Four<T> table[kBasis * kAlphas / 4];
  __shared__ double part[kThreadRows * kThreadRows * kTargets];
  const size_t n_tiles = (in.n_alphas + kAlphas - 1) / kAlphas;
  const size_t per_tile = (in.n_alphas + n_tiles - 1) / n_tiles;
  const size_t first = blockIdx.x % n_tiles * per_tile;
  const size_t count = smaller(per_tile, in.n_alphas - first);
  const size_t n_strips = (in.n_targets + kTargets - 1) / kTargets;
  const size_t strip = blockIdx.x / n_tiles % n_strips;
  const size_t group = blockIdx.x / n_tiles / n_strips;
  const size_t target = strip * kTargets + threadIdx.x;
  const size_t split = threadIdx.y % in.n_splits;
  const size_t fold = (group * kThreadRows + threadIdx.y) / in.n_splits;
  const bool inside = target < in.n_targets && fold < in.n_folds;

  double sum[kAlphas];
  NEUROMM_UNROLL
  for (int alpha = 0; alpha < kAlphas; ++alpha) sum[alpha] = 0.0;
  size_t loaded = in.n_basis;  // no column yet
  // All threads of a block go the same number of rounds: there are barriers in them.
  for (size_t round = 0; round < in.n_rows; round += kRows * in.n_splits) {
    const size_t top = round + kRows * split;
    T mixed[kRows][kAlphas];
    NEUROMM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      NEUROMM_UNROLL
      for (int alpha = 0; alpha < kAlphas; ++alpha) mixed[row][alpha] = 0;
    }
    for (size_t start = 0; start < in.n_basis; start += kBasis) {
      const size_t columns = smaller(kBasis, in.n_basis - start);
      if (loaded != start) {
        __syncthreads();  // the columns before these have been read
        load_mix(in, table, start, columns, first, count);
        __syncthreads();
        loaded = start;
      }
      for (size_t column = 0; inside && column < columns; ++column) {
        const size_t error = (start + column) * in.n_folds + fold;
        T value[kRows];
        NEUROMM_UNROLL
        for (int row = 0; row < kRows; ++row)
          value[row] = top + row < in.n_rows
                           ? in.error[(error * in.n_rows + top + row) * in.ld_error +
                                      target]
                           : static_cast<T>(0);
        NEUROMM_UNROLL
        for (int four = 0; four < kAlphas; four += 4) {
          const Four<T> weight = table[(column * kAlphas + four) / 4];
          NEUROMM_UNROLL
          for (int step = 0; step < 4; ++step) {
            NEUROMM_UNROLL
            for (int row = 0; row < kRows; ++row) {
              T &sum_of_row = mixed[row][four + step];
              sum_of_row = multiply_add(weight.value[step], value[row], sum_of_row);
            }
          }
        }
      }
    }
    NEUROMM_UNROLL
    for (int alpha = 0; alpha < kAlphas; ++alpha) {
      NEUROMM_UNROLL
      for (int row = 0; row < kRows; ++row) {
        const double one = static_cast<double>(mixed[row][alpha]);
        sum[alpha] += one * one;
      }
    }
  }

  // The partial sums of a fold, for four penalties at a time: row y of the block adds
  // those of penalty `four + split`; where there is one part, all four of its own.
  NEUROMM_UNROLL
  for (int four = 0; four < kAlphas; four += kThreadRows) {
    if (static_cast<size_t>(four) < count) {
      if (in.n_splits > 1) {
        __syncthreads();  // what the shared memory held has been read
        NEUROMM_UNROLL
        for (int step = 0; step < kThreadRows; ++step)
          part[(step * kThreadRows + threadIdx.y) * kTargets + threadIdx.x] =
              sum[four + step];
        __syncthreads();
        const size_t alpha = four + split;
        if (inside && alpha < count) {
          double total = 0.0;
          for (size_t other = 0; other < in.n_splits; ++other)
            total += part[(split * kThreadRows + other) * kTargets + threadIdx.x];
          square[((first + alpha) * in.n_folds + fold) * in.n_targets + target] = total;
        }
      } else if (inside) {
        NEUROMM_UNROLL
        for (int step = 0; step < kThreadRows; ++step) {
          const size_t alpha = four + step;
          if (alpha < count)
            square[((first + alpha) * in.n_folds + fold) * in.n_targets + target] =
                sum[four + step];
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kTargets * kThreadRows, 2)
    alpha_combine_f32(const float *error, size_t ld_error, const float *mix,
                      double *square, size_t n_basis, size_t n_folds, size_t n_rows,
                      size_t n_targets, size_t n_alphas, size_t n_splits) {
  alpha_combine<float>({error, ld_error, mix, n_basis, n_folds, n_rows, n_targets,
                        n_alphas, n_splits},
                       square);
}

extern "C" __global__ void __launch_bounds__(kTargets * kThreadRows)
    alpha_combine_f64(const double *error, size_t ld_error, const double *mix,
                      double *square, size_t n_basis, size_t n_folds, size_t n_rows,
                      size_t n_targets, size_t n_alphas, size_t n_splits) {
  alpha_combine<double>({error, ld_error, mix, n_basis, n_folds, n_rows, n_targets,
                         n_alphas, n_splits},
                        square);
}
