// SPDX-License-Identifier: Apache-2.0
// Work on a libuv thread behind a Promise. Raw Node-API: the completion must also survive an environment that is being
// torn down (worker.terminate()), where JS cannot be called any more.
#pragma once
#include <memory>

#include "binding/call.h"

namespace flashinfer {

class AsyncTask {
 public:
  virtual ~AsyncTask() = default;
  /** On a libuv thread; no JS. */
  virtual void Execute() = 0;
  /** On the environment's thread after a successful Execute; returns what the Promise resolves to. */
  virtual napi_value Finish(napi_env env) {
    napi_value undefined;
    Check(napi_get_undefined(env, &undefined), "undefined");
    return undefined;
  }
};

/** Queues the task; it is deleted on the environment's thread when done, after Finish. Returns the Promise. */
JsValue StartTask(napi_env env, const char* name, std::unique_ptr<AsyncTask> task);

}  // namespace flashinfer
