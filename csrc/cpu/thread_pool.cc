// SPDX-License-Identifier: Apache-2.0
#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#ifdef __linux__
#include <sched.h>
#endif

namespace flashinfer::cpu {
namespace {

thread_local bool insideLoop = false;

}  // namespace

struct ThreadPool::Loop {
  Function function;
  void* target;
  int64_t count;
  std::atomic<int64_t> next{0};
  int helpers = 0;  // guarded by the pool's mutex, as is error
  std::exception_ptr error;

  bool HasWork() const { return next.load(std::memory_order_relaxed) < count; }

  std::exception_ptr Work() noexcept {
    insideLoop = true;
    std::exception_ptr failure;
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        function(target, index);
      } catch (...) {
        failure = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
    insideLoop = false;
    return failure;
  }
};

ThreadPool& ThreadPool::Get() {
  static ThreadPool* pool = new ThreadPool;
  return *pool;
}

int ThreadPool::MaxThreads() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

void ThreadPool::Retain() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++environments_;
}

void ThreadPool::Release() {
  std::vector<std::thread> ending;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--environments_ > 0) return;
    stopping_ = true;
    ending.swap(threads_);
  }
  workReady_.notify_all();
  for (std::thread& thread : ending) thread.join();
  const std::lock_guard<std::mutex> lock(mutex_);
  stopping_ = false;
}

int ThreadPool::NumThreads() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return limit_;
}

void ThreadPool::SetNumThreads(int count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  limit_ = std::max(1, count);
}

void ThreadPool::Run(int64_t count, Function function, void* target) {
  if (insideLoop || count <= 1) {
    for (int64_t index = 0; index < count; ++index) function(target, index);
    return;
  }
  Loop loop;
  loop.function = function;
  loop.target = target;
  loop.count = count;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++callers_;
    if (limit_ > 1) {
      StartThreads();
      loops_.push_back(&loop);
    }
  }
  workReady_.notify_all();
  const std::exception_ptr failure = loop.Work();

  std::unique_lock<std::mutex> lock(mutex_);
  loops_.erase(std::remove(loops_.begin(), loops_.end(), &loop), loops_.end());
  loopDone_.wait(lock, [&] { return loop.helpers == 0; });
  --callers_;
  const bool othersWait = !loops_.empty();
  lock.unlock();
  if (othersWait) workReady_.notify_all();
  if (failure) std::rethrow_exception(failure);
  if (loop.error) std::rethrow_exception(loop.error);
}

void ThreadPool::StartThreads() {
  try {
    while (static_cast<int>(threads_.size()) < limit_ - 1) threads_.emplace_back([this] { ThreadMain(); });
  } catch (const std::system_error&) {
    // The system has no more threads to give: those that run, and the caller, do the work.
  }
}

ThreadPool::Loop* ThreadPool::FindLoop() {
  if (callers_ + helpers_ >= limit_) return nullptr;
  Loop* found = nullptr;
  for (Loop* loop : loops_) {
    if (loop->HasWork() && (found == nullptr || loop->helpers < found->helpers)) found = loop;
  }
  return found;
}

void ThreadPool::ThreadMain() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Loop* loop = nullptr;
    workReady_.wait(lock, [&] { return stopping_ || (loop = FindLoop()) != nullptr; });
    if (stopping_) return;
    ++helpers_;
    ++loop->helpers;
    lock.unlock();
    const std::exception_ptr failure = loop->Work();
    lock.lock();
    --helpers_;
    if (failure) loop->error = failure;
    if (--loop->helpers == 0) loopDone_.notify_all();
  }
}

}  // namespace flashinfer::cpu
