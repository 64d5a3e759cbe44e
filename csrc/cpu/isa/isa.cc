// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa/isa.h"

#include <atomic>

// Kernels for x86 are built by compilers that take per-file instruction set flags; see csrc/cpu/cpu.cmake.
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_CPU_X86 1
#endif

namespace flashinfer::cpu {
namespace {

constexpr int kUnset = -1;
std::atomic<int> chosen{kUnset};

#ifdef FLASHINFER_CPU_X86
// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool HasAvx512Bf16() { return HasAvx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

std::vector<Isa> Detect() {
  std::vector<Isa> isas;
#ifdef FLASHINFER_CPU_X86
  if (HasAvx512Bf16()) isas.push_back(Isa::kAvx512Bf16);
  if (HasAvx512()) isas.push_back(Isa::kAvx512);
  if (HasAvx2()) isas.push_back(Isa::kAvx2);
#elif defined(__aarch64__)
  isas.push_back(Isa::kNeon);
#endif
  isas.push_back(Isa::kGeneric);
  return isas;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    default:
      return "generic";
  }
}

const std::vector<Isa>& AvailableIsas() {
  static const std::vector<Isa>* isas = new std::vector<Isa>(Detect());
  return *isas;
}

Isa CurrentIsa() {
  const int isa = chosen.load(std::memory_order_relaxed);
  return isa == kUnset ? AvailableIsas().front() : static_cast<Isa>(isa);
}

bool SetIsa(const std::string& name) {
  if (name == "auto") {
    chosen = kUnset;
    return true;
  }
  for (const Isa isa : AvailableIsas()) {
    if (name != IsaName(isa)) continue;
    chosen = static_cast<int>(isa);
    return true;
  }
  return false;
}

std::vector<std::string> CpuFeatures() {
  std::vector<std::string> features;
#ifdef FLASHINFER_CPU_X86
#define FLASHINFER_FEATURE(name) \
  if (__builtin_cpu_supports(name)) features.push_back(name)
  FLASHINFER_FEATURE("avx2");
  FLASHINFER_FEATURE("fma");
  FLASHINFER_FEATURE("f16c");
  FLASHINFER_FEATURE("avx512f");
  FLASHINFER_FEATURE("avx512bw");
  FLASHINFER_FEATURE("avx512dq");
  FLASHINFER_FEATURE("avx512vl");
  FLASHINFER_FEATURE("avx512bf16");
#undef FLASHINFER_FEATURE
#elif defined(__aarch64__)
  features.push_back("neon");
#endif
  return features;
}

}  // namespace flashinfer::cpu
