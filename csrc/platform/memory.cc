// SPDX-License-Identifier: Apache-2.0
#include "platform/memory.h"

#include <cstdint>
#include <cstdlib>
#ifdef _WIN32
#include <malloc.h>
#endif

namespace flashinfer::platform {

void* AlignedAlloc(size_t bytes) noexcept {
  if (bytes > SIZE_MAX - kAlignment) return nullptr;
  // aligned_alloc wants a multiple of the alignment; the padding also lets vector code read past a tail.
  const size_t rounded = (bytes + (bytes == 0) + kAlignment - 1) / kAlignment * kAlignment;
#ifdef _WIN32
  return _aligned_malloc(rounded, kAlignment);
#else
  void* ptr = nullptr;
  return posix_memalign(&ptr, kAlignment, rounded) == 0 ? ptr : nullptr;
#endif
}

void AlignedFree(void* ptr) noexcept {
#ifdef _WIN32
  _aligned_free(ptr);
#else
  std::free(ptr);
#endif
}

}  // namespace flashinfer::platform
