// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <new>

#include "platform/memory.h"

namespace flashinfer::cpu {

/** 64-byte aligned memory that only grows; one a thread, freed when the thread ends. */
class Scratch {
 public:
  ~Scratch() { platform::AlignedFree(block_); }
  void* Get(size_t bytes) {
    if (bytes <= bytes_) return block_;
    platform::AlignedFree(block_);
    bytes_ = 0;
    block_ = platform::AlignedAlloc(bytes);
    if (block_ == nullptr) throw std::bad_alloc();
    bytes_ = bytes;
    return block_;
  }

 private:
  void* block_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace flashinfer::cpu
