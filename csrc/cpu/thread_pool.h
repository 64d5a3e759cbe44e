// SPDX-License-Identifier: Apache-2.0
// The process-wide threads of the cpu device. Several environments (worker_threads) may call at once: callers work on
// their own loop, and pool threads join in only while callers and pool threads together stay within the limit.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace flashinfer::cpu {

class ThreadPool {
 public:
  /** Never destroyed: its threads are joined when the last environment ends (Release). */
  static ThreadPool& Get();

  /** One environment began or ended to use the pool. The last one to leave joins the threads. */
  void Retain();
  void Release();

  /** Threads that may compute at the same time, callers included. */
  int NumThreads();
  void SetNumThreads(int count);
  /** Cores this process may run on; the initial limit. */
  static int MaxThreads();

  /**
   * Calls body(index) once for every index in [0, count), in about ascending order, and returns when all are done; an
   * exception of a body is rethrown. The indices must be independent; a loop inside a body runs serially.
   */
  template <class Body>
  void ParallelFor(int64_t count, Body&& body) {
    using Target = std::remove_reference_t<Body>;
    Run(
        count, [](void* target, int64_t index) { (*static_cast<Target*>(target))(index); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  struct Loop;
  using Function = void (*)(void* target, int64_t index);

  ThreadPool() : limit_(MaxThreads()) {}
  void Run(int64_t count, Function function, void* target);
  void StartThreads();
  void ThreadMain();
  Loop* FindLoop();

  std::mutex mutex_;
  std::condition_variable workReady_;
  std::condition_variable loopDone_;
  std::vector<std::thread> threads_;
  std::vector<Loop*> loops_;
  int limit_;
  int callers_ = 0;
  int helpers_ = 0;
  int environments_ = 0;
  bool stopping_ = false;
};

}  // namespace flashinfer::cpu
