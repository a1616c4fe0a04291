// Scheduler of shim.h: each CUDA thread of a block is a thread of the system, for
// ThreadSanitizer. Shuffles take a whole warp here.

#ifndef NEUROMM_THREADS_H
#define NEUROMM_THREADS_H

#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <thread>

static thread_local dim3 threadIdx;
static dim3 blockIdx, blockDim, gridDim;

namespace neuromm_shim {

constexpr size_t kWarp = 32;
constexpr size_t kSlotBytes = 16;

struct Warp {
  std::unique_ptr<std::barrier<>> barrier;
  size_t n_lanes;
  unsigned char slots[kWarp][kSlotBytes];
};

struct Block {
  std::unique_ptr<std::barrier<>> barrier;
  std::vector<Warp> warps;
};

inline Block *running = nullptr;

inline size_t thread_number() {
  return threadIdx.x + blockDim.x * (threadIdx.y + size_t(blockDim.y) * threadIdx.z);
}

inline int lane() { return static_cast<int>(thread_number() % kWarp); }

inline Warp &own_warp() { return running->warps[thread_number() / kWarp]; }

inline void block_barrier(int) { running->barrier->arrive_and_wait(); }

inline void warp_barrier(unsigned int mask, int line) {
  Warp &warp = own_warp();
  if (warp.n_lanes != kWarp || mask != 0xffffffffu) {
    std::fprintf(stderr, "line %d: threads.h knows whole warps only\n", line);
    std::abort();
  }
  warp.barrier->arrive_and_wait();
}

template <typename T>
T shuffle(unsigned int mask, T value, int source, int line) {
  static_assert(sizeof(T) <= kSlotBytes);
  Warp &warp = own_warp();
  std::memcpy(warp.slots[lane()], &value, sizeof(T));
  warp_barrier(mask, line);
  if (source >= 0 && source < static_cast<int>(kWarp))
    std::memcpy(&value, warp.slots[source], sizeof(T));
  warp_barrier(mask, line);
  return value;
}

template <typename Body>
std::string run_block(const dim3 &index, const Launch &, std::mt19937 &, Body body) {
  const size_t n_threads = volume(blockDim);
  Block block;
  block.barrier = std::make_unique<std::barrier<>>(std::ptrdiff_t(n_threads));
  block.warps.resize((n_threads + kWarp - 1) / kWarp);
  for (size_t warp = 0; warp < block.warps.size(); ++warp) {
    block.warps[warp].n_lanes = std::min(kWarp, n_threads - warp * kWarp);
    block.warps[warp].barrier = std::make_unique<std::barrier<>>(
        std::ptrdiff_t(block.warps[warp].n_lanes));
  }
  running = &block;
  blockIdx = index;
  std::vector<std::thread> threads;
  for (size_t number = 0; number < n_threads; ++number)
    threads.emplace_back([&, number] {
      threadIdx = place(number, blockDim);
      body();
      // Who is done is waited for no longer.
      block.barrier->arrive_and_drop();
      own_warp().barrier->arrive_and_drop();
    });
  for (std::thread &thread : threads) thread.join();
  return "";
}

}  // namespace neuromm_shim

#endif  // NEUROMM_THREADS_H
