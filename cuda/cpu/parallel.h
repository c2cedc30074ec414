// A persistent pool of threads. Work is cut into tasks whose number and order never depend on the number of threads,
// so that whatever a task writes is the same for any thread count; only who runs it changes.
#pragma once
#include <cstdint>

namespace scene3d {

// Threads that take part in a call, the caller included.
int thread_count();

// Sets the number of threads, at least 1. Not to be called from inside a task.
void set_thread_count(int count);

// Runs task(context, index) for every index in [0, n_tasks), in any order, and returns when all are done.
// A call from inside a task runs inline. The first thread that arrives owns the pool; concurrent callers run inline.
void run_tasks(int64_t n_tasks, void (*task)(void* context, int64_t index), void* context);

// Runs f(index) for every index in [0, n_tasks).
template <class F>
void parallel_for(int64_t n_tasks, F&& f) {
  run_tasks(
      n_tasks, [](void* context, int64_t index) { (*static_cast<F*>(context))(index); }, &f);
}

// Runs f(begin, end) on consecutive ranges of at most `grain` items.
template <class F>
void parallel_ranges(int64_t n_items, int64_t grain, F&& f) {
  const int64_t n_tasks = (n_items + grain - 1) / grain;
  parallel_for(n_tasks, [&](int64_t i) {
    const int64_t begin = i * grain;
    f(begin, begin + grain < n_items ? begin + grain : n_items);
  });
}

}  // namespace scene3d
