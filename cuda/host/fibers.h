// Scheduler of shim.h: each CUDA thread of a block is a fiber, and one runs at a time.
//
// A fiber runs until it waits at a barrier or a shuffle. Which one is next is the lowest
// (forward), the highest (reverse) or any (random) of those that can go on. A block in
// which nobody can go on and not all are done has diverged at a barrier: an error.

#ifndef NEUROMM_FIBERS_H
#define NEUROMM_FIBERS_H

#include <ucontext.h>

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace neuromm_shim {

constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kWarp = 32;
constexpr size_t kSlotBytes = 16;

enum class State { ready, at_barrier, at_warp, done };

struct Fiber {
  ucontext_t context;
  State state = State::ready;
  int line = 0;
  unsigned int mask = 0;
  unsigned char slot[kSlotBytes];  // what this lane offers in a shuffle
};

struct Block {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  size_t current = 0;
  std::string error;
  void (*body)(void *) = nullptr;
  void *closure = nullptr;
};

inline Block *running = nullptr;

inline void back_to_scheduler() {
  Fiber &fiber = running->fibers[running->current];
  swapcontext(&fiber.context, &running->scheduler);
}

[[noreturn]] inline void fail(const std::string &error) {
  running->error = "thread " + std::to_string(running->current) + " " + error;
  back_to_scheduler();
  __builtin_unreachable();  // the scheduler gives up the block
}

inline void fiber_main() {
  running->body(running->closure);
  running->fibers[running->current].state = State::done;
  back_to_scheduler();
}

inline void block_barrier(int line) {
  Fiber &fiber = running->fibers[running->current];
  fiber.state = State::at_barrier;
  fiber.line = line;
  auto &fibers = running->fibers;
  if (std::all_of(fibers.begin(), fibers.end(), [line](const Fiber &other) {
        return other.state == State::at_barrier && other.line == line;
      }))
    for (Fiber &other : fibers) other.state = State::ready;
  back_to_scheduler();
}

inline int lane() { return static_cast<int>(running->current % kWarp); }

inline void warp_barrier(unsigned int mask, int line) {
  auto &fibers = running->fibers;
  Fiber &fiber = fibers[running->current];
  const size_t first = running->current / kWarp * kWarp;
  if (!(mask >> lane() & 1u))
    fail("is not in the mask of line " + std::to_string(line));
  fiber.state = State::at_warp;
  fiber.line = line;
  fiber.mask = mask;
  bool complete = true;
  for (size_t other = 0; other < kWarp; ++other) {
    if (!(mask >> other & 1u)) continue;
    if (first + other >= fibers.size() || fibers[first + other].state == State::done)
      fail("waits in line " + std::to_string(line) + " for a lane that is not there");
    const Fiber &member = fibers[first + other];
    complete &= member.state == State::at_warp && member.line == line &&
                member.mask == mask;
  }
  if (complete)
    for (size_t other = 0; other < kWarp; ++other)
      if (mask >> other & 1u) fibers[first + other].state = State::ready;
  back_to_scheduler();
}

// Value that lane `source` offers; one's own if there is no such lane.
template <typename T>
T shuffle(unsigned int mask, T value, int source, int line) {
  static_assert(sizeof(T) <= kSlotBytes);
  auto &fibers = running->fibers;
  std::memcpy(fibers[running->current].slot, &value, sizeof(T));
  warp_barrier(mask, line);
  if (source >= 0 && source < static_cast<int>(kWarp)) {
    if (!(mask >> source & 1u))
      fail("reads a lane outside the mask in line " + std::to_string(line));
    const size_t other = running->current / kWarp * kWarp + source;
    std::memcpy(&value, fibers[other].slot, sizeof(T));
  }
  warp_barrier(mask, line);  // all have read
  return value;
}

inline std::string stuck(const Block &block) {
  for (size_t index = 0; index < block.fibers.size(); ++index) {
    const Fiber &fiber = block.fibers[index];
    if (fiber.state == State::done) continue;
    const char *where = fiber.state == State::at_barrier ? "a barrier" : "its warp";
    return "thread " + std::to_string(index) + " waits at " + where + " in line " +
           std::to_string(fiber.line) + " that not all threads reach";
  }
  return "";
}

// Position of the fiber that runs next; the number of fibers if none can.
inline size_t next_fiber(const Block &block, unsigned int schedule,
                         std::mt19937 &generator) {
  const size_t n = block.fibers.size();
  const size_t start = schedule == random ? generator() % n : 0;
  for (size_t step = 0; step < n; ++step) {
    const size_t index = schedule == reverse ? n - 1 - step : (start + step) % n;
    if (block.fibers[index].state == State::ready) return index;
  }
  return n;
}

template <typename Body>
std::string run_block(const dim3 &index, const Launch &launch, std::mt19937 &generator,
                      Body body) {
  // Stacks are kept from block to block: to map them anew costs more than to run.
  static std::vector<std::unique_ptr<char[]>> stacks;
  Block block;
  running = &block;
  blockIdx = index;
  block.body = [](void *closure) { (*static_cast<Body *>(closure))(); };
  block.closure = &body;
  block.fibers.resize(volume(blockDim));
  while (stacks.size() < block.fibers.size())
    stacks.emplace_back(new char[kStackBytes]);
  for (size_t thread = 0; thread < block.fibers.size(); ++thread) {
    ucontext_t &context = block.fibers[thread].context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[thread].get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
  }
  while (true) {
    const size_t next = next_fiber(block, launch.schedule, generator);
    if (next == block.fibers.size()) return stuck(block);
    block.current = next;
    threadIdx = place(next, blockDim);
    swapcontext(&block.scheduler, &block.fibers[next].context);
    if (!block.error.empty()) return block.error;
  }
}

}  // namespace neuromm_shim

#endif  // NEUROMM_FIBERS_H
