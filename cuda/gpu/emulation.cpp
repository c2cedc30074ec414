#include "gpu/emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace scene3d {
namespace emulation {

Place here;

namespace {

constexpr size_t kStackBytes = 128 << 10;

enum Wait { kRuns, kAtWarp, kAtBlock, kLeft };

struct Fiber {
  ucontext_t entry;
  jmp_buf where;
  std::unique_ptr<char[]> stack;
  bool has_begun;
  Wait wait;
};

struct Meeting {
  const char* what;
  unsigned n_here;
  unsigned sum, last_sum;
  unsigned turn;
  uint32_t values[2][32];
};

std::vector<Fiber> fibers;
std::vector<Meeting> warps;
Meeting whole_block;
jmp_buf scheduler;
const std::function<void()>* body;
unsigned schedule_seed = 0;
std::string fault;

[[noreturn]] void leave_with(const std::string& message) {
  fault = message + " (thread " + std::to_string(here.thread.x) + " of block " + std::to_string(here.block.x) + ")";
  _longjmp(scheduler, 2);
}

void wait_as(Wait wait) {
  Fiber& self = fibers[here.thread.x];
  self.wait = wait;
  if (!_setjmp(self.where)) _longjmp(scheduler, 1);
}

// Joins a meeting of n fibers; true for the last to come.
bool join(Meeting& meeting, unsigned n, const char* what) {
  if (meeting.n_here == 0) meeting.what = what;
  else if (std::strcmp(meeting.what, what)) leave_with(std::string(what) + " meets " + meeting.what);
  return ++meeting.n_here == n;
}

void release(unsigned begin, unsigned end, Wait wait) {
  for (unsigned i = begin; i < end; i++)
    if (fibers[i].wait == wait) fibers[i].wait = kRuns;
}

void run_fiber() {
  (*body)();
  fibers[here.thread.x].wait = kLeft;
  _longjmp(scheduler, 1);
}

void resume(unsigned i) {
  Fiber& fiber = fibers[i];
  here.thread = {i, 0, 0};
  if (_setjmp(scheduler)) return;
  if (fiber.has_begun) _longjmp(fiber.where, 1);
  fiber.has_begun = true;
  setcontext(&fiber.entry);
}

std::vector<unsigned> order_of(unsigned n, unsigned salt) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule_seed == 1) std::reverse(order.begin(), order.end());
  uint64_t state = schedule_seed * 0x9E3779B97F4A7C15ull + salt;
  for (unsigned i = n; schedule_seed > 1 && i > 1; i--) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  return order;
}

void begin_block(unsigned n_threads) {
  for (unsigned i = 0; i < n_threads; i++) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
    fiber.has_begun = false, fiber.wait = kRuns;
    getcontext(&fiber.entry);
    fiber.entry.uc_stack.ss_sp = fiber.stack.get(), fiber.entry.uc_stack.ss_size = kStackBytes;
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, run_fiber, 0);
  }
  whole_block = Meeting{};
  warps.assign(n_threads / 32, Meeting{});
}

void run_block(const char* name, unsigned n_threads, const std::vector<unsigned>& order) {
  begin_block(n_threads);
  for (;;) {
    bool has_moved = false;
    for (unsigned i : order) {
      if (fibers[i].wait != kRuns) continue;
      has_moved = true;
      resume(i);
      if (!fault.empty()) throw std::runtime_error(std::string(name) + ": " + fault);
    }
    if (has_moved) continue;
    const bool all_left = std::all_of(fibers.begin(), fibers.begin() + n_threads, [](const Fiber& f) { return f.wait == kLeft; });
    if (all_left) return;
    throw std::runtime_error(std::string(name) + ": some threads wait at " + (whole_block.n_here ? whole_block.what : "a warp's meeting") +
                             " for others that have left or wait elsewhere");
  }
}

}  // namespace

void set_schedule(unsigned seed) { schedule_seed = seed; }

unsigned meet_block(unsigned value, const char* what) {
  if (join(whole_block, here.block_dim.x, what)) {
    whole_block.last_sum = whole_block.sum + value;
    whole_block.sum = whole_block.n_here = 0;
    release(0, here.block_dim.x, kAtBlock);
  } else {
    whole_block.sum += value;
    wait_as(kAtBlock);
  }
  return whole_block.last_sum;
}

const uint32_t* meet_warp(unsigned mask, uint32_t value, const char* what) {
  if (mask != 0xffffffffu) leave_with(std::string(what) + " of part of a warp");
  const unsigned first = here.thread.x & ~31u;
  Meeting& warp = warps[first / 32];
  // Lanes that come to the next meeting before others have read this one write to the other row of values.
  const unsigned turn = warp.turn;
  warp.values[turn][lane()] = value;
  if (join(warp, 32, what)) {
    warp.n_here = 0;
    warp.turn = 1 - turn;
    release(first, first + 32, kAtWarp);
  } else {
    wait_as(kAtWarp);
  }
  return warp.values[turn];
}

void launch(const char* name, unsigned n_blocks, unsigned n_threads, const std::function<void()>& kernel) {
  if (n_threads == 0 || n_threads > 1024 || n_threads % 32) throw std::runtime_error(std::string(name) + ": not whole warps");
  if (fibers.size() < n_threads) fibers.resize(n_threads);
  body = &kernel;
  fault.clear();
  here = {{0, 0, 0}, {0, 0, 0}, {n_threads, 1, 1}, {n_blocks, 1, 1}};
  const std::vector<unsigned> order = order_of(n_threads, 1);
  for (unsigned block : order_of(n_blocks, 2)) {
    here.block = {block, 0, 0};
    run_block(name, n_threads, order);
  }
}

}  // namespace emulation
}  // namespace scene3d
