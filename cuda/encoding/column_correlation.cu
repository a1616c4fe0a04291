// r[t] = <x_t, y_t> / (|x_t| |y_t|), columns centred; nan where a column is constant.
// Layout    x, y (n_samples, n_targets) row-major; r (n_targets,).
// Launch    one thread a target, so neighbouring threads load neighbouring floats;
//           any grid of blocks of any size: a thread strides over targets.
// Numerics  sums in double, means first (two passes: no cancellation); size_t offsets
//           (a session can exceed 2^31 values). A constant column is told by comparing
//           values: its variance is not 0 after rounding of the mean.

template <typename T>
__device__ void correlate_column(const T *x, const T *y, T *r, size_t n_samples,
                                 size_t n_targets, size_t target) {
  double mean_x = 0.0, mean_y = 0.0;
  for (size_t i = 0; i < n_samples; ++i) {
    mean_x += static_cast<double>(x[i * n_targets + target]);
    mean_y += static_cast<double>(y[i * n_targets + target]);
  }
  mean_x /= static_cast<double>(n_samples);
  mean_y /= static_cast<double>(n_samples);

  double xx = 0.0, yy = 0.0, xy = 0.0;
  bool varies_x = false, varies_y = false;
  for (size_t i = 0; i < n_samples; ++i) {
    const T value_x = x[i * n_targets + target];
    const T value_y = y[i * n_targets + target];
    varies_x |= value_x != x[target];
    varies_y |= value_y != y[target];
    const double a = static_cast<double>(value_x) - mean_x;
    const double b = static_cast<double>(value_y) - mean_y;
    xx += a * a;
    yy += b * b;
    xy += a * b;
  }
  const double norm = varies_x && varies_y ? sqrt(xx) * sqrt(yy) : 0.0;
  double correlation = norm > 0.0 ? xy / norm : 0.0 / norm;
  if (correlation > 1.0) correlation = 1.0;
  if (correlation < -1.0) correlation = -1.0;
  r[target] = static_cast<T>(correlation);
}

extern "C" __global__ void column_correlation_f32(const float *x, const float *y,
                                                  float *r, size_t n_samples,
                                                  size_t n_targets) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t target = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; target < n_targets; target += stride)
    correlate_column<float>(x, y, r, n_samples, n_targets, target);
}

extern "C" __global__ void column_correlation_f64(const double *x, const double *y,
                                                  double *r, size_t n_samples,
                                                  size_t n_targets) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t target = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; target < n_targets; target += stride)
    correlate_column<double>(x, y, r, n_samples, n_targets, target);
}
