// Softplus of all logits of a tile, and its slope in place of the products:
//
//   z = scale x[i,j] + bias
//   sums = sum_ij log(1 + exp z), sum_ij 1 / (1 + exp -z)
//   slopes[i,j] = 1 / (1 + exp -z)
//
// No logit needs the sum of others, so loss and gradient come from one pass. The first
// sum is the loss, the second its derivative by the bias.
//
// Layout    x, slopes (n_rows, n_columns) row-major with one leading dimension; slopes
//           may be x, or null: then they are not written. scale, bias: one number each,
//           in the memory of the GPU. parts (2, n_blocks) and totals (2,), double.
// Launch    siglip: blocks of (32, 8), a thread 8 rows of one column; grid
//           (ceil(n_columns / 32), ceil(n_rows / 64)). Then siglip_merge: grid (2),
//           a block of 256 a sum, which adds to what totals holds.
// Numerics  one exponential a logit, of -|z|, which can't overflow. 8 terms are summed
//           in the precision of the tile, the rest in double, in a fixed order.

#include "../common.cuh"

constexpr unsigned int kColumns = 32;
constexpr unsigned int kSplits = 8;
constexpr unsigned int kRows = 64;  // of a block
constexpr unsigned int kSums = 2;
constexpr unsigned int kMergeThreads = 256;

NEUROMM_DEVICE float exponential(float x) { return expf(x); }
NEUROMM_DEVICE double exponential(double x) { return exp(x); }
NEUROMM_DEVICE float log_one_plus(float x) { return log1pf(x); }
NEUROMM_DEVICE double log_one_plus(double x) { return log1p(x); }
NEUROMM_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
NEUROMM_DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }

template <typename T>
NEUROMM_DEVICE void siglip(const T *x, T *slopes, size_t ld, const T *scale,
                           const T *bias, double *parts, size_t n_rows,
                           size_t n_columns) {
  __shared__ double shared[kSums * kSplits];
  const size_t column = first_index();
  const size_t start = static_cast<size_t>(blockIdx.y) * kRows;
  const size_t stop = smaller(start + kRows, n_rows);
  const T factor = *scale, offset = *bias;

  T softplus = 0, sigmoid = 0;
  for (size_t row = start + threadIdx.y; column < n_columns && row < stop;
       row += kSplits) {
    const T z = fused(factor, x[row * ld + column], offset);
    const T e = exponential(z < 0 ? z : -z);
    const T slope = (z < 0 ? e : T(1)) / (1 + e);
    softplus += (z < 0 ? T(0) : z) + log_one_plus(e);
    sigmoid += slope;
    if (slopes != nullptr) slopes[row * ld + column] = slope;
  }
  const T found[kSums] = {softplus, sigmoid};
  NEUROMM_UNROLL
  for (unsigned int which = 0; which < kSums; ++which) {
    double value = static_cast<double>(found[which]);
    for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
      value += __shfl_xor_sync(NEUROMM_FULL_WARP, value, step);
    if (threadIdx.x == 0) shared[which * kSplits + threadIdx.y] = value;
  }
  __syncthreads();
  if (threadIdx.x != 0 || threadIdx.y >= kSums) return;
  const size_t n_blocks = static_cast<size_t>(gridDim.x) * gridDim.y;
  const size_t block = static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  double total = 0.0;
  for (unsigned int split = 0; split < kSplits; ++split)
    total += shared[threadIdx.y * kSplits + split];
  parts[threadIdx.y * n_blocks + block] = total;
}

extern "C" __global__ void __launch_bounds__(kColumns * kSplits)
    siglip_f32(const float *x, float *slopes, size_t ld, const float *scale,
               const float *bias, double *parts, size_t n_rows, size_t n_columns) {
  siglip<float>(x, slopes, ld, scale, bias, parts, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kColumns * kSplits)
    siglip_f64(const double *x, double *slopes, size_t ld, const double *scale,
               const double *bias, double *parts, size_t n_rows, size_t n_columns) {
  siglip<double>(x, slopes, ld, scale, bias, parts, n_rows, n_columns);
}

extern "C" __global__ void __launch_bounds__(kMergeThreads)
    siglip_merge(const double *parts, double *totals, size_t n_blocks) {
  __shared__ double scratch[NEUROMM_WARP];
  double sum = 0.0;
  for (size_t block = threadIdx.x; block < n_blocks; block += blockDim.x)
    sum += parts[blockIdx.x * n_blocks + block];
  const double total = block_sum(sum, scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] += total;
}
