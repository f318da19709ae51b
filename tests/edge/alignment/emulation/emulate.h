// Runs a .cu on the CPU: every CUDA thread of a block is a fiber, and one fiber runs at a time until its next barrier.
//
// What it proves: that results do not depend on the order of threads and blocks (a seed permutes both), that barriers
// and shuffles are met by all who must, that shared memory is written before it is read (it is poisoned) and not
// overrun (it is guarded); with -fsanitize=thread, that no two threads touch a byte without a barrier between them.
// What it does not: speed, the limits of a GPU, or anything of nvcc's code.
//
// Kernels use dynamic shared memory only (kernel.cuh); a __shared__ variable does not compile here.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define UNSEEN __attribute__((no_sanitize_thread, noinline))
#else
#define UNSEEN __attribute__((noinline))
#endif

struct uint3 {
  unsigned x, y, z;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace emulate {

constexpr size_t STACK_BYTES = 64 << 10, GUARD_BYTES = 64;
enum State { READY, AT_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
  ucontext_t context;
  jmp_buf resume;
  void* stack;
  void* tsan;
  uint3 index;
  State state;
  bool started;
  unsigned mask;   // of the warp operation that it waits in
  int line;        // of the barrier that it waits at
  unsigned turns;  // warp operations that it has done: two sets of slots take turns
};

static Fiber fibers[1024];
static unsigned long long slots[32][2][32];  // of shuffles: warp, turn, lane
static int threads;
static Fiber* current;
static unsigned char* shared_bytes;
static uint3 block_at, block_of, grid_of;
static void (*kernel)(const void*);
static const void* kernel_params;
static char error[256];
static unsigned random_state;
static unsigned barriers;                       // that the block has passed
static char block_order[2], warp_order[32][2];  // addresses that stand for barriers to TSan, in turns
static char end_order;

UNSEEN static uint3 thread_index() { return current->index; }
UNSEEN static uint3 block_index() { return block_at; }
UNSEEN static uint3 block_size() { return block_of; }
UNSEEN static uint3 grid_size() { return grid_of; }
UNSEEN static int number() { return int(current - fibers); }
UNSEEN static void* shared() { return shared_bytes; }

#ifdef __SANITIZE_THREAD__
// To TSan each fiber is a thread of its own, and switching orders nothing: only barriers and the end do.
static ucontext_t scheduler;
static void* scheduler_tsan;
static void** stacks;
static size_t stack_count;

static void arrive(char* order) { __tsan_release(order); }
static void leave(char* order) { __tsan_acquire(order); }
UNSEEN static void pause() {
  __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
  swapcontext(&current->context, &scheduler);
}
UNSEEN static void run(Fiber* fiber) {
  current = fiber;
  __tsan_switch_to_fiber(fiber->tsan, __tsan_switch_to_fiber_no_sync);
  swapcontext(&scheduler, &fiber->context);
}
#else
static jmp_buf back;

static void arrive(char*) {}
static void leave(char*) {}
UNSEEN static void pause() {  // setjmp, since swapcontext asks the kernel for the signal mask each time
  if (!_setjmp(current->resume)) _longjmp(back, 1);
}
UNSEEN static void run(Fiber* fiber) {
  current = fiber;
  if (_setjmp(back)) return;
  if (fiber->started) _longjmp(fiber->resume, 1);
  fiber->started = true;
  setcontext(&fiber->context);
}
#endif

UNSEEN static void wait(State state, unsigned mask, int line) {
  current->state = state, current->mask = mask, current->line = line;
  pause();
}

UNSEEN static void barrier(int line) {
  char* const order = block_order + barriers % 2;
  arrive(order);
  wait(AT_BARRIER, 0, line);
  leave(order);
}

UNSEEN static void warp_barrier(unsigned mask, int line) {
  char* const order = warp_order[number() / 32] + current->turns++ % 2;
  arrive(order);
  wait(AT_WARP_BARRIER, mask, line);
  leave(order);
}

// Lanes pass values but, as on a GPU, no order of what they wrote to memory. Returns the slots of the warp.
UNSEEN static unsigned long long* exchange(unsigned mask, unsigned long long value, int line) {
  unsigned long long* const slot = slots[number() / 32][current->turns++ % 2];
  slot[number() % 32] = value;
  wait(AT_WARP_BARRIER, mask, line);
  return slot;
}

template <typename T>
UNSEEN static T shuffle(unsigned mask, T value, int from, int line) {
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  const unsigned long long* slot = exchange(mask, bits, line);
  const int lane = from < 0 || from > 31 ? number() % 32 : from;  // out of the warp: one's own value
  __builtin_memcpy(&value, slot + lane, sizeof value);
  return value;
}

UNSEEN static unsigned ballot(unsigned mask, bool is, int line) {
  const unsigned long long* slot = exchange(mask, is, line);
  unsigned found = 0;
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) found |= unsigned(slot[lane] != 0) << lane;
  return found;
}

static void enter() {
  kernel(kernel_params);
  arrive(&end_order);
  wait(DONE, 0, 0);
  abort();  // nobody may resume it; to return would end the process as if all were well
}

static unsigned next_random() {
  random_state ^= random_state << 13, random_state ^= random_state >> 17, random_state ^= random_state << 5;
  return random_state;
}

// Seed 0: ascending; 1: descending; else another order each time.
static void permute(int* order, int count, unsigned seed) {
  for (int k = 0; k < count; k++) order[k] = seed == 1 ? count - 1 - k : k;
  for (int k = count - 1; k > 0 && seed > 1; k--) {
    const int other = int(next_random() % unsigned(k + 1)), kept = order[k];
    order[k] = order[other], order[other] = kept;
  }
}

// Lets every warp go on whose lanes have all arrived at one operation. Returns whether any did.
static bool release_warps() {
  bool any = false;
  for (int t = 0; t < threads; t++) {
    if (fibers[t].state != AT_WARP_BARRIER) continue;
    const int first = t / 32 * 32;
    const unsigned mask = fibers[t].mask;
    bool all = mask >> (t - first) & 1;
    for (int lane = 0; lane < 32 && all; lane++) {
      const Fiber& other = fibers[first + lane];
      if (mask >> lane & 1)
        all = first + lane < threads && other.state == AT_WARP_BARRIER && other.mask == mask &&
              other.line == fibers[t].line;
    }
    for (int lane = 0; lane < 32 && all; lane++)
      if (mask >> lane & 1) fibers[first + lane].state = READY, any = true;
  }
  return any;
}

// Lets the block go on if all its threads wait at one barrier; one that has ended is missed.
static bool release_block() {
  for (int t = 0; t < threads; t++)
    if (fibers[t].state != AT_BARRIER || fibers[t].line != fibers[0].line) return false;
  for (int t = 0; t < threads; t++) fibers[t].state = READY;
  barriers++;
  return true;
}

// Under TSan the stacks of a grid are kept, to be freed at its end; else they serve on.
static void* kept(void* stack) {
#ifdef __SANITIZE_THREAD__
  stacks = static_cast<void**>(realloc(stacks, (stack_count + 1) * sizeof(void*)));
  stacks[stack_count++] = stack;
#endif
  return stack;
}

static void prepare(int t) {
  Fiber& fiber = fibers[t];
#ifdef __SANITIZE_THREAD__
  fiber.stack = nullptr;  // a new one, or TSan would see the last block's thread race on it
#endif
  if (!fiber.stack) fiber.stack = kept(malloc(STACK_BYTES));
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack, fiber.context.uc_stack.ss_size = STACK_BYTES;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
  fiber.state = READY, fiber.started = false, fiber.turns = 0;
  const unsigned x = block_of.x, y = block_of.y, at = unsigned(t);
  fiber.index = {at % x, at / x % y, at / x / y};
#ifdef __SANITIZE_THREAD__
  fiber.tsan = __tsan_create_fiber(0);
#endif
}

static bool run_block(unsigned seed) {
  for (int t = 0; t < threads; t++) prepare(t);
  barriers = 0;
  int order[1024], running = threads;
  while (running) {
    permute(order, threads, seed);
    bool moved = false;
    for (int k = 0; k < threads; k++) {
      Fiber& fiber = fibers[order[k]];
      if (fiber.state != READY) continue;
      run(&fiber);
      moved = true;
      running -= fiber.state == DONE;
    }
    moved |= release_warps();
    if (running && !release_block() && !moved) break;
  }
#ifdef __SANITIZE_THREAD__
  for (int t = 0; t < threads; t++) __tsan_destroy_fiber(fibers[t].tsan);
#endif
  for (int t = 0; t < threads && running; t++)
    if (fibers[t].state != DONE) {
      const uint3 at = fibers[t].index;
      snprintf(
          error, sizeof error,
          "deadlock: thread (%u, %u, %u) of block (%u, %u, %u) waits at line %d for threads that have ended or wait "
          "elsewhere",
          at.x, at.y, at.z, block_at.x, block_at.y, block_at.z, fibers[t].line);
      return false;
    }
  return true;
}

// Runs a grid. Returns nullptr, or what went wrong.
static const char* launch(void (*function)(const void*), const void* params, const unsigned* grid,
                          const unsigned* block, unsigned shared_size, unsigned seed) {
  kernel = function, kernel_params = params, random_state = seed * 2654435761u + 1u, error[0] = 0;
  grid_of = {grid[0], grid[1], grid[2]}, block_of = {block[0], block[1], block[2]};
  threads = int(block_of.x * block_of.y * block_of.z);
  const int blocks = int(grid_of.x * grid_of.y * grid_of.z);
  if (threads < 1 || threads > 1024 || blocks < 1) return "a grid of 1 or more blocks of 1..1024 threads is needed";
#ifdef __SANITIZE_THREAD__
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  const unsigned char poison = seed % 2 ? 0xa5 : 0xff;  // 0xff: NaN, -1
  const size_t size = shared_size + GUARD_BYTES;
  int* order = static_cast<int*>(malloc(size_t(blocks) * sizeof(int)));
  unsigned char** memory = static_cast<unsigned char**>(calloc(size_t(blocks), sizeof(unsigned char*)));
  permute(order, blocks, seed);
  for (int k = 0; k < blocks && !error[0]; k++) {
    const unsigned at = unsigned(order[k]), x = grid_of.x, y = grid_of.y;
    block_at = {at % x, at / x % y, at / x / y};
    // Blocks don't share: fresh memory for each, or TSan would see a race between blocks.
    shared_bytes = memory[k] = static_cast<unsigned char*>(aligned_alloc(16, (size + 15) / 16 * 16));
    memset(shared_bytes, poison, size);
    if (!run_block(seed)) break;
    for (size_t b = shared_size; b < size && !error[0]; b++)
      if (shared_bytes[b] != poison) snprintf(error, sizeof error, "shared memory is overrun at byte %zu", b);
#ifndef __SANITIZE_THREAD__
    free(memory[k]), memory[k] = nullptr;
#endif
  }
  leave(&end_order);  // only now: blocks are ordered by nothing but the end of the grid
#ifdef __SANITIZE_THREAD__
  while (stack_count) free(stacks[--stack_count]);
#endif
  for (int k = 0; k < blocks; k++) free(memory[k]);
  free(memory), free(order);
  return error[0] ? error : nullptr;
}

}  // namespace emulate

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __syncthreads() emulate::barrier(__LINE__)
#define __syncwarp(mask) emulate::warp_barrier(mask, __LINE__)
#define __shfl_sync(mask, value, lane) emulate::shuffle(mask, value, (lane) % 32, __LINE__)
#define __shfl_up_sync(mask, value, by) emulate::shuffle(mask, value, emulate::number() % 32 - (by), __LINE__)
#define __shfl_down_sync(mask, value, by) emulate::shuffle(mask, value, emulate::number() % 32 + (by), __LINE__)
#define __shfl_xor_sync(mask, value, by) emulate::shuffle(mask, value, (emulate::number() % 32) ^ (by), __LINE__)
#define __ballot_sync(mask, is) emulate::ballot(mask, is, __LINE__)
#define __any_sync(mask, is) (emulate::ballot(mask, is, __LINE__) != 0)
#define threadIdx (emulate::thread_index())
#define blockIdx (emulate::block_index())
#define blockDim (emulate::block_size())
#define gridDim (emulate::grid_size())

template <typename T>
static inline T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
static inline T max(T a, T b) {
  return a < b ? b : a;
}
template <typename To, typename From>
static inline To bits_as(From from) {
  To to;
  static_assert(sizeof to == sizeof from, "as many bits");
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __int_as_float(int bits) { return bits_as<float>(bits); }
static inline float __uint_as_float(unsigned bits) { return bits_as<float>(bits); }
static inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline unsigned __brev(unsigned bits) {
  unsigned turned = 0;
  for (int k = 0; k < 32; k++) turned |= (bits >> k & 1) << (31 - k);
  return turned;
}
static inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
  unsigned long long old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
static inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
template <typename T>
static inline T* block_shared() {
  return static_cast<T*>(emulate::shared());
}
static inline unsigned short half_bits(float value) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  unsigned half;
  if (size > 0x7f800000u)
    half = 0x7fffu;  // not a number
  else if (size >= 0x477ff000u)
    half = 0x7c00u;  // 65520 and above
  else if (size < 0x38800000u)
    half = unsigned(rintf(fabsf(value) * 16777216.0f));  // below the least normal one: steps of 2^-24
  else
    half = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
  return static_cast<unsigned short>(sign | half);
}
