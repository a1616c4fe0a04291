// Entry points for tests of column_correlation.cu on the CPU.

#include "cuda_shim.h"

#include "../column_correlation.cu"

extern "C" void launch_f32(unsigned int n_blocks, unsigned int n_threads, int reverse,
                           const float *x, const float *y, float *r, size_t n_samples,
                           size_t n_targets) {
  neuromm_shim::launch(column_correlation_f32, n_blocks, n_threads, reverse != 0, x, y,
                       r, n_samples, n_targets);
}

extern "C" void launch_f64(unsigned int n_blocks, unsigned int n_threads, int reverse,
                           const double *x, const double *y, double *r,
                           size_t n_samples, size_t n_targets) {
  neuromm_shim::launch(column_correlation_f64, n_blocks, n_threads, reverse != 0, x, y,
                       r, n_samples, n_targets);
}
