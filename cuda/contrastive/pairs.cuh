// What the kernels of pairs share: which pairs are counted, which are positives, what a
// product is as a cosine, and the one shift that serves both directions.
//
// A product x[i,j] of rows as they are becomes the cosine v = x / (|left_i| |right_j|),
// by inverse lengths that are 1 where they are not given. A logit is scale v.

#ifndef NEUROMM_PAIRS_CUH
#define NEUROMM_PAIRS_CUH

#include "../common.cuh"

constexpr float kNone = -3.402823466e+38f;  // below every logit: of no pair at all
// No term of one shift exceeds exp(50). While no logit exceeds 60 in size, the shift is
// at most 10 and no term is below exp(-70): none underflows, nor does one over a sum.
constexpr float kCeiling = 50.0f;
constexpr float kOneShift = 60.0f;

// Which pairs are positives.
constexpr unsigned int kByPlace = 1;  // row i and column i; 0 is none
constexpr unsigned int kByLabel = 2;

// Results of a row or a column: log_sums = shift + log(sum of exp(logit - shift)), sum of
// the cosines of its positives, number of them. Partial ones have no log_sums.
constexpr unsigned int kShift = 0, kSum = 1, kPositives = 2, kCounts = 3, kLogSums = 4;
constexpr unsigned int kParts = 4, kResults = 5;

NEUROMM_DEVICE bool has_one_shift(float bound) { return bound <= kOneShift; }

NEUROMM_DEVICE float one_shift(float bound) { return fmaxf(0.0f, bound - kCeiling); }

NEUROMM_DEVICE float inverse_length(const float *inverse, size_t index) {
  return inverse == nullptr ? 1.0f : inverse[index];
}

NEUROMM_DEVICE bool is_present(const unsigned char *present, size_t index) {
  return present == nullptr || present[index] != 0;
}

NEUROMM_DEVICE long long label_of(const long long *labels, size_t index,
                                  unsigned int matching) {
  return matching == kByLabel ? labels[index] : static_cast<long long>(index);
}

// Results that every lane is given, in an order that is fixed.
NEUROMM_DEVICE float warp_sum(float value) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(NEUROMM_FULL_WARP, value, step);
  return value;
}

NEUROMM_DEVICE double warp_sum(double value) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(NEUROMM_FULL_WARP, value, step);
  return value;
}

NEUROMM_DEVICE float warp_highest(float value) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(NEUROMM_FULL_WARP, value, step));
  return value;
}

#endif  // NEUROMM_PAIRS_CUH
