// SPDX-License-Identifier: Apache-2.0
// One function a folder of csrc/cpu; each adds its entries to the `cpu` object of the addon.
#pragma once
#include "binding/call.h"
#include "cpu/thread_pool.h"

namespace flashinfer::cpu {

/** State of one environment: keeps the process-wide thread pool alive. */
struct CpuState {
  explicit CpuState(napi_env env) : env(env) { ThreadPool::Get().Retain(); }
  ~CpuState() { ThreadPool::Get().Release(); }
  CpuState(const CpuState&) = delete;
  CpuState& operator=(const CpuState&) = delete;

  napi_env env;
};

void RegisterActivation(FunctionTable& table);
void RegisterAttention(FunctionTable& table);
void RegisterBandwidth(FunctionTable& table);
void RegisterElementwise(FunctionTable& table);
void RegisterInfo(FunctionTable& table);
void RegisterMerge(FunctionTable& table);
void RegisterNorm(FunctionTable& table);
void RegisterPackBits(FunctionTable& table);
void RegisterPage(FunctionTable& table);
void RegisterQuantizeFp8(FunctionTable& table);
void RegisterRope(FunctionTable& table);
void RegisterChainSpeculative(FunctionTable& table);
void RegisterSampling(FunctionTable& table);
void RegisterTopK(FunctionTable& table);

}  // namespace flashinfer::cpu
