// Runs kernels on the CPU, for tests: the same .cu that a GPU compiles, with g++.
//
// A .cpp includes this header, then the .cu, then names each kernel:
//
//   #include "cuda/host/shim.h"
//   #include "cuda/encoding/path_sums.cu"
//   NEUROMM_ENTRY(path_sums_f32)
//
// which defines `const char *host_path_sums_f32(launch, arguments)`: null after a launch
// that went well, else what the kernel did wrong. Two schedulers:
//
//   fibers.h   (default) one CUDA thread at a time, in forward, reverse or random order,
//              changing at barriers and shuffles only: a result that depends on the
//              order of threads shows, and so does a barrier that not all reach.
//   threads.h  (-DNEUROMM_THREADS, with -fsanitize=thread) one OS thread a CUDA thread:
//              a missing barrier is reported as a data race.
//
// Shared memory holds the bytes 0xff (nan) when a block starts, so reading what nobody
// wrote shows. Not shown: weak memory ordering, bank conflicts, alignment, speed.

#ifndef NEUROMM_SHIM_H
#define NEUROMM_SHIM_H

#define NEUROMM_HOST 1

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using std::nan;
using std::size_t;
using std::sqrt;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// One block runs at a time, so its static shared memory is static memory, in a section
// of its own that can be poisoned.
#define __shared__ static __attribute__((section("neuromm_shared")))

extern "C" {
extern unsigned char __start_neuromm_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_neuromm_shared[] __attribute__((weak, visibility("hidden")));
}

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
};

namespace neuromm_shim {

enum Schedule { forward = 0, reverse = 1, random = 2 };

// What stands between <<< and >>>, and the order of threads and blocks. Python fills
// it: tests/kernels/cuda_shim.py.
struct Launch {
  unsigned int grid[3], block[3];
  std::uint64_t shared_bytes;
  unsigned int schedule, seed;
};

inline dim3 place(size_t index, const dim3 &size) {
  return {static_cast<unsigned int>(index % size.x),
          static_cast<unsigned int>(index / size.x % size.y),
          static_cast<unsigned int>(index / size.x / size.y)};
}

inline size_t volume(const dim3 &size) { return size_t(size.x) * size.y * size.z; }

// Dynamic shared memory of the running block, with a guard behind it.
class DynamicShared {
 public:
  void prepare(size_t n_bytes) {
    n_bytes_ = n_bytes;
    memory_.resize(n_bytes / sizeof(std::max_align_t) + 1 + kGuard);
    std::memset(memory_.data(), 0xff, n_bytes);
    std::memset(bytes() + n_bytes, kMark, size() - n_bytes);
    if (__start_neuromm_shared != nullptr)
      std::memset(__start_neuromm_shared, 0xff,
                  static_cast<size_t>(__stop_neuromm_shared - __start_neuromm_shared));
  }
  bool guard_is_whole() {
    return std::all_of(bytes() + n_bytes_, bytes() + size(),
                       [](unsigned char byte) { return byte == kMark; });
  }
  unsigned char *bytes() { return reinterpret_cast<unsigned char *>(memory_.data()); }

 private:
  static constexpr size_t kGuard = 16;
  static constexpr unsigned char kMark = 0xa5;
  size_t size() const { return memory_.size() * sizeof(std::max_align_t); }
  size_t n_bytes_ = 0;
  std::vector<std::max_align_t> memory_;
};

inline DynamicShared shared_memory;
inline void *dynamic_shared() { return shared_memory.bytes(); }

}  // namespace neuromm_shim

#ifdef NEUROMM_THREADS
#include "threads.h"
#else
#include "fibers.h"
#endif

#define __syncthreads() neuromm_shim::block_barrier(__LINE__)
#define __syncwarp(mask) neuromm_shim::warp_barrier(mask, __LINE__)
#define __shfl_sync(mask, value, lane) \
  neuromm_shim::shuffle(mask, value, int(lane), __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
  neuromm_shim::shuffle(mask, value, neuromm_shim::lane() ^ int(bits), __LINE__)
#define __shfl_down_sync(mask, value, step) \
  neuromm_shim::shuffle(mask, value, neuromm_shim::lane() + int(step), __LINE__)
#define __shfl_up_sync(mask, value, step) \
  neuromm_shim::shuffle(mask, value, neuromm_shim::lane() - int(step), __LINE__)

template <typename T>
T atomicAdd(T *address, T value) {
  return std::atomic_ref<T>(*address).fetch_add(value);
}

namespace neuromm_shim {

template <typename... Types, size_t... Places>
void call(void (*kernel)(Types...), void **arguments, std::index_sequence<Places...>) {
  kernel(*static_cast<std::remove_cv_t<Types> *>(arguments[Places])...);
}

// kernel<<<grid, block, shared_bytes>>>(arguments...); null or the error.
template <typename... Types>
const char *run(void (*kernel)(Types...), const Launch &launch, void **arguments) {
  static std::string error;
  const dim3 grid{launch.grid[0], launch.grid[1], launch.grid[2]};
  const dim3 block{launch.block[0], launch.block[1], launch.block[2]};
  if (volume(block) > 1024) return "a block has at most 1024 threads";
  gridDim = grid;
  blockDim = block;
  std::vector<size_t> order(volume(grid));
  for (size_t index = 0; index < order.size(); ++index) order[index] = index;
  if (launch.schedule == reverse) std::reverse(order.begin(), order.end());
  std::mt19937 generator(launch.seed);
  if (launch.schedule == random) std::shuffle(order.begin(), order.end(), generator);
  for (const size_t index : order) {
    shared_memory.prepare(launch.shared_bytes);
    error = run_block(place(index, grid), launch, generator, [&] {
      call(kernel, arguments, std::index_sequence_for<Types...>{});
    });
    if (error.empty() && !shared_memory.guard_is_whole())
      error = "dynamic shared memory was written behind its end";
    if (!error.empty()) {
      error = "block " + std::to_string(index) + ": " + error;
      return error.c_str();
    }
  }
  return nullptr;
}

using Entry = const char *(*)(const Launch *, void **);

inline std::vector<std::pair<std::string, Entry>> entries;

struct Registered {
  Registered(const char *name, Entry entry) { entries.emplace_back(name, entry); }
};

}  // namespace neuromm_shim

#define NEUROMM_ENTRY(kernel)                                                      \
  extern "C" const char *host_##kernel(const neuromm_shim::Launch *launch,         \
                                       void **arguments) {                         \
    return neuromm_shim::run(kernel, *launch, arguments);                          \
  }                                                                                \
  static const neuromm_shim::Registered registered_##kernel(#kernel, host_##kernel);

#endif  // NEUROMM_SHIM_H
