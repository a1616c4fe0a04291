// Cross-entropy of logits with soft targets, from a panel of whole rows of the products
// x (gene with image) and y (image with image plus gene with gene):
//
//   S = t x, U = (u / 2) y, P the softmax of the rows of U
//   rows      log-sum-exp and softmax of row i of S and U; sum_j P_ij S_ij
//   columns   log-sum-exp of column j of S; q_j = sum_i P_ij
//   slopes    dS = softmax_row(S) + q_j softmax_column(S) - 2 P
//             dU = P (W - sum_j P_ij W_ij), W_ij = lc_j - 2 S_ij
//             written as factor t dS and factor u / 2 dU, the gradients of x and y
//
// (neuromm/kernels/soft_pairs.py says how they make the loss and its gradients). Columns
// are done when all panels have come by; slopes come after that.
//
// Layout    x, y, of_x, of_y (n_rows, n_columns) row-major with one leading dimension;
//           of_x may be x and of_y be y; of_y null where targets have no gradient.
//           t, u, factor: one number each, in the memory of the GPU. In double: rows
//           (6, n_rows) = highest S, 1 / sum exp(S - highest), the same of U,
//           sum P S, log-sum-exp of S; parts (n_parts, 3, n_columns) and state
//           (3, n_columns) = highest S, sum exp(S - highest), q; of_scales (2, n_rows) =
//           sums of dS and dU times factor x and factor y / 2. columns (3, n_columns) =
//           highest S, q / sum exp(S - highest), log-sum-exp, in the type of x.
// Launch    rows and slopes: a block of 256 threads a row. Columns: blocks of (32, 8),
//           a thread 8 rows of one column, grid (ceil(n_columns / 32),
//           ceil(n_rows / 64)); then soft_target_merge: a thread a column, adds to the
//           state.
// Numerics  exponents are about the highest logit of the row, or of the 8 rows of a
//           thread, so that no temperature over- or underflows and the host need not
//           choose a shift: the kernels are bound by memory, not by exponentials. 8
//           terms are summed in the type of x, the rest in double, in a fixed order. nan
//           spreads to its row and its column.

#include "../common.cuh"

constexpr unsigned int kThreads = 256;  // of a row
constexpr unsigned int kTerms = 8;      // of a row, summed before they enter a double
constexpr unsigned int kColumns = 32;
constexpr unsigned int kSplits = 8;
constexpr unsigned int kRows = 64;  // of a block of columns
constexpr unsigned int kStats = 3;  // of a column

NEUROMM_DEVICE float exponential(float x) { return expf(x); }
NEUROMM_DEVICE double exponential(double x) { return exp(x); }

template <typename T>
NEUROMM_DEVICE T higher(T a, T b) { return b > a ? b : a; }

// Highest value of a block; as block_sum of common.cuh.
template <typename T>
NEUROMM_DEVICE T block_highest(T value, T *scratch) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value = higher(value, __shfl_xor_sync(NEUROMM_FULL_WARP, value, step));
  if (threadIdx.x % NEUROMM_WARP == 0) scratch[threadIdx.x / NEUROMM_WARP] = value;
  __syncthreads();
  T top = scratch[0];
  for (unsigned int warp = 1; warp < blockDim.x / NEUROMM_WARP; ++warp)
    top = higher(top, scratch[warp]);
  return top;
}

template <typename T>
NEUROMM_DEVICE void soft_target_rows(const T *x, const T *y, size_t ld, const T *t,
                                     const T *u, double *rows, size_t n_rows,
                                     size_t n_columns) {
  __shared__ T tops[2 * NEUROMM_WARP];
  __shared__ double scratch[3 * NEUROMM_WARP];
  const size_t row = blockIdx.x;
  const T *row_x = x + row * ld, *row_y = y + row * ld;
  const T of_x = *t, of_y = *u / 2;

  T high_s = -1.0 / 0.0, high_u = -1.0 / 0.0;
  for (size_t column = threadIdx.x; column < n_columns; column += kThreads) {
    high_s = higher(high_s, of_x * row_x[column]);
    high_u = higher(high_u, of_y * row_y[column]);
  }
  const T top_s = block_highest(high_s, tops);
  const T top_u = block_highest(high_u, tops + NEUROMM_WARP);
  double sum_s = 0.0, sum_u = 0.0, sum_us = 0.0;
  for (size_t start = threadIdx.x; start < n_columns; start += kThreads * kTerms) {
    T part_s = 0, part_u = 0, part_us = 0;
    const size_t stop = smaller(start + kThreads * kTerms, n_columns);
    for (size_t column = start; column < stop; column += kThreads) {
      const T s = of_x * row_x[column];
      const T e = exponential(of_y * row_y[column] - top_u);
      part_s += exponential(s - top_s);
      part_u += e;
      part_us += e * s;
    }
    sum_s += static_cast<double>(part_s);
    sum_u += static_cast<double>(part_u);
    sum_us += static_cast<double>(part_us);
  }
  const double total_s = block_sum(sum_s, scratch);
  const double total_u = block_sum(sum_u, scratch + NEUROMM_WARP);
  const double total_us = block_sum(sum_us, scratch + 2 * NEUROMM_WARP);
  if (threadIdx.x != 0) return;
  rows[row] = static_cast<double>(top_s);
  rows[n_rows + row] = 1.0 / total_s;
  rows[2 * n_rows + row] = static_cast<double>(top_u);
  rows[3 * n_rows + row] = 1.0 / total_u;
  rows[4 * n_rows + row] = total_us / total_u;
  rows[5 * n_rows + row] = static_cast<double>(top_s) + log(total_s);
}

template <typename T>
NEUROMM_DEVICE void soft_target_columns(const T *x, const T *y, size_t ld, const T *t,
                                        const T *u, const double *rows, double *parts,
                                        size_t n_rows, size_t n_columns) {
  __shared__ double shared[kStats * kSplits * kColumns];
  const size_t column = first_index();
  const size_t start = static_cast<size_t>(blockIdx.y) * kRows;
  const size_t stop = smaller(start + kRows, n_rows);
  const T of_x = *t, of_y = *u / 2;

  T high = -1.0 / 0.0, sum = 0, weight = 0;
  if (column < n_columns) {
    for (size_t row = start + threadIdx.y; row < stop; row += kSplits)
      high = higher(high, of_x * x[row * ld + column]);
    for (size_t row = start + threadIdx.y; row < stop; row += kSplits) {
      const T top = static_cast<T>(rows[2 * n_rows + row]);
      const T share = static_cast<T>(rows[3 * n_rows + row]);
      sum += exponential(of_x * x[row * ld + column] - high);
      weight += exponential(of_y * y[row * ld + column] - top) * share;
    }
  }
  const T found[kStats] = {high, sum, weight};
  NEUROMM_UNROLL
  for (unsigned int which = 0; which < kStats; ++which)
    shared[(which * kSplits + threadIdx.y) * kColumns + threadIdx.x] =
        static_cast<double>(found[which]);
  __syncthreads();
  if (threadIdx.y != 0 || column >= n_columns) return;
  const double *highs = shared + threadIdx.x;
  const double *sums = highs + kSplits * kColumns;
  const double *weights = sums + kSplits * kColumns;
  double top = highs[0], total = 0.0, q = 0.0;
  for (unsigned int split = 1; split < kSplits; ++split)
    top = higher(top, highs[split * kColumns]);
  for (unsigned int split = 0; split < kSplits; ++split) {
    total += sums[split * kColumns] * exp(highs[split * kColumns] - top);
    q += weights[split * kColumns];
  }
  double *part = parts + blockIdx.y * kStats * n_columns + column;
  part[0] = top;
  part[n_columns] = total;
  part[2 * n_columns] = q;
}

template <typename T>
NEUROMM_DEVICE void soft_target_slopes(const T *x, const T *y, T *to_x, T *to_y,
                                       size_t ld, const T *t, const T *u,
                                       const T *factor, const double *rows,
                                       const T *columns, double *of_scales,
                                       size_t n_rows, size_t n_columns) {
  __shared__ double scratch[3 * NEUROMM_WARP];
  const size_t row = blockIdx.x;
  const size_t offset = row * ld;
  const T of_x = *t, of_y = *u / 2, times = *factor;
  const T top_s = static_cast<T>(rows[row]);
  const T share_s = static_cast<T>(rows[n_rows + row]);
  const T top_u = static_cast<T>(rows[2 * n_rows + row]);
  const T share_u = static_cast<T>(rows[3 * n_rows + row]);
  const T *top_column = columns, *share_column = columns + n_columns;
  const T *log_sum = columns + 2 * n_columns;

  T mean = 0;  // of W under the targets of this row
  if (to_y != nullptr) {
    double sum = 0.0;
    for (size_t start = threadIdx.x; start < n_columns; start += kThreads * kTerms) {
      T part = 0;
      const size_t stop = smaller(start + kThreads * kTerms, n_columns);
      for (size_t column = start; column < stop; column += kThreads) {
        const T target = exponential(of_y * y[offset + column] - top_u) * share_u;
        part += target * (log_sum[column] - 2 * (of_x * x[offset + column]));
      }
      sum += static_cast<double>(part);
    }
    mean = static_cast<T>(block_sum(sum, scratch));
  }
  double sum_x = 0.0, sum_y = 0.0;
  for (size_t start = threadIdx.x; start < n_columns; start += kThreads * kTerms) {
    T part_x = 0, part_y = 0;
    const size_t stop = smaller(start + kThreads * kTerms, n_columns);
    for (size_t column = start; column < stop; column += kThreads) {
      const T product = x[offset + column], similarity = y[offset + column];
      const T s = of_x * product;
      const T target = exponential(of_y * similarity - top_u) * share_u;
      T slope = exponential(s - top_s) * share_s - 2 * target;
      slope += exponential(s - top_column[column]) * share_column[column];
      part_x += slope * product;
      to_x[offset + column] = times * of_x * slope;
      if (to_y == nullptr) continue;
      slope = target * (log_sum[column] - 2 * s - mean);
      part_y += slope * similarity;
      to_y[offset + column] = times * of_y * slope;
    }
    sum_x += static_cast<double>(part_x);
    sum_y += static_cast<double>(part_y);
  }
  const double total_x = block_sum(sum_x, scratch + NEUROMM_WARP);
  const double total_y = block_sum(sum_y, scratch + 2 * NEUROMM_WARP);
  if (threadIdx.x != 0) return;
  of_scales[row] = static_cast<double>(times) * total_x;
  of_scales[n_rows + row] = static_cast<double>(times) * total_y / 2.0;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    soft_target_rows_f32(const float *x, const float *y, size_t ld, const float *t,
                         const float *u, double *rows, size_t n_rows,
                         size_t n_columns) {
  soft_target_rows<float>(x, y, ld, t, u, rows, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    soft_target_rows_f64(const double *x, const double *y, size_t ld, const double *t,
                         const double *u, double *rows, size_t n_rows,
                         size_t n_columns) {
  soft_target_rows<double>(x, y, ld, t, u, rows, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kColumns * kSplits)
    soft_target_columns_f32(const float *x, const float *y, size_t ld, const float *t,
                            const float *u, const double *rows, double *parts,
                            size_t n_rows, size_t n_columns) {
  soft_target_columns<float>(x, y, ld, t, u, rows, parts, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kColumns * kSplits)
    soft_target_columns_f64(const double *x, const double *y, size_t ld,
                            const double *t, const double *u, const double *rows,
                            double *parts, size_t n_rows, size_t n_columns) {
  soft_target_columns<double>(x, y, ld, t, u, rows, parts, n_rows, n_columns);
}

extern "C" __global__ void soft_target_merge(const double *parts, double *state,
                                             size_t n_columns, size_t n_parts) {
  const size_t column = first_index();
  if (column >= n_columns) return;
  double top = state[column];
  for (size_t part = 0; part < n_parts; ++part)
    top = higher(top, parts[part * kStats * n_columns + column]);
  double total = state[n_columns + column] * exp(state[column] - top);
  double q = state[2 * n_columns + column];
  for (size_t part = 0; part < n_parts; ++part) {
    const double *here = parts + part * kStats * n_columns + column;
    total += here[n_columns] * exp(here[0] - top);
    q += here[2 * n_columns];
  }
  state[column] = top;
  state[n_columns + column] = total;
  state[2 * n_columns + column] = q;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    soft_target_slopes_f32(const float *x, const float *y, float *of_x, float *of_y,
                           size_t ld, const float *t, const float *u,
                           const float *factor, const double *rows,
                           const float *columns, double *of_scales, size_t n_rows,
                           size_t n_columns) {
  soft_target_slopes<float>(x, y, of_x, of_y, ld, t, u, factor, rows, columns,
                            of_scales, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    soft_target_slopes_f64(const double *x, const double *y, double *of_x,
                           double *of_y, size_t ld, const double *t, const double *u,
                           const double *factor, const double *rows,
                           const double *columns, double *of_scales, size_t n_rows,
                           size_t n_columns) {
  soft_target_slopes<double>(x, y, of_x, of_y, ld, t, u, factor, rows, columns,
                             of_scales, n_rows, n_columns);
}
