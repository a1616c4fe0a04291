// Runs kernels on the CPU, for tests: the same .cu that a GPU compiles, with g++.
//
// Each thread of each block runs to its end before the next one starts, in forward or
// reverse order, so a result that depends on the order shows. Kernels may use threadIdx,
// blockIdx, blockDim and gridDim; a barrier (__syncthreads) or a shuffle needs a
// scheduler that can suspend threads, and does not compile here.

#ifndef NEUROMM_CUDA_SHIM_H
#define NEUROMM_CUDA_SHIM_H

#include <cmath>
#include <cstddef>
#include <stdexcept>

using std::size_t;
using std::sqrt;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__

struct dim3 {
  unsigned int x, y, z;
  dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace neuromm_shim {

inline dim3 place(size_t index, const dim3 &size) {
  return dim3(static_cast<unsigned int>(index % size.x),
              static_cast<unsigned int>(index / size.x % size.y),
              static_cast<unsigned int>(index / size.x / size.y));
}

// kernel<<<grid, block>>>(arguments...), one thread after the other.
template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, dim3 grid, dim3 block, bool reverse, Arguments... arguments) {
  gridDim = grid;
  blockDim = block;
  const size_t per_block = size_t(block.x) * block.y * block.z;
  const size_t n_threads = size_t(grid.x) * grid.y * grid.z * per_block;
  if (per_block > 1024) throw std::invalid_argument("a block has at most 1024 threads");
  for (size_t step = 0; step < n_threads; ++step) {
    const size_t thread = reverse ? n_threads - 1 - step : step;
    blockIdx = place(thread / per_block, grid);
    threadIdx = place(thread % per_block, block);
    kernel(arguments...);
  }
}

}  // namespace neuromm_shim

#endif  // NEUROMM_CUDA_SHIM_H
