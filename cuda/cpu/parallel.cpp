#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace scene3d {
namespace {

// Spins this often before a worker sleeps: a fit calls many short loops in a row, and waking a sleeper costs 50 us.
constexpr int kSpins = 4000;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class Pool {
 public:
  Pool() {
    resize(default_count());
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { inside_ = true; });  // a forked child has no workers: it runs inline
#endif
  }
  ~Pool() { stop(); }

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  void resize(int count) {
    std::lock_guard<std::mutex> owner(owner_);
    stop();
    stopping_ = false;
    // The epoch is read here, not by the new thread: it must take part in every run posted after this line.
    const uint64_t seen = epoch_.load();
    for (int i = 1; i < count; i++) workers_.emplace_back([this, seen] { work(seen); });
  }

  void run(int64_t n_tasks, void (*task)(void*, int64_t), void* context) {
    if (n_tasks <= 0) return;
    if (n_tasks == 1 || workers_.empty() || inside_ || !owner_.try_lock()) {
      for (int64_t i = 0; i < n_tasks; i++) task(context, i);
      return;
    }
    std::lock_guard<std::mutex> owner(owner_, std::adopt_lock);
    inside_ = true;
    task_ = task;
    context_ = context;
    n_tasks_ = n_tasks;
    next_.store(0, std::memory_order_relaxed);
    n_busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    drain();
    for (int spins = 0; n_busy_.load(std::memory_order_acquire) != 0;) {
      if (++spins < kSpins) relax();
      else std::this_thread::yield();
    }
    inside_ = false;
  }

 private:
  static int default_count() {
    if (const char* text = std::getenv("SCENE3D_THREADS")) {
      const int asked = std::atoi(text);
      if (asked > 0) return asked;
    }
    const unsigned n = std::thread::hardware_concurrency();
    return n ? static_cast<int>(n) : 1;
  }

  void drain() {
    for (;;) {
      const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= n_tasks_) return;
      task_(context_, i);
    }
  }

  void work(uint64_t seen) {
    inside_ = true;
    for (;;) {
      int spins = 0;
      while (epoch_.load(std::memory_order_acquire) == seen && !stopping_) {
        if (++spins < kSpins) {
          relax();
          continue;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen || stopping_; });
      }
      if (stopping_) return;
      seen = epoch_.load(std::memory_order_acquire);
      drain();
      n_busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> n_busy_{0};
  std::atomic<bool> stopping_{false};
  int64_t n_tasks_ = 0;
  void (*task_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  static thread_local bool inside_;
};

thread_local bool Pool::inside_ = false;

// Never destroyed: worker threads may outlive static destructors at interpreter exit.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

}  // namespace

int thread_count() { return pool().count(); }
void set_thread_count(int count) { pool().resize(count < 1 ? 1 : count); }
void run_tasks(int64_t n_tasks, void (*task)(void*, int64_t), void* context) { pool().run(n_tasks, task, context); }

}  // namespace scene3d
