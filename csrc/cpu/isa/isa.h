// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this processor has, and which one the kernels use.
#pragma once
#include <string>
#include <vector>

namespace flashinfer::cpu {

/** Ascending preference within one architecture. */
enum class Isa { kGeneric, kNeon, kAvx2, kAvx512, kAvx512Bf16 };

const char* IsaName(Isa isa);
/** Instruction sets with kernels in this build that this processor runs, best first; kGeneric is always the last. */
const std::vector<Isa>& AvailableIsas();
/** What the kernels use: the best available one, unless SetIsa chose another. */
Isa CurrentIsa();
/** Process-wide; "auto" goes back to the best. Returns false for a name that is not available. */
bool SetIsa(const std::string& name);
/** Names of the processor's features that matter here, e.g. "avx512bw". */
std::vector<std::string> CpuFeatures();

}  // namespace flashinfer::cpu
