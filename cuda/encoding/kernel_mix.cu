// Kernel of several feature spaces, each with the weight of a candidate (gpu.md 2.3):
//
//   out[i] = sum_s weight[s] kernel[space[s], i]
//
// in one read of the kernels that count, which are those that are listed.
//
// Layout    kernel (n_spaces, n_values) contiguous: a matrix of samples by samples for
//           each space; space (n_used,), n_used >= 1; weight (n_used,); out (n_values,).
// Launch    a block of 256 threads takes 1024 values, four a thread and 256 apart, so
//           that neighbouring threads load neighbouring values and four loads a space
//           are under way. Grid any, strided.
// Numerics  double, each product and sum rounded, in the order of the list: the bits of
//           the plain version.

#include "../common.cuh"

constexpr size_t kValues = 4;      // of a thread at a time
constexpr size_t kThreads = 256;   // blockDim.x

extern "C" __global__ void __launch_bounds__(kThreads)
    kernel_mix(const double *kernel, const int *space, const double *weight,
               double *out, size_t n_used, size_t n_values) {
  for (size_t start = blockIdx.x * (kValues * kThreads); start < n_values;
       start += gridDim.x * (kValues * kThreads)) {
    double sum[kValues];
    NEUROMM_UNROLL
    for (size_t step = 0; step < kValues; ++step) sum[step] = 0.0;
    for (size_t used = 0; used < n_used; ++used) {
      const double *from = kernel + static_cast<size_t>(space[used]) * n_values;
      const double times = weight[used];
      NEUROMM_UNROLL
      for (size_t step = 0; step < kValues; ++step) {
        const size_t value = start + step * kThreads + threadIdx.x;
        if (value < n_values)
          sum[step] = multiply_then_add(sum[step], times, from[value]);
      }
    }
    NEUROMM_UNROLL
    for (size_t step = 0; step < kValues; ++step) {
      const size_t value = start + step * kThreads + threadIdx.x;
      if (value < n_values) out[value] = sum[step];
    }
  }
}
