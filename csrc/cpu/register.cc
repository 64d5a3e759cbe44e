// SPDX-License-Identifier: Apache-2.0
// Registration table of the cpu device only.
#include "register.h"

#include "cpu/entries.h"

namespace flashinfer {

Napi::Object RegisterCpu(Napi::Env env) {
  FunctionTable table(env, NewEnvState<cpu::CpuState>(env));
  cpu::RegisterActivation(table);
  cpu::RegisterAttention(table);
  cpu::RegisterBandwidth(table);
  cpu::RegisterElementwise(table);
  cpu::RegisterInfo(table);
  cpu::RegisterMerge(table);
  cpu::RegisterNorm(table);
  cpu::RegisterPackBits(table);
  cpu::RegisterPage(table);
  cpu::RegisterQuantizeFp8(table);
  cpu::RegisterRope(table);
  cpu::RegisterChainSpeculative(table);
  cpu::RegisterSampling(table);
  cpu::RegisterTopK(table);
  return Napi::Object(env, table.value());
}

}  // namespace flashinfer
