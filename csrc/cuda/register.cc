// SPDX-License-Identifier: Apache-2.0
// `NativeCuda` in packages/core/src/native/binding.ts.
#include "register.h"

#include "cuda/state.h"

namespace flashinfer {

Napi::Object RegisterCuda(Napi::Env env) {
  FunctionTable table(env, NewEnvState<cuda::CudaState>(env));
  cuda::AddDeviceFunctions(table);
  cuda::AddMemoryFunctions(table);
  cuda::AddStreamFunctions(table);
  cuda::AddGraphFunctions(table);
  cuda::AddKernelFunctions(table);
  return Napi::Object(env, table.value());
}

}  // namespace flashinfer
