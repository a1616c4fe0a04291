// Moments of responses y and predictions p, column by column, in one read of both: what
// R2 and Pearson r are made of.
//   out = mean y, mean p, S_yy, S_pp, S_yp (about the means), sum (y - p)^2,
//         lowest y, lowest p, highest y, highest p
//
// Layout    y, p (n_samples, n_targets) row-major, each with a leading dimension; parts
//           (n_parts, 10, n_targets) and out (10, n_targets) contiguous, double.
// Launch    col_stats: blocks of (32, 8), a thread a target and an eighth of the rows of
//           a part; grid (ceil(n_targets / 32), n_parts). Then col_stats_merge: a thread
//           a target, grid (ceil(n_targets / blockDim.x)).
// Numerics  sums in double, in a fixed order. Values are taken about the first row, which
//           is one of the samples: with S = sum (v - mean)^2 >= (first - mean)^2, the sum
//           about it is at most (n_samples + 1) S, so what cancels at the end is bounded,
//           whatever the mean is. nan spreads to all results of its column; extremes are
//           kept, since the variance of a constant is not 0 after rounding.

#include "../common.cuh"

constexpr unsigned int kTargets = 32;
constexpr unsigned int kSplits = 8;
constexpr unsigned int kStats = 10;
constexpr unsigned int kSums = 6;  // the others are extremes: two lowest, two highest

NEUROMM_DEVICE double lower(double a, double b) { return b < a || b != b ? b : a; }

NEUROMM_DEVICE double higher(double a, double b) { return b > a || b != b ? b : a; }

// Merge statistic `which` of two sets of rows.
NEUROMM_DEVICE double merged(unsigned int which, double a, double b) {
  if (which < kSums) return a + b;
  return which < kSums + 2 ? lower(a, b) : higher(a, b);
}

template <typename T>
NEUROMM_DEVICE void col_stats(const T *y, size_t ld_y, const T *p, size_t ld_p,
                              double *parts, size_t n_samples, size_t n_targets,
                              size_t rows_a_part) {
  __shared__ double shared[kSplits * kStats * kTargets];
  const size_t target = first_index();
  const bool inside = target < n_targets;
  const size_t start = blockIdx.y * rows_a_part;
  const size_t stop = smaller(start + rows_a_part, n_samples);

  const double first_y = inside ? static_cast<double>(y[target]) : 0.0;
  const double first_p = inside ? static_cast<double>(p[target]) : 0.0;
  double sum_y = 0.0, sum_p = 0.0, yy = 0.0, pp = 0.0, yp = 0.0, error = 0.0;
  double low_y = first_y, low_p = first_p, high_y = first_y, high_p = first_p;
  for (size_t row = start + threadIdx.y; inside && row < stop; row += kSplits) {
    const double value_y = static_cast<double>(y[row * ld_y + target]);
    const double value_p = static_cast<double>(p[row * ld_p + target]);
    const double a = value_y - first_y, b = value_p - first_p, e = value_y - value_p;
    sum_y += a;
    sum_p += b;
    yy += a * a;
    pp += b * b;
    yp += a * b;
    error += e * e;
    low_y = lower(low_y, value_y);
    low_p = lower(low_p, value_p);
    high_y = higher(high_y, value_y);
    high_p = higher(high_p, value_p);
  }
  const double found[kStats] = {sum_y, sum_p, yy,    pp,     yp,
                                error, low_y, low_p, high_y, high_p};
  NEUROMM_UNROLL
  for (unsigned int which = 0; which < kStats; ++which)
    shared[(threadIdx.y * kStats + which) * kTargets + threadIdx.x] = found[which];
  __syncthreads();
  if (!inside) return;
  for (unsigned int which = threadIdx.y; which < kStats; which += kSplits) {
    double total = shared[which * kTargets + threadIdx.x];
    for (unsigned int split = 1; split < kSplits; ++split)
      total = merged(which, total,
                     shared[(split * kStats + which) * kTargets + threadIdx.x]);
    parts[(blockIdx.y * kStats + which) * n_targets + target] = total;
  }
}

extern "C" __global__ void __launch_bounds__(kTargets * kSplits)
    col_stats_f32(const float *y, size_t ld_y, const float *p, size_t ld_p,
                  double *parts, size_t n_samples, size_t n_targets,
                  size_t rows_a_part) {
  col_stats<float>(y, ld_y, p, ld_p, parts, n_samples, n_targets, rows_a_part);
}

extern "C" __global__ void __launch_bounds__(kTargets * kSplits)
    col_stats_f64(const double *y, size_t ld_y, const double *p, size_t ld_p,
                  double *parts, size_t n_samples, size_t n_targets,
                  size_t rows_a_part) {
  col_stats<double>(y, ld_y, p, ld_p, parts, n_samples, n_targets, rows_a_part);
}

// `first_y` and `first_p` are the first rows of y and p in double.
extern "C" __global__ void col_stats_merge(const double *parts, const double *first_y,
                                           const double *first_p, double *out,
                                           size_t n_samples, size_t n_targets,
                                           size_t n_parts) {
  const size_t target = first_index();
  if (target >= n_targets) return;
  double total[kStats];
  NEUROMM_UNROLL
  for (unsigned int which = 0; which < kStats; ++which) {
    total[which] = parts[which * n_targets + target];
    for (size_t part = 1; part < n_parts; ++part)
      total[which] = merged(which, total[which],
                            parts[(part * kStats + which) * n_targets + target]);
  }
  const double n = static_cast<double>(n_samples);
  const double step_y = total[0] / n, step_p = total[1] / n;
  total[2] -= step_y * total[0];
  total[3] -= step_p * total[1];
  total[4] -= step_y * total[1];
  total[0] = first_y[target] + step_y;
  total[1] = first_p[target] + step_p;
  if (total[2] < 0.0) total[2] = 0.0;
  if (total[3] < 0.0) total[3] = 0.0;
  NEUROMM_UNROLL
  for (unsigned int which = 0; which < kStats; ++which)
    out[which * n_targets + target] = total[which];
}
