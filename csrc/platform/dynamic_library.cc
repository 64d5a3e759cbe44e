// SPDX-License-Identifier: Apache-2.0
#include "platform/dynamic_library.h"

#include <system_error>
#ifdef _WIN32
#include "platform/windows_text.h"
#else
#include <dlfcn.h>
#endif

namespace flashinfer::platform {

#ifdef _WIN32

static void* OpenOne(const std::string& name, std::string* error) {
  // With a full path, the library's own folder serves its dependencies (nvrtc-builtins); ALTERED_SEARCH_PATH needs one.
  const bool absolute = name.find('\\') != std::string::npos || name.find('/') != std::string::npos;
  HMODULE module = LoadLibraryExW(WidenPath(name).c_str(), nullptr, absolute ? LOAD_WITH_ALTERED_SEARCH_PATH : 0);
  if (module == nullptr) *error = std::system_category().message(static_cast<int>(GetLastError()));
  return module;
}

void* DynamicLibrary::Symbol(const char* name) const {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle_), name));
}

std::string DynamicLibrary::Path(void*) const {
  std::wstring path(32768, L'\0');
  path.resize(GetModuleFileNameW(static_cast<HMODULE>(handle_), path.data(), static_cast<DWORD>(path.size())));
  return path.empty() ? name_ : Narrow(path);
}

#else

static void* OpenOne(const std::string& name, std::string* error) {
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) *error = dlerror();
  return handle;
}

void* DynamicLibrary::Symbol(const char* name) const { return dlsym(handle_, name); }

std::string DynamicLibrary::Path(void* symbol) const {
  Dl_info info;
  if (symbol != nullptr && dladdr(symbol, &info) != 0 && info.dli_fname != nullptr) return info.dli_fname;
  return name_;
}

#endif

DynamicLibrary DynamicLibrary::Open(const std::vector<std::string>& candidates, std::vector<std::string>* searched) {
  DynamicLibrary library;
  for (const std::string& name : candidates) {
    std::string error;
    library.handle_ = OpenOne(name, &error);
    library.name_ = name;
    if (library.handle_ != nullptr) {
      searched->push_back(name + ": opened");
      return library;
    }
    // dlerror usually starts with the name already.
    searched->push_back(error.compare(0, name.size(), name) == 0 ? error : name + ": " + error);
  }
  return library;
}

}  // namespace flashinfer::platform
