// k-means of one batch (neuromm/kernels/batch_kmeans.py): the nearest centre of each
// row, from the products of centres and rows, and the means of the members of a group.
//
//   nearest_centre  label_i = first g with the least |c_g|^2 - 2 <c_g, x_i>; nan is least
//   member_sums     sum of x_i over label_i = g, and how many, part by part of the rows
//   member_means    sum over parts / max(1, number): 0 where a group is empty
//
// Layout    products (n_groups, n_rows) contiguous, so that neighbouring threads load
//           neighbouring values; rows (n_rows, n_features) row-major with a leading
//           dimension; parts (n_parts, n_groups, n_features + 1), the numbers last;
//           means (n_groups, n_features), sizes (n_groups,); labels are 64-bit integers,
//           and a row with a label outside 0 ... n_groups - 1 counts nowhere.
// Launch    nearest_centre: a thread a row. member_sums: blocks of (32, 8) threads, grid
//           (ceil((n_features + 1) / 32), n_parts, ceil(n_groups / 16)): a thread adds
//           one feature of every eighth row of a part to 16 sums of its own. Then
//           member_means: a thread a feature of a group.
// Numerics  distances in the precision of the data, by one fused multiply-add; sums in
//           double. Rows are added in a fixed order, so means are the same bits twice.

#include "../common.cuh"

constexpr unsigned int kFeatures = 32;
constexpr unsigned int kSplits = 8;
constexpr unsigned int kGroups = 16;  // sums of a thread

NEUROMM_DEVICE float add_product(float x, float a, float b) { return fmaf(a, b, x); }
NEUROMM_DEVICE double add_product(double x, double a, double b) { return fma(a, b, x); }

template <typename T>
NEUROMM_DEVICE void nearest_centre(const T *products, const T *squares,
                                   long long *labels, size_t n_rows, size_t n_groups) {
  const size_t row = first_index();
  if (row >= n_rows) return;
  T least = add_product(squares[0], T(-2), products[row]);
  long long nearest = 0;
  for (size_t group = 1; group < n_groups; ++group) {
    const T distance =
        add_product(squares[group], T(-2), products[group * n_rows + row]);
    if (distance < least || (distance != distance && least == least)) {
      least = distance;
      nearest = static_cast<long long>(group);
    }
  }
  labels[row] = nearest;
}

template <typename T>
NEUROMM_DEVICE void member_sums(const T *rows, size_t ld, const long long *labels,
                                double *parts, size_t n_rows, size_t n_features,
                                size_t n_groups, size_t rows_a_part) {
  __shared__ double shared[kSplits * kGroups * kFeatures];
  const size_t feature = first_index();
  const size_t start = blockIdx.y * rows_a_part;
  const size_t stop = smaller(start + rows_a_part, n_rows);
  const size_t first = static_cast<size_t>(blockIdx.z) * kGroups;

  double *own = shared + threadIdx.y * kGroups * kFeatures + threadIdx.x;
  for (unsigned int group = 0; group < kGroups; ++group) own[group * kFeatures] = 0.0;
  for (size_t row = start + threadIdx.y; row < stop; row += kSplits) {
    // A label below `first` wraps to a large number.
    const size_t group = static_cast<size_t>(labels[row]) - first;
    if (group >= kGroups || feature > n_features) continue;
    own[group * kFeatures] +=
        feature < n_features ? static_cast<double>(rows[row * ld + feature]) : 1.0;
  }
  __syncthreads();
  if (feature > n_features) return;
  for (unsigned int group = threadIdx.y; group < kGroups; group += kSplits) {
    if (first + group >= n_groups) return;
    double total = 0.0;
    for (unsigned int split = 0; split < kSplits; ++split)
      total += shared[(split * kGroups + group) * kFeatures + threadIdx.x];
    parts[(blockIdx.y * n_groups + first + group) * (n_features + 1) + feature] = total;
  }
}

template <typename T>
NEUROMM_DEVICE void member_means(const double *parts, T *means, T *sizes,
                                 size_t n_features, size_t n_groups, size_t n_parts) {
  const size_t place = first_index();
  if (place >= n_groups * n_features) return;
  const size_t group = place / n_features, feature = place % n_features;
  double total = 0.0, number = 0.0;
  for (size_t part = 0; part < n_parts; ++part) {
    const double *sums = parts + (part * n_groups + group) * (n_features + 1);
    total += sums[feature];
    number += sums[n_features];
  }
  means[place] = static_cast<T>(total / (number > 1.0 ? number : 1.0));
  if (feature == 0) sizes[group] = static_cast<T>(number);
}

extern "C" __global__ void nearest_centre_f32(const float *products,
                                              const float *squares, long long *labels,
                                              size_t n_rows, size_t n_groups) {
  nearest_centre<float>(products, squares, labels, n_rows, n_groups);
}

extern "C" __global__ void nearest_centre_f64(const double *products,
                                              const double *squares, long long *labels,
                                              size_t n_rows, size_t n_groups) {
  nearest_centre<double>(products, squares, labels, n_rows, n_groups);
}

extern "C" __global__ void __launch_bounds__(kFeatures * kSplits)
    member_sums_f32(const float *rows, size_t ld, const long long *labels,
                    double *parts, size_t n_rows, size_t n_features, size_t n_groups,
                    size_t rows_a_part) {
  member_sums<float>(rows, ld, labels, parts, n_rows, n_features, n_groups,
                     rows_a_part);
}

extern "C" __global__ void __launch_bounds__(kFeatures * kSplits)
    member_sums_f64(const double *rows, size_t ld, const long long *labels,
                    double *parts, size_t n_rows, size_t n_features, size_t n_groups,
                    size_t rows_a_part) {
  member_sums<double>(rows, ld, labels, parts, n_rows, n_features, n_groups,
                      rows_a_part);
}

extern "C" __global__ void member_means_f32(const double *parts, float *means,
                                            float *sizes, size_t n_features,
                                            size_t n_groups, size_t n_parts) {
  member_means<float>(parts, means, sizes, n_features, n_groups, n_parts);
}

extern "C" __global__ void member_means_f64(const double *parts, double *means,
                                            double *sizes, size_t n_features,
                                            size_t n_groups, size_t n_parts) {
  member_means<double>(parts, means, sizes, n_features, n_groups, n_parts);
}
