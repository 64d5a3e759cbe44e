// SPDX-License-Identifier: Apache-2.0
// `packBitsLittle` of NativeCpu: bytes that are zero or not → bits, first element in bit 0.
#include <algorithm>

#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

constexpr int64_t kBytesPerTask = int64_t{1} << 16;

void PackBitsLittle(CpuState&, uint64_t src_address, uint64_t dst_address, uint64_t count) {
  const auto* src = reinterpret_cast<const uint8_t*>(src_address);
  auto* dst = reinterpret_cast<uint8_t*>(dst_address);
  const int64_t elements = static_cast<int64_t>(count), bytes = (elements + 7) / 8;
  const int64_t tasks = (bytes + kBytesPerTask - 1) / kBytesPerTask;
  ThreadPool::Get().ParallelFor(tasks, [=](int64_t task) {
    const int64_t end = std::min(bytes, (task + 1) * kBytesPerTask);
    for (int64_t i = task * kBytesPerTask; i < end; ++i) {
      unsigned bits = 0;
      const int64_t present = std::min<int64_t>(8, elements - i * 8);
      for (int64_t b = 0; b < present; ++b) bits |= (src[i * 8 + b] != 0 ? 1u : 0u) << b;
      dst[i] = static_cast<uint8_t>(bits);
    }
  });
}

}  // namespace

void RegisterPackBits(FunctionTable& table) { table.Add<PackBitsLittle>("packBitsLittle"); }

}  // namespace flashinfer::cpu
