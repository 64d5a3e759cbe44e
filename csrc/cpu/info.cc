// SPDX-License-Identifier: Apache-2.0
// Threads and instruction sets of the cpu device: `info`, `setNumThreads`, `setIsa` of NativeCpu.
#include "cpu/entries.h"
#include "cpu/isa/isa.h"

namespace flashinfer::cpu {
namespace {

JsValue Info(CpuState& state) {
  std::vector<std::string> isas;
  for (const Isa isa : AvailableIsas()) isas.push_back(IsaName(isa));
  return ObjectBuilder(state.env)
      .Set("isa", std::string(IsaName(CurrentIsa())))
      .Set("availableIsas", isas)
      .Set("features", CpuFeatures())
      .Set("numThreads", ThreadPool::Get().NumThreads())
      .Set("maxThreads", ThreadPool::MaxThreads());
}

void SetNumThreads(CpuState&, int32_t count) { ThreadPool::Get().SetNumThreads(count); }

void ChooseIsa(CpuState&, std::string name) {
  if (!SetIsa(name)) throw NativeError("INVALID_ARGUMENT", "cpu.setIsa: '" + name + "' is not available here");
}

}  // namespace

void RegisterInfo(FunctionTable& table) {
  table.Add<Info>("info").Add<SetNumThreads>("setNumThreads").Add<ChooseIsa>("setIsa");
}

}  // namespace flashinfer::cpu
