// SPDX-License-Identifier: Apache-2.0
// Pinned host memory for copies between JS memory and a device. The owner keeps the device's context current.
#pragma once
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "cuda/driver.h"

namespace flashinfer::cuda {

void* AllocPinned(int device, size_t bytes);

/**
 * Ring that writes pass through: bytes are copied in, the copy to the device is enqueued, and the room is taken back
 * when an event says that the copy is done. Full: waits for the oldest copy. Else the same room serves again as soon as it may:
 * it is in a cache still, which the far end of the ring is not.
 */
class StagingRing {
 public:
  /** Largest piece; several fit, so copying in overlaps with the transfers. */
  static constexpr size_t kMaxPiece = 1 << 20;

  struct Span {
    const uint8_t* data;
    size_t size;
  };

  /**
   * Copies `first`, then `second` (at most kMaxPiece together) to `dst` in stream order; both may change as soon as this
   * returns.
   */
  void Write(int device, CUdeviceptr dst, Span first, Span second, CUstream stream);
  /** Frees everything; the copies must be done. */
  void Destroy() noexcept;

 private:
  static constexpr size_t kCapacity = 8 * kMaxPiece;
  struct Piece {
    size_t begin;
    CUevent done;
  };

  size_t Reserve(int device, size_t bytes);
  void TakeBackDone(int device);
  void TakeBackOldest();

  uint8_t* base_ = nullptr;
  size_t head_ = 0;
  std::deque<Piece> inFlight_;
  std::vector<CUevent> idleEvents_;
};

/** Pinned blocks that reads land in, kept for the next read since pinning costs far more than a small copy. */
class PinnedPool {
 public:
  /** A block of at least `bytes`. */
  void* Acquire(int device, size_t bytes);
  /** Gives a block back; the device must be done with it. */
  void Release(void* block) noexcept;
  void Destroy() noexcept;

 private:
  static constexpr size_t kSmallestBlock = 64 << 10;
  static constexpr size_t kMaxIdleBytes = 64 << 20;

  std::unordered_multimap<size_t, void*> idle_;
  std::unordered_map<void*, size_t> busy_;
  size_t idleBytes_ = 0;
};

}  // namespace flashinfer::cuda
