// SPDX-License-Identifier: Apache-2.0
#include "platform/memory.h"

#include <cstdint>
#include <cstdlib>
#ifdef _WIN32
#include <malloc.h>
#elif defined(__linux__)
#include <sys/mman.h>
#endif

namespace flashinfer::platform {

void* AlignedAlloc(size_t bytes) noexcept {
  if (bytes > SIZE_MAX - kAlignment) return nullptr;
  // aligned_alloc wants a multiple of the alignment; the padding also lets vector code read past a tail.
  const size_t rounded = (bytes + (bytes == 0) + kAlignment - 1) / kAlignment * kAlignment;
#ifdef _WIN32
  return _aligned_malloc(rounded, kAlignment);
#else
  // Attention walks a KV-cache in strides of a page and more: with small pages every row would miss the TLB.
  constexpr size_t kHugePage = size_t{1} << 21;
  const bool huge = rounded >= 4 * kHugePage;
  void* ptr = nullptr;
  if (posix_memalign(&ptr, huge ? kHugePage : kAlignment, rounded) != 0) return nullptr;
#ifdef __linux__
  if (huge) madvise(ptr, rounded, MADV_HUGEPAGE);  // a hint; refused where the kernel has no huge pages
#endif
  return ptr;
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
