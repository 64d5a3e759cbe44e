// SPDX-License-Identifier: Apache-2.0
// One loop, compiled for several instruction sets and chosen at run time. The loop is plain C++ that the compiler
// vectorises; a `Loop` type has `static void Run(args...)` declared FLASHINFER_HOST_DEVICE, so that it is inlined into
// each version below. FMA is left out of the AVX2 version on purpose: see flashinfer/random.cuh on equal bits.
#pragma once

#include "cpu/isa/isa.h"
#include "flashinfer/dtype.cuh"

#if defined(__x86_64__) && defined(__GNUC__)
#define FLASHINFER_X86_VERSIONS 1
#endif

namespace flashinfer::cpu {

template <class Loop, class... Args>
void RunBaseline(Args... args) {
  Loop::Run(args...);
}

#ifdef FLASHINFER_X86_VERSIONS
template <class Loop, class... Args>
__attribute__((target("avx2"))) void RunAvx2(Args... args) {
  Loop::Run(args...);
}

template <class Loop, class... Args>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void RunAvx512(Args... args) {
  Loop::Run(args...);
}
#endif

/** Runs the version for CurrentIsa(). */
template <class Loop, class... Args>
void RunVersion(Args... args) {
#ifdef FLASHINFER_X86_VERSIONS
  switch (CurrentIsa()) {
    case Isa::kAvx512Bf16:
    case Isa::kAvx512:
      return RunAvx512<Loop>(args...);
    case Isa::kAvx2:
      return RunAvx2<Loop>(args...);
    default:
      break;
  }
#endif
  RunBaseline<Loop>(args...);
}

}  // namespace flashinfer::cpu
