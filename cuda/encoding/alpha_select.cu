// choice[t] = first a of `order` with the largest total[a,t] + slope[a] tie_scale[t];
// nan never wins, and a target with nan alone gets order[0]. score[t] = total[choice,t].
//
// Layout    total (n_alphas, n_targets) row-major with a leading dimension; slope and
//           order (n_alphas,), the largest penalty first; tie_scale (n_targets,).
// Launch    one thread a target, so neighbouring threads load neighbouring values; any
//           grid of blocks of any size: a thread strides over targets.
// Numerics  double, with the two roundings of NumPy: equal to `select_alphas` of
//           neuromm.kernels to the last bit.

#include "../common.cuh"

extern "C" __global__ void alpha_select(const double *total, size_t ld_total,
                                        const double *slope, const double *tie_scale,
                                        const int *order, int *choice, double *score,
                                        size_t n_targets, size_t n_alphas) {
  for (size_t target = first_index(); target < n_targets; target += index_stride()) {
    const double scale = tie_scale[target];
    int best = order[0];
    double highest = -1.0 / 0.0;
    for (size_t place = 0; place < n_alphas; ++place) {
      const int alpha = order[place];
      const double ranked = multiply_then_add(
          total[alpha * ld_total + target], slope[alpha], scale);
      if (ranked > highest) {  // never true of nan
        highest = ranked;
        best = alpha;
      }
    }
    choice[target] = best;
    score[target] = total[best * ld_total + target];
  }
}
