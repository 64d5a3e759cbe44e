// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace flashinfer::platform {

/** Cache line, AVX-512 vector and TMA descriptor alignment. */
constexpr size_t kAlignment = 64;

/** kAlignment-aligned memory of at least one byte, or nullptr. */
void* AlignedAlloc(size_t bytes) noexcept;
void AlignedFree(void* ptr) noexcept;

}  // namespace flashinfer::platform
