// Log-sum-exp of rows and of columns of a tile of logits, in parts: at one exponential a
// logit while no logit can leave the range of the exponential.
//   v[i,j] = x[i,j] inverse_left[i] inverse_right[j],  S = scale v
//   shift = max(0, bound - 50),  e = exp(S - shift)
//   of a row: shift, sum_j e, and of its positives sum_j v and their number;
//   of a column: the same over i
// With bound > 60 a row and a column of a block have shifts of their own, their highest
// logits, at two exponentials a logit: right whatever the logits are. pair_merge adds the
// parts to what earlier tiles gave:
//   M = max of shifts;  sum = sum over parts and state of sum exp(shift - M);  shift = M
//   log_sums = shift + log(sum)
//
// Layout    x (n_rows, n_columns) with a leading dimension, float: rows first_row and on
//           and columns first_column and on of the whole matrix. scale, bound (not less
//           than any |S|) on the device. Of each side, whole and from index 0: inverse
//           lengths, labels, and 1 for rows that are there (0: its pairs are not counted);
//           each may be null. row_parts (n_blocks_x, 4, n_rows), column_parts
//           (n_blocks_y, 4, n_columns); row_state (4, n_left) double and row_results
//           (5, n_left) of all rows of the matrix, and those of columns. Without positives
//           the last two of 4 are neither read nor set.
// Launch    pair_stats: blocks of (32, 8), 8 rows a warp, 4 columns a lane; grid
//           (ceil(n_columns / 128), ceil(n_rows / 64)). Then pair_merge: a thread a row or
//           a column; grid (ceil((n_rows + n_columns) / blockDim.x)).
// Numerics  float within a block, by a tree: 4 + 32 terms of a row, 8 + 8 of a column.
//           Beyond it double, parts in their order; a sum is rescaled once a merge, and
//           where all shifts are equal not at all. What is not counted is never read as a
//           number, so nan there does no harm.

#include "pairs.cuh"

constexpr unsigned int kWarps = 8;
constexpr unsigned int kRowsAWarp = 8;
constexpr unsigned int kColumnsALane = 4;
constexpr unsigned int kRows = kWarps * kRowsAWarp;
constexpr unsigned int kColumns = NEUROMM_WARP * kColumnsALane;

NEUROMM_DEVICE unsigned int bit_of(unsigned int m, unsigned int n) {
  return 1u << (m * kColumnsALane + n);
}

NEUROMM_DEVICE bool has(unsigned int bits, unsigned int m, unsigned int n) {
  return (bits & bit_of(m, n)) != 0;
}

extern "C" __global__ void __launch_bounds__(NEUROMM_WARP * kWarps, 2) pair_stats(
    const float *x, size_t ld, const float *scale_at, const float *bound_at,
    const float *inverse_left, const float *inverse_right, const long long *labels_left,
    const long long *labels_right, const unsigned char *present_left,
    const unsigned char *present_right, float *row_parts, float *column_parts,
    size_t first_row, size_t first_column, size_t n_rows, size_t n_columns,
    unsigned int matching) {
  __shared__ float tops[kWarps][kColumns];
  __shared__ float found[kParts][kWarps][kColumns];
  const unsigned int lane = threadIdx.x, warp = threadIdx.y;
  const size_t top_row = blockIdx.y * static_cast<size_t>(kRows);
  const size_t left_column = blockIdx.x * static_cast<size_t>(kColumns);
  const float scale = *scale_at, bound = *bound_at;
  const bool one = has_one_shift(bound);
  const float shift = one_shift(bound);

  float v[kRowsAWarp][kColumnsALane];
  unsigned int counted = 0;  // 32 flags in one register
  NEUROMM_UNROLL
  for (unsigned int n = 0; n < kColumnsALane; ++n) {
    const size_t column = left_column + lane + n * NEUROMM_WARP;
    const bool there =
        column < n_columns && is_present(present_right, first_column + column);
    const float inverse =
        there ? inverse_length(inverse_right, first_column + column) : 0.0f;
    NEUROMM_UNROLL
    for (unsigned int m = 0; m < kRowsAWarp; ++m) {
      const size_t row = top_row + warp * kRowsAWarp + m;
      v[m][n] = 0.0f;
      if (!there || row >= n_rows || !is_present(present_left, first_row + row)) continue;
      counted |= bit_of(m, n);
      v[m][n] = x[row * ld + column] *
                (inverse_length(inverse_left, first_row + row) * inverse);
    }
  }

  // Lane m keeps the results of row m of its warp.
  float row_shift = shift, row_sum = 0.0f;
  float column_sum[kColumnsALane] = {};
  if (one) {
    NEUROMM_UNROLL
    for (unsigned int m = 0; m < kRowsAWarp; ++m) {
      float sum = 0.0f;
      NEUROMM_UNROLL
      for (unsigned int n = 0; n < kColumnsALane; ++n) {
        const float e =
            has(counted, m, n) ? expf(fmaf(v[m][n], scale, -shift)) : 0.0f;
        sum += e;
        column_sum[n] += e;
      }
      sum = warp_sum(sum);
      if (lane == m) row_sum = sum;
    }
  } else {
    NEUROMM_UNROLL
    for (unsigned int m = 0; m < kRowsAWarp; ++m) {
      float top = kNone, sum = 0.0f;
      NEUROMM_UNROLL
      for (unsigned int n = 0; n < kColumnsALane; ++n)
        if (has(counted, m, n)) top = fmaxf(top, v[m][n] * scale);
      top = warp_highest(top);
      NEUROMM_UNROLL
      for (unsigned int n = 0; n < kColumnsALane; ++n)
        if (has(counted, m, n)) sum += expf(fmaf(v[m][n], scale, -top));
      sum = warp_sum(sum);
      if (lane == m) {
        row_shift = top;
        row_sum = sum;
      }
    }
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kColumnsALane; ++n) {
      float top = kNone;
      NEUROMM_UNROLL
      for (unsigned int m = 0; m < kRowsAWarp; ++m)
        if (has(counted, m, n)) top = fmaxf(top, v[m][n] * scale);
      tops[warp][lane + n * NEUROMM_WARP] = top;
    }
    __syncthreads();
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kColumnsALane; ++n) {
      float top = kNone;
      for (unsigned int other = 0; other < kWarps; ++other)
        top = fmaxf(top, tops[other][lane + n * NEUROMM_WARP]);
      NEUROMM_UNROLL
      for (unsigned int m = 0; m < kRowsAWarp; ++m)
        if (has(counted, m, n)) column_sum[n] += expf(fmaf(v[m][n], scale, -top));
      found[kShift][warp][lane + n * NEUROMM_WARP] = top;
    }
  }

  float row_positives = 0.0f, row_counts = 0.0f;
  if (matching != 0) {
    long long label[kColumnsALane];
    float positives[kColumnsALane] = {}, counts[kColumnsALane] = {};
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kColumnsALane; ++n) {
      const size_t column = left_column + lane + n * NEUROMM_WARP;
      label[n] = column < n_columns
                     ? label_of(labels_right, first_column + column, matching)
                     : 0;
    }
    NEUROMM_UNROLL
    for (unsigned int m = 0; m < kRowsAWarp; ++m) {
      const size_t row = top_row + warp * kRowsAWarp + m;
      const long long own =
          row < n_rows ? label_of(labels_left, first_row + row, matching) : 0;
      float sum = 0.0f, count = 0.0f;
      NEUROMM_UNROLL
      for (unsigned int n = 0; n < kColumnsALane; ++n) {
        if (!has(counted, m, n) || label[n] != own) continue;
        sum += v[m][n];
        count += 1.0f;
        positives[n] += v[m][n];
        counts[n] += 1.0f;
      }
      sum = warp_sum(sum);
      count = warp_sum(count);
      if (lane == m) {
        row_positives = sum;
        row_counts = count;
      }
    }
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kColumnsALane; ++n) {
      found[kPositives][warp][lane + n * NEUROMM_WARP] = positives[n];
      found[kCounts][warp][lane + n * NEUROMM_WARP] = counts[n];
    }
  }
  NEUROMM_UNROLL
  for (unsigned int n = 0; n < kColumnsALane; ++n)
    found[kSum][warp][lane + n * NEUROMM_WARP] = column_sum[n];

  const size_t own_row = top_row + warp * kRowsAWarp + lane;
  if (lane < kRowsAWarp && own_row < n_rows) {
    float *part = row_parts + blockIdx.x * (kParts * n_rows) + own_row;
    part[kShift * n_rows] = row_shift;
    part[kSum * n_rows] = row_sum;
    if (matching != 0) {
      part[kPositives * n_rows] = row_positives;
      part[kCounts * n_rows] = row_counts;
    }
  }
  __syncthreads();
  const unsigned int thread = warp * NEUROMM_WARP + lane;
  const size_t own_column = left_column + thread;
  if (thread >= kColumns || own_column >= n_columns) return;
  float *part = column_parts + blockIdx.y * (kParts * n_columns) + own_column;
  part[kShift * n_columns] = one ? shift : found[kShift][0][thread];
  const unsigned int n_stats = matching != 0 ? kParts : kSum + 1;
  for (unsigned int which = kSum; which < n_stats; ++which) {
    float total = 0.0f;
    for (unsigned int other = 0; other < kWarps; ++other)
      total += found[which][other][thread];
    part[which * n_columns] = total;
  }
}

// Sum of one statistic over parts and state.
NEUROMM_DEVICE double plain_sum(const float *parts, const double *state, size_t n_parts,
                                size_t index, size_t n, size_t place, bool fresh) {
  double total = fresh ? 0.0 : state[place];
  for (size_t part = 0; part < n_parts; ++part)
    total += static_cast<double>(parts[part * kParts * n + index]);
  return total;
}

NEUROMM_DEVICE void merge_one(const float *parts, double *state, float *results,
                              size_t n_parts, size_t index, size_t n, size_t place,
                              size_t n_all, bool fresh, bool matched) {
  float top = fresh ? kNone : static_cast<float>(state[kShift * n_all + place]);
  const float before = top;
  for (size_t part = 0; part < n_parts; ++part)
    top = fmaxf(top, parts[(part * kParts + kShift) * n + index]);
  double total = fresh ? 0.0 : state[kSum * n_all + place];
  if (before != top) total *= static_cast<double>(expf(before - top));
  for (size_t part = 0; part < n_parts; ++part) {
    const float shift = parts[(part * kParts + kShift) * n + index];
    const double sum = static_cast<double>(parts[(part * kParts + kSum) * n + index]);
    total += shift == top ? sum : sum * static_cast<double>(expf(shift - top));
  }
  state[kShift * n_all + place] = static_cast<double>(top);
  state[kSum * n_all + place] = total;
  results[kShift * n_all + place] = top;
  results[kSum * n_all + place] = static_cast<float>(total);
  results[kLogSums * n_all + place] =
      static_cast<float>(static_cast<double>(top) + log(total));
  for (unsigned int which = kPositives; matched && which < kParts; ++which) {
    const double sum = plain_sum(parts + which * n, state + which * n_all, n_parts,
                                 index, n, place, fresh);
    state[which * n_all + place] = sum;
    results[which * n_all + place] = static_cast<float>(sum);
  }
}

// Where fresh is not 0, the state holds nothing yet.
extern "C" __global__ void pair_merge(
    const float *row_parts, double *row_state, float *row_results, size_t n_row_parts,
    size_t first_row, size_t n_rows, size_t n_left, unsigned int fresh_rows,
    const float *column_parts, double *column_state, float *column_results,
    size_t n_column_parts, size_t first_column, size_t n_columns, size_t n_right,
    unsigned int fresh_columns, unsigned int matching) {
  const size_t index = first_index();
  if (index < n_rows) {
    merge_one(row_parts, row_state, row_results, n_row_parts, index, n_rows,
              first_row + index, n_left, fresh_rows != 0, matching != 0);
  } else if (index - n_rows < n_columns) {
    const size_t column = index - n_rows;
    merge_one(column_parts, column_state, column_results, n_column_parts, column,
              n_columns, first_column + column, n_right, fresh_columns != 0,
              matching != 0);
  }
}
