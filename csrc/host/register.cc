// SPDX-License-Identifier: Apache-2.0
#include "register.h"

namespace flashinfer {

Napi::Object RegisterHost(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  return object;
}

}  // namespace flashinfer
