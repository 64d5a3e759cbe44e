// SPDX-License-Identifier: Apache-2.0
// `NativeNvrtc` in packages/core/src/native/binding.ts.
#include "register.h"

#include <map>

#include "binding/async_task.h"
#include "nvrtc/nvrtc.h"

namespace flashinfer {
namespace {

using nvrtc::Compiled;
using nvrtc::Library;

struct NvrtcState {
  explicit NvrtcState(napi_env env) : env(env) {}

  napi_env env;
  std::map<std::vector<std::string>, std::shared_ptr<const Library>> probed;
  /** The last library that was found: what compiles. Shared with running AsyncTasks. */
  std::shared_ptr<const Library> current;
};

const Library& Open(NvrtcState& state, const std::vector<std::string>& paths) {
  std::shared_ptr<const Library>& library = state.probed[paths];
  if (!library) library = std::make_shared<const Library>(paths);
  if (library->ok || !state.current) state.current = library;
  return *library;
}

JsValue Probe(NvrtcState& state, JsValue paths) {
  const Library& library = Open(state, ArrayFromJs<std::string>(state.env, paths.value));
  ObjectBuilder out(state.env);
  out.Set("ok", library.ok).Set("searched", library.searched);
  if (library.ok) {
    out.Set("library", library.path).Set("version", library.version).Set("archs", library.archs);
  } else {
    out.Set("error", library.error);
  }
  return out;
}

std::shared_ptr<const Library> Current(NvrtcState& state) {
  if (!state.current) Open(state, {});
  state.current->Require();
  return state.current;
}

napi_value CompiledToJs(napi_env env, const Compiled& compiled) {
  return ObjectBuilder(env)
      .Set("cubin", BytesToJs(env, compiled.cubin.data(), compiled.cubin.size()))
      .Set("log", compiled.log)
      .value();
}

JsValue CompileSync(NvrtcState& state, std::string source, std::string name, JsValue options) {
  const auto library = Current(state);
  const Compiled compiled = library->Compile(source, name, ArrayFromJs<std::string>(state.env, options.value));
  return JsValue{CompiledToJs(state.env, compiled)};
}

class CompileTask : public AsyncTask {
 public:
  CompileTask(std::shared_ptr<const Library> library, std::string source, std::string name,
              std::vector<std::string> options)
      : library_(std::move(library)),
        source_(std::move(source)),
        name_(std::move(name)),
        options_(std::move(options)) {}
  void Execute() override { compiled_ = library_->Compile(source_, name_, options_); }
  napi_value Finish(napi_env env) override { return CompiledToJs(env, compiled_); }

 private:
  std::shared_ptr<const Library> library_;
  std::string source_;
  std::string name_;
  std::vector<std::string> options_;
  Compiled compiled_;
};

JsValue Compile(NvrtcState& state, std::string source, std::string name, JsValue options) {
  return StartTask(state.env, "flashinfer:compile",
                   std::make_unique<CompileTask>(Current(state), std::move(source), std::move(name),
                                                 ArrayFromJs<std::string>(state.env, options.value)));
}

}  // namespace

Napi::Object RegisterNvrtc(Napi::Env env) {
  FunctionTable table(env, NewEnvState<NvrtcState>(env));
  table.Add<Probe>("probe").Add<CompileSync>("compileSync").Add<Compile>("compile");
  return Napi::Object(env, table.value());
}

}  // namespace flashinfer
