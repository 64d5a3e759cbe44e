// SPDX-License-Identifier: Apache-2.0
// Registration table only. The names are described in packages/core/src/native/binding.ts.
#include <napi.h>

#include "register.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", FLASHINFER_VERSION);
  exports.Set("host", flashinfer::RegisterHost(env));
  exports.Set("cpu", flashinfer::RegisterCpu(env));
  exports.Set("cuda", flashinfer::RegisterCuda(env));
  exports.Set("nvrtc", flashinfer::RegisterNvrtc(env));
  return exports;
}

NODE_API_MODULE(flashinfer, Init)
