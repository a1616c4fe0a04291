// Turns a tile of products into the tile of slopes, so that two products with rows give
// the gradients of both sides:
//   v[i,j] = x[i,j] inverse_left[i] inverse_right[j],  S = scale v
//   p_row[i,j] = exp(S - shift_i) / sum_i,  p_column[i,j] = exp(S - shift_j) / sum_j
//   slope = scale (grad_left[i] p_row + grad_right[j] p_column)
//           + [j is a positive of i] (share_left[i] + share_right[j])
//   out = slope inverse_left[i] inverse_right[j] gain
// of gradients of the log-sum-exp (grad) and of the sums of positives (share). Of a mean
// of symmetric losses grad is 1 / 2N and share -scale / (2N n_positives).
//
// Layout    x as in pair_stats; out (n_rows, n_columns) with a leading dimension, of float,
//           bfloat16 or half; out may be x. left_results (5, n_left) as pair_merge gives
//           them, right_results the same. grad and share of each side (n,); shares may
//           be null, as may inverse lengths, labels, presence and gain (1 number).
// Launch    blocks of (32, 8), a thread 8 rows of 4 columns; grid
//           (ceil(n_columns / 128), ceil(n_rows / 64)).
// Numerics  one exponential a logit where bound <= 60, else two: see pair_stats. Positives
//           are subtracted in float before out is rounded, so 1 - p is kept as p nears 1.

#include "pairs.cuh"

constexpr unsigned int kWarps = 8;
constexpr unsigned int kRowsAWarp = 8;
constexpr unsigned int kColumnsALane = 4;
constexpr unsigned int kRows = kWarps * kRowsAWarp;
constexpr unsigned int kColumns = NEUROMM_WARP * kColumnsALane;

struct Bfloat16 {
  unsigned short bits;
};

struct Half {
  unsigned short bits;
};

NEUROMM_DEVICE void store(float *at, float value) { *at = value; }

// To the nearest, ties to even.
NEUROMM_DEVICE void store(Bfloat16 *at, float value) {
#ifdef NEUROMM_HOST
  unsigned int bits;
  std::memcpy(&bits, &value, sizeof(bits));
#else
  const unsigned int bits = __float_as_uint(value);
#endif
  // A nan stays one, and does not become infinite by rounding.
  at->bits = static_cast<unsigned short>(
      value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

NEUROMM_DEVICE void store(Half *at, float value) {
#ifdef NEUROMM_HOST
  const _Float16 rounded = static_cast<_Float16>(value);
  std::memcpy(&at->bits, &rounded, sizeof(at->bits));
#else
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  at->bits = bits;
#endif
}

struct Side {
  const float *results, *grad, *share, *inverse;
  const long long *labels;
  const unsigned char *present;
  size_t n;

  __device__ __forceinline__ float weight(size_t index) const {
    return grad[index] / results[kSum * n + index];
  }
  __device__ __forceinline__ float shift(size_t index) const {
    return results[kShift * n + index];
  }
  __device__ __forceinline__ float share_of(size_t index) const {
    return share == nullptr ? 0.0f : share[index];
  }
};

template <typename T>
NEUROMM_DEVICE void pair_grad(const float *x, size_t ld, T *out, size_t ld_out,
                              float scale, float bound, float gain, const Side &left,
                              const Side &right, size_t first_row, size_t first_column,
                              size_t n_rows, size_t n_columns, unsigned int matching) {
  const size_t top_row =
      blockIdx.y * static_cast<size_t>(kRows) + threadIdx.y * kRowsAWarp;
  const size_t left_column = blockIdx.x * static_cast<size_t>(kColumns) + threadIdx.x;
  const bool one = has_one_shift(bound);
  const float shift = one_shift(bound);
  float weight[kColumnsALane], column_shift[kColumnsALane], share[kColumnsALane];
  float inverse[kColumnsALane];
  long long label[kColumnsALane];
  bool there[kColumnsALane];
  NEUROMM_UNROLL
  for (unsigned int n = 0; n < kColumnsALane; ++n) {
    const size_t column = left_column + n * NEUROMM_WARP;
    const size_t place = first_column + column;
    there[n] = column < n_columns && is_present(right.present, place);
    weight[n] = there[n] ? right.weight(place) : 0.0f;
    column_shift[n] = there[n] ? right.shift(place) : 0.0f;
    share[n] = there[n] ? right.share_of(place) : 0.0f;
    inverse[n] = there[n] ? inverse_length(right.inverse, place) : 0.0f;
    label[n] =
        there[n] && matching != 0 ? label_of(right.labels, place, matching) : 0;
  }
  for (unsigned int m = 0; m < kRowsAWarp && top_row + m < n_rows; ++m) {
    const size_t row = top_row + m, place = first_row + row;
    const bool row_there = is_present(left.present, place);
    const float row_weight = row_there ? left.weight(place) : 0.0f;
    const float row_shift = left.shift(place), row_share = left.share_of(place);
    const float row_inverse = inverse_length(left.inverse, place);
    const long long own = matching != 0 ? label_of(left.labels, place, matching) : 0;
    NEUROMM_UNROLL
    for (unsigned int n = 0; n < kColumnsALane; ++n) {
      const size_t column = left_column + n * NEUROMM_WARP;
      if (column >= n_columns) continue;
      float slope = 0.0f;
      if (row_there && there[n]) {
        const float both = row_inverse * inverse[n];
        const float v = x[row * ld + column] * both;
        if (one) {
          slope = expf(fmaf(v, scale, -shift)) * (row_weight + weight[n]);
        } else {
          slope = expf(fmaf(v, scale, -row_shift)) * row_weight +
                  expf(fmaf(v, scale, -column_shift[n])) * weight[n];
        }
        slope *= scale;
        if (matching != 0 && own == label[n]) slope += row_share + share[n];
        slope *= both * gain;
      }
      store(&out[row * ld_out + column], slope);
    }
  }
}

#define NEUROMM_PAIR_GRAD_ARGUMENTS(T)                                                \
  const float *x, size_t ld, T *out, size_t ld_out, const float *scale,               \
      const float *bound, const float *gain, const float *left_results,               \
      const float *right_results, const float *grad_left, const float *grad_right,    \
      const float *share_left, const float *share_right, const float *inverse_left,   \
      const float *inverse_right, const long long *labels_left,                       \
      const long long *labels_right, const unsigned char *present_left,               \
      const unsigned char *present_right, size_t first_row, size_t first_column,      \
      size_t n_rows, size_t n_columns, size_t n_left, size_t n_right,                 \
      unsigned int matching

#define NEUROMM_PAIR_GRAD_BODY(T)                                                     \
  const Side left = {left_results, grad_left,    share_left, inverse_left,            \
                     labels_left,  present_left, n_left};                             \
  const Side right = {right_results, grad_right,    share_right, inverse_right,       \
                      labels_right,  present_right, n_right};                         \
  pair_grad<T>(x, ld, out, ld_out, *scale, *bound, gain == nullptr ? 1.0f : *gain,    \
               left, right, first_row, first_column, n_rows, n_columns, matching)

extern "C" __global__ void __launch_bounds__(NEUROMM_WARP * kWarps)
    pair_grad_f32(NEUROMM_PAIR_GRAD_ARGUMENTS(float)) {
  NEUROMM_PAIR_GRAD_BODY(float);
}

extern "C" __global__ void __launch_bounds__(NEUROMM_WARP * kWarps)
    pair_grad_bf16(NEUROMM_PAIR_GRAD_ARGUMENTS(Bfloat16)) {
  NEUROMM_PAIR_GRAD_BODY(Bfloat16);
}

extern "C" __global__ void __launch_bounds__(NEUROMM_WARP * kWarps)
    pair_grad_f16(NEUROMM_PAIR_GRAD_ARGUMENTS(Half)) {
  NEUROMM_PAIR_GRAD_BODY(Half);
}
