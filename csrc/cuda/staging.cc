// SPDX-License-Identifier: Apache-2.0
#include "cuda/staging.h"

#include <cstring>

namespace flashinfer::cuda {

void* AllocPinned(int device, size_t bytes) {
  void* block;
  FLASHINFER_CU(device, cuMemHostAlloc, &block, bytes, CU_MEMHOSTALLOC_PORTABLE);
  return block;
}

void StagingRing::Write(int device, CUdeviceptr dst, Span first, Span second, CUstream stream) {
  const size_t bytes = first.size + second.size;
  if (base_ == nullptr) base_ = static_cast<uint8_t*>(AllocPinned(device, kCapacity));
  TakeBackDone(device);
  if (idleEvents_.empty()) {
    CUevent event;
    FLASHINFER_CU(device, cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
    idleEvents_.push_back(event);
  }
  const size_t rounded = (bytes + 63) / 64 * 64;  // keeps every piece aligned for the copy engine
  const size_t begin = Reserve(device, rounded);
  if (first.size != 0) std::memcpy(base_ + begin, first.data, first.size);
  if (second.size != 0) std::memcpy(base_ + begin + first.size, second.data, second.size);
  FLASHINFER_CU(device, cuMemcpyHtoDAsync, dst, base_ + begin, bytes, stream);
  const CUevent done = idleEvents_.back();
  FLASHINFER_CU(device, cuEventRecord, done, stream);
  idleEvents_.pop_back();
  inFlight_.push_back({begin, done});
  head_ = begin + rounded;
}

size_t StagingRing::Reserve(int device, size_t bytes) {
  for (;;) {
    if (inFlight_.empty()) return 0;
    // In use: [tail, head), or [tail, capacity) and [0, head) once wrapped. head == tail is never let happen while
    // something is in flight, since it would read as empty.
    const size_t tail = inFlight_.front().begin;
    if (head_ > tail) {
      if (head_ + bytes <= kCapacity) return head_;
      if (bytes < tail) return 0;
    } else if (head_ + bytes < tail) {
      return head_;
    }
    FLASHINFER_CU(device, cuEventSynchronize, inFlight_.front().done);
    TakeBackOldest();
  }
}

void StagingRing::TakeBackDone(int device) {
  while (!inFlight_.empty() && IsDone(inFlight_.front().done, device)) TakeBackOldest();
}

void StagingRing::TakeBackOldest() {
  idleEvents_.push_back(inFlight_.front().done);
  inFlight_.pop_front();
}

void StagingRing::Destroy() noexcept {
  const DriverApi& api = Driver().api;
  for (const Piece& piece : inFlight_) api.cuEventDestroy(piece.done);
  for (const CUevent event : idleEvents_) api.cuEventDestroy(event);
  if (base_ != nullptr) api.cuMemFreeHost(base_);
}

void* PinnedPool::Acquire(int device, size_t bytes) {
  size_t size = kSmallestBlock;
  while (size < bytes) size *= 2;
  if (size > kMaxIdleBytes) size = bytes;  // too large to be kept: do not round up
  void* block;
  const auto idle = idle_.find(size);
  if (idle != idle_.end()) {
    block = idle->second;
    idle_.erase(idle);
    idleBytes_ -= size;
  } else {
    block = AllocPinned(device, size);
  }
  busy_.emplace(block, size);
  return block;
}

void PinnedPool::Release(void* block) noexcept {
  const auto busy = busy_.find(block);
  const size_t size = busy->second;
  busy_.erase(busy);
  if (idleBytes_ + size > kMaxIdleBytes) {
    Driver().api.cuMemFreeHost(block);
    return;
  }
  idle_.emplace(size, block);
  idleBytes_ += size;
}

void PinnedPool::Destroy() noexcept {
  for (const auto& [size, block] : idle_) Driver().api.cuMemFreeHost(block);
  for (const auto& [block, size] : busy_) Driver().api.cuMemFreeHost(block);
}

}  // namespace flashinfer::cuda
