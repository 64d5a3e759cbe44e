// SPDX-License-Identifier: Apache-2.0
// How fast this machine reads memory: the ceiling that benchmarks of the cpu device are compared with.
#include <algorithm>
#include <atomic>
#include <chrono>

#include "cpu/entries.h"
#include "platform/memory.h"

namespace flashinfer::cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kChunkWords = kChunkBytes / 8;

/** Sum of a chunk; independent partial sums keep enough loads in flight to be bound by memory. */
uint64_t SumChunk(const uint64_t* words) {
  constexpr int kLanes = 32;
  uint64_t sums[kLanes] = {};
  for (int64_t i = 0; i < kChunkWords; i += kLanes) {
    for (int lane = 0; lane < kLanes; lane++) sums[lane] += words[i + lane];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

/** Best GB/s of `repetitions` passes over `bytes` (at least one MiB) with the pool's threads. */
double ReadBandwidth(CpuState&, uint64_t bytes, int32_t repetitions) {
  const int64_t chunks = std::max<int64_t>(1, static_cast<int64_t>(bytes) / kChunkBytes);
  auto* words = static_cast<uint64_t*>(platform::AlignedAlloc(static_cast<size_t>(chunks * kChunkBytes)));
  if (!words) throw NativeError("OOM", "cpu.readBandwidth: no memory for the buffer");
  ThreadPool& pool = ThreadPool::Get();
  // Written, not only allocated: untouched pages all map to one page of zeros, which would be read from cache.
  pool.ParallelFor(chunks, [&](int64_t chunk) {
    std::fill_n(words + chunk * kChunkWords, kChunkWords, static_cast<uint64_t>(chunk + 1));
  });

  std::atomic<uint64_t> total{0};
  double bestSeconds = 1e300;
  for (int32_t pass = 0; pass < std::max(1, repetitions); pass++) {
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor(chunks, [&](int64_t chunk) {
      total.fetch_add(SumChunk(words + chunk * kChunkWords), std::memory_order_relaxed);
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    bestSeconds = std::min(bestSeconds, elapsed.count());
  }
  platform::AlignedFree(words);
  // The sum is known; checking it also keeps the reads from being optimised away.
  const uint64_t once = static_cast<uint64_t>(chunks) * (chunks + 1) / 2 * kChunkWords;
  if (total.load() != once * std::max(1, repetitions)) throw NativeError("INTERNAL", "cpu.readBandwidth: wrong sum");
  return static_cast<double>(chunks * kChunkBytes) / bestSeconds / 1e9;
}

}  // namespace

void RegisterBandwidth(FunctionTable& table) { table.Add<ReadBandwidth>("readBandwidth"); }

}  // namespace flashinfer::cpu
