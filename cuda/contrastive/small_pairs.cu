// Log-sum-exp of all rows and all columns of a matrix of logits in one launch, for
// batches so small that launches cost more than what they do.
//   v[i,j] = x[i,j] inverse_left[i] inverse_right[j],  S = scale v
//   of row i: shift = max_j S, sum = sum_j exp(S - shift), log_sums = shift + log(sum),
//   and of its positives sum_j v and their number; of a column: the same over i
//
// Layout    x (n_left, n_right) with a leading dimension, float; scale on the device.
//           Inverse lengths, labels and presence as in pair_stats. row_results (5, n_left)
//           and column_results (5, n_right) as pair_merge gives them; without positives
//           these two of 5 are not set.
// Launch    blocks of (32, 32), so that enough loads are under way where blocks are few;
//           grid (ceil(n_left / 32) + ceil(n_right / 32)): of the first blocks a warp
//           sums a row; of the others a lane sums a column, each warp a 32nd of it, and
//           the first warp merges.
// Numerics  the highest so far and sums about it, 8 terms at a time in float, then in
//           double and in a fixed order: two exponentials a logit, right whatever the
//           logits are. What is not counted is never read as a number.

#include "pairs.cuh"

constexpr unsigned int kAtATime = 8;

struct Sums {
  float top = kNone;
  double sum = 0.0, positives = 0.0, counts = 0.0;

  // Raise the shift to `higher`, which is not below it.
  __device__ __forceinline__ void raise(float higher) {
    if (higher == top) return;
    sum *= static_cast<double>(expf(top - higher));
    top = higher;
  }

  __device__ __forceinline__ void add(const float *v, const bool *counted,
                                      const bool *same, float scale) {
    float highest = top, terms = 0.0f, cosines = 0.0f, number = 0.0f;
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kAtATime; ++n)
      if (counted[n]) highest = fmaxf(highest, v[n] * scale);
    raise(highest);
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kAtATime; ++n) {
      if (!counted[n]) continue;
      terms += expf(fmaf(v[n], scale, -highest));
      if (same[n]) {
        cosines += v[n];
        number += 1.0f;
      }
    }
    sum += static_cast<double>(terms);
    positives += static_cast<double>(cosines);
    counts += static_cast<double>(number);
  }

  __device__ __forceinline__ void write(float *results, size_t index, size_t n,
                                        unsigned int matching) const {
    results[kShift * n + index] = top;
    results[kSum * n + index] = static_cast<float>(sum);
    results[kLogSums * n + index] =
        static_cast<float>(static_cast<double>(top) + log(sum));
    if (matching == 0) return;
    results[kPositives * n + index] = static_cast<float>(positives);
    results[kCounts * n + index] = static_cast<float>(counts);
  }
};

// Sums of the products of line `own` of one side with lines first, first + step, ... of
// the other; neighbours of x along the other side are `stride` apart.
NEUROMM_DEVICE Sums along(const float *x, size_t stride, size_t own, size_t first,
                          size_t step, size_t n_others, float scale,
                          const float *inverse_own, const float *inverse_others,
                          const long long *labels_own, const long long *labels_others,
                          const unsigned char *present_own,
                          const unsigned char *present_others, unsigned int matching) {
  Sums sums;
  if (!is_present(present_own, own)) return sums;
  const float inverse = inverse_length(inverse_own, own);
  const long long label = matching != 0 ? label_of(labels_own, own, matching) : 0;
  for (size_t start = first; start < n_others; start += step * kAtATime) {
    float v[kAtATime];
    bool counted[kAtATime], same[kAtATime];
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kAtATime; ++n) {
      const size_t other = start + n * step;
      counted[n] = other < n_others && is_present(present_others, other);
      v[n] = 0.0f;
      same[n] = false;
      if (!counted[n]) continue;
      v[n] = x[other * stride] * (inverse * inverse_length(inverse_others, other));
      same[n] = matching != 0 && label_of(labels_others, other, matching) == label;
    }
    sums.add(v, counted, same, scale);
  }
  return sums;
}

extern "C" __global__ void __launch_bounds__(NEUROMM_WARP * NEUROMM_WARP) small_pairs(
    const float *x, size_t ld, const float *scale_at, const float *inverse_left,
    const float *inverse_right, const long long *labels_left,
    const long long *labels_right, const unsigned char *present_left,
    const unsigned char *present_right, float *row_results, float *column_results,
    size_t n_left, size_t n_right, unsigned int matching) {
  __shared__ float tops[NEUROMM_WARP][NEUROMM_WARP];
  __shared__ double found[3][NEUROMM_WARP][NEUROMM_WARP];
  const unsigned int lane = threadIdx.x, warp = threadIdx.y;
  const size_t row_blocks = (n_left + NEUROMM_WARP - 1) / NEUROMM_WARP;
  const float scale = *scale_at;
  if (blockIdx.x < row_blocks) {
    const size_t row = blockIdx.x * static_cast<size_t>(NEUROMM_WARP) + warp;
    if (row >= n_left) return;
    Sums sums = along(x + row * ld, 1, row, lane, NEUROMM_WARP, n_right, scale,
                      inverse_left, inverse_right, labels_left, labels_right,
                      present_left, present_right, matching);
    sums.raise(warp_highest(sums.top));
    sums.sum = warp_sum(sums.sum);
    if (matching != 0) {
      sums.positives = warp_sum(sums.positives);
      sums.counts = warp_sum(sums.counts);
    }
    if (lane == 0) sums.write(row_results, row, n_left, matching);
    return;
  }
  const size_t column = (blockIdx.x - row_blocks) * NEUROMM_WARP + lane;
  Sums sums;
  if (column < n_right)
    sums = along(x + column, ld, column, warp, NEUROMM_WARP, n_left, scale,
                 inverse_right, inverse_left, labels_right, labels_left, present_right,
                 present_left, matching);
  tops[warp][lane] = sums.top;
  found[0][warp][lane] = sums.sum;
  found[1][warp][lane] = sums.positives;
  found[2][warp][lane] = sums.counts;
  __syncthreads();
  if (warp != 0 || column >= n_right) return;
  for (unsigned int other = 1; other < NEUROMM_WARP; ++other) {
    const float top = tops[other][lane];
    sums.raise(fmaxf(sums.top, top));
    sums.sum += found[0][other][lane] *
                (top == sums.top ? 1.0 : static_cast<double>(expf(top - sums.top)));
    sums.positives += found[1][other][lane];
    sums.counts += found[2][other][lane];
  }
  sums.write(column_results, column, n_right, matching);
}
