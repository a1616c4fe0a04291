// What several kernels share: macros, rounding that is the same everywhere, indices of a
// grid-stride loop, sums over a block.
//
// Kernels compile three ways, so they keep to a few rules: no header of CUDA or of the
// standard library (NVRTC has none of its own); sizes and offsets are size_t; dynamic
// shared memory comes from NEUROMM_DYNAMIC_SHARED; no thread relies on another of its
// warp having come as far, unless a barrier or a shuffle says so.
//   NVRTC, nvcc   for a GPU
//   g++           after cuda/host/shim.h, for tests on a CPU (NEUROMM_HOST is defined)

#ifndef NEUROMM_COMMON_CUH
#define NEUROMM_COMMON_CUH

#define NEUROMM_DEVICE static __device__ __forceinline__
#define NEUROMM_FULL_WARP 0xffffffffu
#define NEUROMM_WARP 32u

#ifdef NEUROMM_HOST
#define NEUROMM_UNROLL
#define NEUROMM_DYNAMIC_SHARED(type, name) \
  type *name = static_cast<type *>(neuromm_shim::dynamic_shared())
#else
#define NEUROMM_UNROLL _Pragma("unroll")
#define NEUROMM_DYNAMIC_SHARED(type, name)                                   \
  extern __shared__ __align__(16) unsigned char neuromm_dynamic_shared[];    \
  type *name = reinterpret_cast<type *>(neuromm_dynamic_shared)
#endif

// a + b * c with both roundings. A compiler for a GPU would fuse them into one, and a
// result that must equal NumPy's to the last bit would not.
NEUROMM_DEVICE double multiply_then_add(double a, double b, double c) {
#ifdef NEUROMM_HOST
  return a + b * c;  // built with -ffp-contract=off
#else
  return __dadd_rn(a, __dmul_rn(b, c));
#endif
}

NEUROMM_DEVICE size_t first_index() {
  return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

NEUROMM_DEVICE size_t index_stride() {
  return static_cast<size_t>(gridDim.x) * blockDim.x;
}

NEUROMM_DEVICE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// Sum over a block of one dimension, a multiple of 32 threads, given to every thread.
// The order of summation is fixed. `scratch` is shared memory of 32 values; all threads
// must call, and may use it again only after a barrier.
template <typename T>
NEUROMM_DEVICE T block_sum(T value, T *scratch) {
  for (unsigned int step = NEUROMM_WARP / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(NEUROMM_FULL_WARP, value, step);
  if (threadIdx.x % NEUROMM_WARP == 0) scratch[threadIdx.x / NEUROMM_WARP] = value;
  __syncthreads();
  T total = 0;
  for (unsigned int warp = 0; warp < blockDim.x / NEUROMM_WARP; ++warp)
    total += scratch[warp];
  return total;
}

#endif  // NEUROMM_COMMON_CUH
