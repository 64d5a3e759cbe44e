// SPDX-License-Identifier: Apache-2.0
#include "nvrtc/nvrtc.h"

#include "binding/error.h"
#include "platform/dynamic_library.h"

namespace flashinfer::nvrtc {
namespace {

constexpr int kSuccess = 0;

std::vector<std::string> Candidates(std::vector<std::string> paths) {
#ifdef _WIN32
  paths.insert(paths.end(), {"nvrtc64_130_0.dll", "nvrtc64_120_0.dll"});
#else
  paths.insert(paths.end(), {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"});
#endif
  return paths;
}

/**
 * NVRTC opens its builtins by bare name at the first compilation, which finds them only in the system's search path.
 * Loading them from libnvrtc's own folder first makes a library opened by its path self-sufficient.
 */
void LoadBuiltins(const std::string& libraryPath, int major, int minor) {
  const size_t slash = libraryPath.find_last_of("/\\");
  if (slash == std::string::npos) return;
#ifdef _WIN32
  const std::string name = "nvrtc-builtins64_" + std::to_string(major) + std::to_string(minor) + ".dll";
#else
  const std::string name = "libnvrtc-builtins.so." + std::to_string(major) + "." + std::to_string(minor);
#endif
  std::vector<std::string> ignored;
  platform::DynamicLibrary::Open({libraryPath.substr(0, slash + 1) + name}, &ignored);
}

/** The first line that names an error: what a person looks for in a long log. */
std::string FirstError(const std::string& log) {
  size_t at = log.find("error");
  if (at == std::string::npos) at = 0;
  const size_t begin = log.rfind('\n', at);
  const size_t from = begin == std::string::npos ? 0 : begin + 1;
  return log.substr(from, log.find('\n', from) - from);
}

}  // namespace

Library::Library(const std::vector<std::string>& paths) {
  const platform::DynamicLibrary library = platform::DynamicLibrary::Open(Candidates(paths), &searched);
  if (!library) {
    error = "no NVRTC library; install the CUDA toolkit's NVRTC, or say where it is (CUDA_HOME)";
    return;
  }
#define X(name, result, params)                                                \
  name = reinterpret_cast<result(*) params>(library.Symbol(#name));            \
  if (name == nullptr) {                                                       \
    error = "the NVRTC library lacks " #name "; CUDA 11.8 or newer is needed"; \
    return;                                                                    \
  }
  FLASHINFER_NVRTC_FUNCTIONS(X)
#undef X
  path = library.Path(reinterpret_cast<void*>(nvrtcVersion));
  int major = 0, minor = 0, numArchs = 0;
  if (nvrtcVersion(&major, &minor) != kSuccess || nvrtcGetNumSupportedArchs(&numArchs) != kSuccess) {
    error = path + " does not answer nvrtcVersion";
    return;
  }
  LoadBuiltins(path, major, minor);
  archs.resize(numArchs);
  nvrtcGetSupportedArchs(archs.data());
  version = std::to_string(major) + "." + std::to_string(minor);
  ok = true;
}

void Library::Require() const {
  if (ok) return;
  std::string tried;
  for (const std::string& line : searched) tried += (tried.empty() ? "" : "; ") + line;
  throw NativeError("COMPILER_NOT_FOUND", error + " (searched " + tried + ")");
}

Compiled Library::Compile(const std::string& source, const std::string& name,
                          const std::vector<std::string>& options) const {
  const auto check = [&](int result, const char* call) {
    if (result == kSuccess) return;
    throw NativeError("COMPILE", name + ": " + call + " failed: " + nvrtcGetErrorString(result), result);
  };
  struct Program {
    const Library& library;
    nvrtcProgram handle = nullptr;
    ~Program() {
      if (handle != nullptr) library.nvrtcDestroyProgram(&handle);
    }
  } program{*this};
  check(nvrtcCreateProgram(&program.handle, source.c_str(), name.c_str(), 0, nullptr, nullptr), "nvrtcCreateProgram");

  std::vector<const char*> optionTexts;
  for (const std::string& option : options) optionTexts.push_back(option.c_str());
  const int result = nvrtcCompileProgram(program.handle, static_cast<int>(optionTexts.size()), optionTexts.data());

  Compiled out;
  size_t size = 0;
  check(nvrtcGetProgramLogSize(program.handle, &size), "nvrtcGetProgramLogSize");
  out.log.resize(size);
  if (size != 0) check(nvrtcGetProgramLog(program.handle, out.log.data()), "nvrtcGetProgramLog");
  while (!out.log.empty() && out.log.back() == '\0') out.log.pop_back();
  if (result != kSuccess) {
    throw NativeError("COMPILE",
                      name + " does not compile (" + nvrtcGetErrorString(result) + "): " + FirstError(out.log), result,
                      out.log);
  }
  check(nvrtcGetCUBINSize(program.handle, &size), "nvrtcGetCUBINSize");
  if (size == 0) {
    throw NativeError("COMPILE", name + ": NVRTC made no cubin; the options need a real architecture (-arch=sm_90a)");
  }
  out.cubin.resize(size);
  check(nvrtcGetCUBIN(program.handle, reinterpret_cast<char*>(out.cubin.data())), "nvrtcGetCUBIN");
  return out;
}

}  // namespace flashinfer::nvrtc
