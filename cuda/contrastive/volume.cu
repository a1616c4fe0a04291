// Volumes of a tile of anchors i and samples j, from the k products p_m of the anchors
// with the axes of the samples' spans: what the softmax over volumes sums, and the
// gradient of the products (neuromm/kernels/volume_softmax.py has the definition).
//
//   S_ij = det_j - sum_m p_mij^2, own_i where i and j are one sample
//   V_ij = sqrt(max(S_ij, floor))
//   volume_stats   log-sum-exp of -V over rows and columns, as pairs (low, sum) that
//                  mean log(sum) - low: sum = sum_j exp(low - V_ij); and sum_j V_ij
//   volume_slopes  W_ij = [h_ij + (extra_i + own_extra_i where i = j)] / V_ij, 0 at the
//                  floor, with h_ij = (a_i + b_j) exp(shift - V_ij)
//                  p_mij <- W_ij p_mij; sum_i W_ij S_ij; sum_i h_ij V_ij
//
// volume_stats_safe takes for low the least volume of the row or column so far, and
// volume_slopes_safe a_i exp(shift_i - V_ij) + b_j exp(shift_j - V_ij): two exponentials
// a pair, for temperatures at which exp(shift - V) would leave its range.
//
// Layout    products (n_others, n_rows, n_columns) contiguous; det, b, shift_j
//           (n_columns,) and own, a, extra, own_extra, shift_i (n_rows,) begin at the
//           tile. Parts of a row are (ceil(n_columns / 128), n_rows), of a column
//           (ceil(n_rows / 64), n_columns), double. Null pointers: volumes and of_scale
//           where nobody asks, shift_i and shift_j without "safe".
// Launch    blocks of (32, 8) threads, grid (ceil(n_columns / 128), ceil(n_rows / 64)):
//           a warp takes every eighth row of a block, a lane four of its columns. Then
//           volume_merge: one thread a row or column.
// Numerics  squares are subtracted by fused multiply-adds in the precision of the data,
//           terms are summed in double; the order is fixed. nan spreads.

#include "../common.cuh"

constexpr unsigned int kLanes = 32;
constexpr unsigned int kWarps = 8;
constexpr unsigned int kRows = 64;  // of a block
constexpr unsigned int kColumns = 128;
constexpr unsigned int kEach = kColumns / kLanes;  // columns of a thread

NEUROMM_DEVICE float exponential(float x) { return expf(x); }
NEUROMM_DEVICE double exponential(double x) { return exp(x); }
NEUROMM_DEVICE float root(float x) { return sqrtf(x); }
NEUROMM_DEVICE double root(double x) { return sqrt(x); }
NEUROMM_DEVICE float less_product(float x, float a, float b) { return fmaf(-a, b, x); }
NEUROMM_DEVICE double less_product(double x, double a, double b) {
  return fma(-a, b, x);
}

template <typename T>
struct Tile {
  const T *products, *det, *own;
  size_t n_others, n_rows, n_columns, first_row, first_column;
  T floor;
};

// Squared volumes of a row and the columns of a thread, from `column` in steps of 32.
template <typename T>
NEUROMM_DEVICE void squares(const Tile<T> &tile, size_t row, size_t column,
                            T (&squared)[kEach]) {
  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each) {
    const size_t place = column + each * kLanes;
    squared[each] = place < tile.n_columns ? tile.det[place] : T(0);
  }
  for (size_t other = 0; other < tile.n_others; ++other) {
    const T *products = tile.products + (other * tile.n_rows + row) * tile.n_columns;
    NEUROMM_UNROLL
    for (unsigned int each = 0; each < kEach; ++each) {
      const size_t place = column + each * kLanes;
      if (place >= tile.n_columns) continue;
      const T product = products[place];
      squared[each] = less_product(squared[each], product, product);
    }
  }
  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each)
    if (tile.first_row + row == tile.first_column + column + each * kLanes)
      squared[each] = tile.own[row];
}

template <typename T>
NEUROMM_DEVICE T volume_of(T squared, T floor) {
  return root(squared < floor ? floor : squared);
}

// sum = sum exp(low - volume).
template <typename T>
struct LogSum {
  T low;
  double sum;
};

template <typename T>
NEUROMM_DEVICE double rescaled(const LogSum<T> &one, T low) {
  if (!(one.low > low)) return one.sum;
  return one.sum * exp(static_cast<double>(low) - static_cast<double>(one.low));
}

template <typename T>
NEUROMM_DEVICE LogSum<T> merged(const LogSum<T> &a, const LogSum<T> &b) {
  const T low = b.low < a.low ? b.low : a.low;
  return {low, rescaled(a, low) + rescaled(b, low)};
}

template <typename T>
NEUROMM_DEVICE void add(LogSum<T> &to, T volume) {
  if (volume < to.low) {
    to.sum = to.sum * static_cast<double>(exponential(volume - to.low)) + 1.0;
    to.low = volume;
  } else {
    to.sum += static_cast<double>(exponential(to.low - volume));
  }
}

NEUROMM_DEVICE double warp_sum(double value) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(NEUROMM_FULL_WARP, value, step);
  return value;
}

template <bool kFixed, typename T>
NEUROMM_DEVICE LogSum<T> warp_total(const LogSum<T> &one) {
  T low = one.low;
  if (!kFixed)
    for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(NEUROMM_FULL_WARP, low, step);
      if (other < low) low = other;
    }
  return {low, warp_sum(rescaled(one, low))};
}

struct Stats {
  double *row_lows, *row_sums, *row_volumes, *column_lows, *column_sums;
};

template <bool kFixed, typename T>
NEUROMM_DEVICE void volume_stats(const Tile<T> &tile, T shift, const Stats &out) {
  __shared__ double lows[kWarps * kColumns], sums[kWarps * kColumns];
  const LogSum<T> none = {kFixed ? shift : static_cast<T>(1.0 / 0.0), 0.0};
  const size_t column = static_cast<size_t>(blockIdx.x) * kColumns + threadIdx.x;
  const size_t start = static_cast<size_t>(blockIdx.y) * kRows;
  const size_t stop = smaller(start + kRows, tile.n_rows);

  LogSum<T> of_column[kEach];
  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each) of_column[each] = none;
  for (size_t row = start + threadIdx.y; row < stop; row += kWarps) {
    T squared[kEach];
    squares(tile, row, column, squared);
    LogSum<T> of_row = none;
    double volumes = 0.0;
    NEUROMM_UNROLL
    for (unsigned int each = 0; each < kEach; ++each) {
      if (column + each * kLanes >= tile.n_columns) continue;
      const T volume = volume_of(squared[each], tile.floor);
      volumes += static_cast<double>(volume);
      if (kFixed) {
        const double term = static_cast<double>(exponential(shift - volume));
        of_row.sum += term;
        of_column[each].sum += term;
      } else {
        add(of_row, volume);
        add(of_column[each], volume);
      }
    }
    of_row = warp_total<kFixed>(of_row);
    if (out.row_volumes != nullptr) volumes = warp_sum(volumes);
    if (threadIdx.x > 0) continue;
    const size_t place = blockIdx.x * tile.n_rows + row;
    out.row_lows[place] = static_cast<double>(of_row.low);
    out.row_sums[place] = of_row.sum;
    if (out.row_volumes != nullptr) out.row_volumes[place] = volumes;
  }

  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each) {
    const unsigned int place = threadIdx.y * kColumns + each * kLanes + threadIdx.x;
    lows[place] = static_cast<double>(of_column[each].low);
    sums[place] = of_column[each].sum;
  }
  __syncthreads();
  const unsigned int thread = threadIdx.y * kLanes + threadIdx.x;
  const size_t mine = static_cast<size_t>(blockIdx.x) * kColumns + thread;
  if (thread >= kColumns || mine >= tile.n_columns) return;
  LogSum<double> total = {lows[thread], sums[thread]};
  for (unsigned int warp = 1; warp < kWarps; ++warp) {
    const unsigned int place = warp * kColumns + thread;
    total = merged(total, LogSum<double>{lows[place], sums[place]});
  }
  out.column_lows[blockIdx.y * tile.n_columns + mine] = total.low;
  out.column_sums[blockIdx.y * tile.n_columns + mine] = total.sum;
}

template <typename T>
struct Slopes {
  const T *row_weight, *row_extra, *own_extra, *row_shift;
  const T *column_weight, *column_shift;
  T shift;
};

template <bool kFixed, typename T>
NEUROMM_DEVICE void volume_slopes(const Tile<T> &tile, T *products,
                                  const Slopes<T> &of, double *heights,
                                  double *of_scale) {
  __shared__ double shared[2 * kWarps * kColumns];
  const size_t column = static_cast<size_t>(blockIdx.x) * kColumns + threadIdx.x;
  const size_t start = static_cast<size_t>(blockIdx.y) * kRows;
  const size_t stop = smaller(start + kRows, tile.n_rows);

  double height[kEach], scale[kEach];
  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each) height[each] = scale[each] = 0.0;
  for (size_t row = start + threadIdx.y; row < stop; row += kWarps) {
    T squared[kEach], weight[kEach];
    squares(tile, row, column, squared);
    const T row_weight = of.row_weight[row];
    NEUROMM_UNROLL
    for (unsigned int each = 0; each < kEach; ++each) {
      const size_t place = column + each * kLanes;
      if (place >= tile.n_columns) continue;
      const T volume = volume_of(squared[each], tile.floor);
      T slope;
      if (kFixed)
        slope = (row_weight + of.column_weight[place]) * exponential(of.shift - volume);
      else
        slope = row_weight * exponential(of.row_shift[row] - volume) +
                of.column_weight[place] * exponential(of.column_shift[place] - volume);
      scale[each] += static_cast<double>(slope) * static_cast<double>(volume);
      slope += of.row_extra[row];
      if (tile.first_row + row == tile.first_column + place) slope += of.own_extra[row];
      weight[each] = squared[each] <= tile.floor ? T(0) : slope / volume;
      height[each] +=
          static_cast<double>(weight[each]) * static_cast<double>(squared[each]);
    }
    for (size_t other = 0; other < tile.n_others; ++other) {
      T *mine = products + (other * tile.n_rows + row) * tile.n_columns;
      NEUROMM_UNROLL
      for (unsigned int each = 0; each < kEach; ++each)
        if (column + each * kLanes < tile.n_columns)
          mine[column + each * kLanes] *= weight[each];
    }
  }

  double *scales = shared + kWarps * kColumns;
  NEUROMM_UNROLL
  for (unsigned int each = 0; each < kEach; ++each) {
    const unsigned int place = threadIdx.y * kColumns + each * kLanes + threadIdx.x;
    shared[place] = height[each];
    scales[place] = scale[each];
  }
  __syncthreads();
  const unsigned int thread = threadIdx.y * kLanes + threadIdx.x;
  const size_t mine = static_cast<size_t>(blockIdx.x) * kColumns + thread;
  if (thread >= kColumns || mine >= tile.n_columns) return;
  double total = shared[thread], total_scale = scales[thread];
  for (unsigned int warp = 1; warp < kWarps; ++warp) {
    total += shared[warp * kColumns + thread];
    total_scale += scales[warp * kColumns + thread];
  }
  heights[blockIdx.y * tile.n_columns + mine] = total;
  if (of_scale != nullptr) of_scale[blockIdx.y * tile.n_columns + mine] = total_scale;
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_stats_f32(const float *products, const float *det, const float *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, float floor, float shift, double *row_lows,
        double *row_sums, double *row_volumes, double *column_lows,
        double *column_sums) {
  volume_stats<true>(
      Tile<float>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      shift, {row_lows, row_sums, row_volumes, column_lows, column_sums});
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_stats_f64(const double *products, const double *det, const double *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, double floor, double shift, double *row_lows,
        double *row_sums, double *row_volumes, double *column_lows,
        double *column_sums) {
  volume_stats<true>(
      Tile<double>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      shift, {row_lows, row_sums, row_volumes, column_lows, column_sums});
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_stats_safe_f32(const float *products, const float *det, const float *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, float floor, float shift, double *row_lows,
        double *row_sums, double *row_volumes, double *column_lows,
        double *column_sums) {
  volume_stats<false>(
      Tile<float>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      shift, {row_lows, row_sums, row_volumes, column_lows, column_sums});
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_stats_safe_f64(const double *products, const double *det, const double *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, double floor, double shift, double *row_lows,
        double *row_sums, double *row_volumes, double *column_lows,
        double *column_sums) {
  volume_stats<false>(
      Tile<double>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      shift, {row_lows, row_sums, row_volumes, column_lows, column_sums});
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_slopes_f32(float *products, const float *det, const float *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, float floor, float shift, const float *row_weight,
        const float *row_extra, const float *own_extra, const float *row_shift,
        const float *column_weight, const float *column_shift, double *heights,
        double *of_scale) {
  volume_slopes<true>(
      Tile<float>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      products,
      Slopes<float>{row_weight, row_extra, own_extra, row_shift, column_weight,
                  column_shift, shift},
      heights, of_scale);
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_slopes_f64(double *products, const double *det, const double *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, double floor, double shift, const double *row_weight,
        const double *row_extra, const double *own_extra, const double *row_shift,
        const double *column_weight, const double *column_shift, double *heights,
        double *of_scale) {
  volume_slopes<true>(
      Tile<double>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      products,
      Slopes<double>{row_weight, row_extra, own_extra, row_shift, column_weight,
                  column_shift, shift},
      heights, of_scale);
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps)
    volume_slopes_safe_f32(float *products, const float *det, const float *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, float floor, float shift, const float *row_weight,
        const float *row_extra, const float *own_extra, const float *row_shift,
        const float *column_weight, const float *column_shift, double *heights,
        double *of_scale) {
  volume_slopes<false>(
      Tile<float>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      products,
      Slopes<float>{row_weight, row_extra, own_extra, row_shift, column_weight,
                  column_shift, shift},
      heights, of_scale);
}

extern "C" __global__ void __launch_bounds__(kLanes * kWarps, 2)
    volume_slopes_safe_f64(double *products, const double *det, const double *own,
        size_t n_others, size_t n_rows, size_t n_columns, size_t first_row,
        size_t first_column, double floor, double shift, const double *row_weight,
        const double *row_extra, const double *own_extra, const double *row_shift,
        const double *column_weight, const double *column_shift, double *heights,
        double *of_scale) {
  volume_slopes<false>(
      Tile<double>{products, det, own, n_others, n_rows, n_columns, first_row,
                first_column, floor},
      products,
      Slopes<double>{row_weight, row_extra, own_extra, row_shift, column_weight,
                  column_shift, shift},
      heights, of_scale);
}

// Add the parts of a tile to (low, sum) of each row or column, and to its volumes.
extern "C" __global__ void volume_merge(const double *lows, const double *sums,
                                        const double *volumes, double *low, double *sum,
                                        double *volume, size_t n, size_t n_parts) {
  const size_t place = first_index();
  if (place >= n) return;
  LogSum<double> total = {low[place], sum[place]};
  double more = 0.0;
  for (size_t part = 0; part < n_parts; ++part) {
    const size_t from = part * n + place;
    total = merged(total, LogSum<double>{lows[from], sums[from]});
    if (volumes != nullptr) more += volumes[from];
  }
  low[place] = total.low;
  sum[place] = total.sum;
  if (volumes != nullptr) volume[place] += more;
}
