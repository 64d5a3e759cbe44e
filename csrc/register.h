// SPDX-License-Identifier: Apache-2.0
// One function a folder; each returns the object that packages/core/src/native/binding.ts describes.
#pragma once
#include <napi.h>

namespace flashinfer {

Napi::Object RegisterHost(Napi::Env env);
Napi::Object RegisterCpu(Napi::Env env);
Napi::Object RegisterCuda(Napi::Env env);
Napi::Object RegisterNvrtc(Napi::Env env);

}  // namespace flashinfer
