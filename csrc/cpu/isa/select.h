// SPDX-License-Identifier: Apache-2.0
// Chooses among the tables of kernels that the files of the instruction sets define.
#pragma once
#include "cpu/isa/isa.h"

namespace flashinfer::cpu {

/** Functions that return a table, or nullptr where this build has no code for the instruction set. */
template <class Kernels>
struct KernelTables {
  const Kernels* (*generic)();
  const Kernels* (*neon)();
  const Kernels* (*avx2)();
  const Kernels* (*avx512)();
};

/** The table for CurrentIsa(); kernels without bfloat16 products use the same AVX-512 for both of its kinds. */
template <class Kernels>
const Kernels& SelectKernels(const KernelTables<Kernels>& tables) {
  const Kernels* kernels = nullptr;
  switch (CurrentIsa()) {
    case Isa::kAvx512Bf16:
    case Isa::kAvx512:
      kernels = tables.avx512();
      break;
    case Isa::kAvx2:
      kernels = tables.avx2();
      break;
    case Isa::kNeon:
      kernels = tables.neon();
      break;
    case Isa::kGeneric:
      break;
  }
  return kernels != nullptr ? *kernels : *tables.generic();
}

}  // namespace flashinfer::cpu
