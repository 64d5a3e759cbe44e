// SPDX-License-Identifier: Apache-2.0
// NVRTC, opened at run time. Declarations follow NVIDIA's "NVRTC" reference; no toolkit is needed to build.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace flashinfer::nvrtc {

using nvrtcProgram = struct _nvrtcProgram*;

#define FLASHINFER_NVRTC_FUNCTIONS(X)                                                                          \
  X(nvrtcGetErrorString, const char*, (int result))                                                            \
  X(nvrtcVersion, int, (int* major, int* minor))                                                               \
  X(nvrtcGetNumSupportedArchs, int, (int* count))                                                              \
  X(nvrtcGetSupportedArchs, int, (int* archs))                                                                 \
  X(nvrtcCreateProgram, int,                                                                                   \
    (nvrtcProgram * program, const char* source, const char* name, int numHeaders, const char* const* headers, \
     const char* const* includeNames))                                                                         \
  X(nvrtcDestroyProgram, int, (nvrtcProgram * program))                                                        \
  X(nvrtcCompileProgram, int, (nvrtcProgram program, int numOptions, const char* const* options))              \
  X(nvrtcGetProgramLogSize, int, (nvrtcProgram program, size_t* size))                                         \
  X(nvrtcGetProgramLog, int, (nvrtcProgram program, char* log))                                                \
  X(nvrtcGetCUBINSize, int, (nvrtcProgram program, size_t* size))                                              \
  X(nvrtcGetCUBIN, int, (nvrtcProgram program, char* cubin))

struct Compiled {
  std::vector<uint8_t> cubin;
  std::string log;
};

/** One libnvrtc; immutable once opened, and usable from any thread. */
struct Library {
  /** Tries `paths`, then the names that the system's search path may have. */
  explicit Library(const std::vector<std::string>& paths);

  /** Throws 'COMPILE' with the log when the source does not compile. */
  Compiled Compile(const std::string& source, const std::string& name, const std::vector<std::string>& options) const;
  /** Throws 'COMPILER_NOT_FOUND' unless ok. */
  void Require() const;

  bool ok = false;
  std::string path;
  std::string version;
  std::string error;
  std::vector<std::string> searched;
  std::vector<int32_t> archs;

 private:
#define X(name, result, params) result(*name) params = nullptr;
  FLASHINFER_NVRTC_FUNCTIONS(X)
#undef X
};

}  // namespace flashinfer::nvrtc
