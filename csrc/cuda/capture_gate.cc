// SPDX-License-Identifier: Apache-2.0
#include "cuda/capture_gate.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

namespace flashinfer::cuda {
namespace {

struct Counts {
  int captures = 0, waits = 0;
};

struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<int, Counts> devices;
};

/** Never destroyed: threads of libuv may still leave it when the process ends. */
Gate& TheGate() {
  static Gate& gate = *new Gate;
  return gate;
}

constexpr std::chrono::seconds kLongestCapture{5};

void Leave(int ordinal, int Counts::* count) {
  Gate& gate = TheGate();
  const std::lock_guard<std::mutex> lock(gate.mutex);
  --(gate.devices[ordinal].*count);
  gate.changed.notify_all();
}

}  // namespace

void BeginCapture(int ordinal) {
  Gate& gate = TheGate();
  std::unique_lock<std::mutex> lock(gate.mutex);
  Counts& counts = gate.devices[ordinal];
  gate.changed.wait(lock, [&] { return counts.waits == 0; });
  ++counts.captures;
}

void EndCapture(int ordinal) { Leave(ordinal, &Counts::captures); }

ContextWait::ContextWait(int ordinal) : ordinal_(ordinal) {
  Gate& gate = TheGate();
  std::unique_lock<std::mutex> lock(gate.mutex);
  Counts& counts = gate.devices[ordinal];
  // By this clock: waiting by the steady one takes a function of glibc 2.30.
  const auto end = std::chrono::system_clock::now() + kLongestCapture;
  gate.changed.wait_until(lock, end, [&] { return counts.captures == 0; });
  ++counts.waits;
}

ContextWait::~ContextWait() { Leave(ordinal_, &Counts::waits); }

}  // namespace flashinfer::cuda
