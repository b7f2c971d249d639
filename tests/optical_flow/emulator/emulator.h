// Runs a CUDA kernel on the CPU. Every thread of the grid is a fiber that goes on until it has to wait: for the other
// lanes of its warp (shuffles), for its block (barriers), or for a packet of another block. Which waits how long is for a
// random schedule to decide, and when what a block stores is seen by the others too.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#define DEVICE inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
using std::max;
using std::min;

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class To, class From>
inline To bits_as(From value) {
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}
inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return bits_as<float>(value); }
inline unsigned long long __double_as_longlong(double value) { return bits_as<unsigned long long>(value); }
inline double __longlong_as_double(unsigned long long value) { return bits_as<double>(value); }
inline void forget(int&) {}
inline float fast_sqrt(float x) { return sqrtf(x); }
inline float fast_reciprocal(float x) { return 1.0f / x; }

namespace emulator {

// ------------------------------------------------------------------ fibers

#if defined(__x86_64__)
using Context = void*;
// Keeps the registers that a function has to keep on its stack, and goes on with another stack.
asm(R"(
.text
.local switch_stack
switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
extern "C" void switch_stack(Context* from, Context* to);
inline void switch_context(Context* from, Context* to) { switch_stack(from, to); }
inline void make_context(Context* context, char* stack, size_t size, void (*entry)()) {
  void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
  *--top = nullptr;  // where `entry` would return to; it does not
  *--top = reinterpret_cast<void*>(entry);
  top -= 6;
  *context = top;
}
#else
}
#include <ucontext.h>
namespace emulator {
using Context = ucontext_t;
inline void switch_context(Context* from, Context* to) { swapcontext(from, to); }
inline void make_context(Context* context, char* stack, size_t size, void (*entry)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = size;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}
#endif

struct Warp {
  unsigned char values[2][32][8];  // of the shuffles, in turns
  int arrived = 0;
  unsigned count = 0;
};

struct Block {
  std::vector<uint64_t> shared;
  int arrived = 0, threads = 0;
  int any = 0, result = 0;  // of __syncthreads_or
};

enum class Waits { no, warp, block, packet, over };

struct Fiber {
  Context context;
  int thread, lane, block;
  Waits waits = Waits::no;
};

struct Grid {
  std::vector<Block> blocks;
  std::vector<Warp> warps;
  std::vector<Fiber> fibers;
  int warps_of_block;
  std::function<void()> kernel;
  std::mt19937 random;
  bool delays_stores;
  // Of each place what was stored there and is not seen yet, oldest first.
  std::map<uint64_t*, std::vector<uint64_t>> hidden;
  long progress = 0;
  long long time = 0;  // nanoseconds; goes on only when nothing else does
};

inline Grid* grid;
inline Fiber* now;
inline Context scheduler;

inline void wait(Waits what) {
  now->waits = what;
  switch_context(&now->context, &scheduler);
}

inline Warp& warp_of(const Fiber& fiber) { return grid->warps[(&fiber - grid->fibers.data()) / 32]; }

inline void wake(Fiber* first, int count, Waits what) {
  for (int k = 0; k < count; k++)
    if (first[k].waits == what) first[k].waits = Waits::no;
}

template <class T>
inline T exchange(T value, int from) {
  static_assert(sizeof(T) <= 8);
  Warp& warp = warp_of(*now);
  unsigned turn = warp.count & 1;
  memcpy(warp.values[turn][now->lane], &value, sizeof value);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.count++;
    grid->progress++;
    wake(now - now->lane, 32, Waits::warp);
  } else {
    wait(Waits::warp);
  }
  T result;
  memcpy(&result, warp.values[turn][from], sizeof result);
  return result;
}

inline int barrier(int value) {
  Block& block = grid->blocks[now->block];
  block.any |= value;
  if (++block.arrived == block.threads) {
    block.result = block.any;
    block.arrived = block.any = 0;
    grid->progress++;
    wake(now - now->thread, block.threads, Waits::block);
  } else {
    wait(Waits::block);
  }
  return block.result;
}

inline void store(uint64_t* at, uint64_t value) {
  grid->progress++;
  if (grid->delays_stores)
    grid->hidden[at].push_back(value);
  else
    *at = value;
}

// Makes some of the hidden stores seen, or all; those to one place in their order.
inline bool reveal(bool all) {
  bool any = false;
  for (auto entry = grid->hidden.begin(); entry != grid->hidden.end();) {
    auto& values = entry->second;
    size_t count = all ? values.size() : grid->random() % (values.size() + 1);
    if (count) *entry->first = values[count - 1], any = true;
    values.erase(values.begin(), values.begin() + count);
    entry = values.empty() ? grid->hidden.erase(entry) : std::next(entry);
  }
  return any;
}

inline void enter() {
  grid->kernel();
  grid->progress++;
  wait(Waits::over);
}

// Runs the lanes of a warp for as long as one of them can. In a random schedule they take their turns in either order.
inline void run_warp(int warp, bool polls) {
  Fiber* lanes = &grid->fibers[(size_t)warp * 32];
  if (polls) wake(lanes, 32, Waits::packet);
  bool backwards = grid->delays_stores && grid->random() % 2;
  for (bool moved = true; moved;) {
    moved = false;
    for (int k = 0; k < 32; k++) {
      Fiber& fiber = lanes[backwards ? 31 - k : k];
      if (fiber.waits != Waits::no) continue;
      moved = true;
      now = &fiber;
      switch_context(&scheduler, &fiber.context);
    }
  }
}

struct Schedule {
  unsigned seed;  // 0: in order, and all stores seen at once
  int absent;     // a block that never runs; -1: none
};

// Runs all blocks of the grid. False where they wait for each other for ever.
inline bool launch(int blocks, int threads, size_t shared_bytes, Schedule schedule, std::function<void()> kernel) {
  const size_t stack_size = 32 << 10;
  Grid here;
  grid = &here;
  here.kernel = kernel;
  here.random.seed(schedule.seed);
  here.delays_stores = schedule.seed != 0;
  here.warps_of_block = threads / 32;
  here.warps.resize((size_t)blocks * here.warps_of_block);
  here.blocks.resize(blocks);
  here.fibers.resize((size_t)blocks * threads);
  std::unique_ptr<char[]> stacks(new char[here.fibers.size() * stack_size]);  // not cleared: that took most of the time
  for (int b = 0; b < blocks; b++) {
    here.blocks[b].shared.assign(shared_bytes / 8 + 2, ~uint64_t(0));  // NaN, in every type: what is not written shows
    here.blocks[b].threads = threads;
    for (int t = 0; t < threads; t++) {
      size_t index = (size_t)b * threads + t;
      Fiber& fiber = here.fibers[index];
      fiber.thread = t, fiber.lane = t % 32, fiber.block = b;
      make_context(&fiber.context, stacks.get() + index * stack_size, stack_size, enter);
    }
  }
  std::vector<int> order;
  for (size_t w = 0; w < here.warps.size(); w++)
    if ((int)w / here.warps_of_block != schedule.absent) order.push_back((int)w);
  auto is_over = [&](int warp) { return here.fibers[(size_t)warp * 32].waits == Waits::over; };
  // In a random schedule one block does not run until the others can do no more without it, then only that, and so on.
  int starved = schedule.seed ? (int)(here.random() % blocks) : -1;
  bool alone = false;
  int idle = 0;
  for (long pass = 0;; pass++) {
    order.erase(std::remove_if(order.begin(), order.end(), is_over), order.end());
    if (order.empty()) return true;
    if (schedule.seed && pass % 8 == 0) std::shuffle(order.begin(), order.end(), here.random);
    long before = here.progress;
    for (int warp : order)
      if (starved < 0 || (warp / here.warps_of_block == starved) == alone) run_warp(warp, true);
    if (schedule.seed && here.random() % 4 == 0) reveal(false);
    if (here.progress != before) {
      idle = 0;
      continue;
    }
    if (reveal(true)) continue;
    idle++;
    if (starved >= 0) {
      if (alone) starved = (int)(here.random() % blocks);
      alone = !alone;
    }
    if (idle > 2 * blocks + 8) {
      here.time += 1000000000;
      starved = -1;
      if (idle > 2 * blocks + 1000) return false;
    }
  }
}

}  // namespace emulator

#define shared_memory \
  reinterpret_cast<unsigned char*>(emulator::grid->blocks[emulator::now->block].shared.data())
#define threadIdx (emulator::Index{emulator::now->thread})
#define blockIdx (emulator::Index{emulator::now->block})
namespace emulator {
struct Index {
  int x;
};
}  // namespace emulator

inline void __syncthreads() { emulator::barrier(0); }
inline int __syncthreads_or(int value) { return emulator::barrier(value); }
template <class T>
inline T __shfl_up_sync(unsigned, T value, int by) {
  int lane = emulator::now->lane;
  return emulator::exchange(value, lane >= by ? lane - by : lane);
}
template <class T>
inline T __shfl_down_sync(unsigned, T value, int by) {
  int lane = emulator::now->lane;
  return emulator::exchange(value, lane + by < 32 ? lane + by : lane);
}
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int by) {
  return emulator::exchange(value, emulator::now->lane ^ by);
}
inline void __syncwarp() { emulator::exchange(0, emulator::now->lane); }
inline unsigned atomicAdd(unsigned* at, unsigned by) {
  unsigned before = *at;
  *at += by;
  return before;
}

struct alignas(16) Packet {
  unsigned value1, tag1, value2, tag2;
};
// Its halves are seen each on its own, as on a GPU.
inline void store_packet(Packet* at, const Packet& packet) {
  uint64_t halves[2];
  memcpy(halves, &packet, sizeof halves);
  for (int k = 0; k < 2; k++) emulator::store(reinterpret_cast<uint64_t*>(at) + k, halves[k]);
}

inline Packet load_packet(const Packet* at) { return *at; }
inline int load_flag(const int* at) { return *at; }
inline void store_flag(int* at) {
  emulator::grid->progress++;
  *at = 1;
}
// Asked for only by who waits: the turn of another.
inline long long nanoseconds() {
  emulator::wait(emulator::Waits::packet);
  return emulator::grid->time;
}
