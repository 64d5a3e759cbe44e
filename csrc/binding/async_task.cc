// SPDX-License-Identifier: Apache-2.0
#include "binding/async_task.h"

#include <optional>

namespace flashinfer {
namespace {

struct Work {
  std::unique_ptr<AsyncTask> task;
  napi_async_work handle = nullptr;
  napi_deferred deferred = nullptr;
  std::optional<NativeError> error;
};

void Execute(napi_env, void* data) noexcept {
  auto* work = static_cast<Work*>(data);
  try {
    work->task->Execute();
  } catch (const NativeError& error) {
    work->error = error;
  } catch (const std::exception& error) {
    work->error = NativeError("INTERNAL", error.what());
  }
}

void Settle(napi_env env, Work& work) {
  try {
    if (!work.error) {
      napi_resolve_deferred(env, work.deferred, work.task->Finish(env));
      return;
    }
  } catch (const NativeError& error) {
    work.error = error;
  }
  napi_reject_deferred(env, work.deferred, ErrorToJs(env, *work.error));
}

void Complete(napi_env env, napi_status status, void* data) noexcept {
  const std::unique_ptr<Work> work(static_cast<Work*>(data));
  if (status == napi_ok) {
    try {
      Settle(env, *work);
    } catch (const NativeError&) {
      // The environment is ending; nobody waits for the Promise.
    }
  }
  napi_delete_async_work(env, work->handle);
}

}  // namespace

JsValue StartTask(napi_env env, const char* name, std::unique_ptr<AsyncTask> task) {
  auto work = std::make_unique<Work>();
  work->task = std::move(task);
  napi_value promise;
  Check(napi_create_promise(env, &work->deferred, &promise), "a Promise");
  Check(
      napi_create_async_work(env, nullptr, ToJs(env, std::string(name)), Execute, Complete, work.get(), &work->handle),
      "async work");
  Check(napi_queue_async_work(env, work->handle), "async work");
  work.release();
  return JsValue{promise};
}

}  // namespace flashinfer
