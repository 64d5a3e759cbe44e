// SPDX-License-Identifier: Apache-2.0
// Stream capture and graphs.
#include "cuda/capture_gate.h"
#include "cuda/state.h"

namespace flashinfer::cuda {
namespace {

void CaptureBegin(CudaState& state, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  // The stricter modes refuse memory of any stream, pinned or not, and module loading meanwhile, in this thread or in
  // all. What a replay could not repeat on this stream is refused in TypeScript, with a better message.
  const int ordinal = stream.device->ordinal;
  BeginCapture(ordinal);
  const CUresult result = Api().cuStreamBeginCapture(stream.handle, CU_STREAM_CAPTURE_MODE_RELAXED);
  if (result != CUDA_SUCCESS) EndCapture(ordinal);
  CheckResult(result, "cuStreamBeginCapture", ordinal);
  state.activeCaptures++;
}

Ptr CaptureEnd(CudaState& state, Ptr streamPtr) {
  const Stream stream = state.UseStream(streamPtr);
  if (!state.IsCapturing(stream)) {
    throw NativeError("INVALID_POINTER",
                      "cuda.captureEnd: stream " + std::to_string(streamPtr) + " is not being captured");
  }
  CUgraph graph = nullptr;
  const CUresult result = Api().cuStreamEndCapture(stream.handle, &graph);
  EndCapture(stream.device->ordinal);
  if (--state.activeCaptures == 0) FreeDeferred(state);
  CheckResult(result, "cuStreamEndCapture", stream.device->ordinal);
  state.graphs[AsPtr(graph)] = stream.device;
  return AsPtr(graph);
}

Ptr GraphInstantiate(CudaState& state, int32_t, Ptr graph) {
  Device& device = state.UseHandle(state.graphs, "graph", graph);
  CUgraphExec exec = nullptr;
  // Memory that was allocated inside the capture and kept (an output) is allocated anew by each launch.
  FLASHINFER_CU(device.ordinal, cuGraphInstantiateWithFlags, &exec, AsHandle<CUgraph>(graph),
                CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
  state.graphExecs[AsPtr(exec)] = &device;
  return AsPtr(exec);
}

void GraphLaunch(CudaState& state, Ptr exec, Ptr streamPtr) {
  const Device& device = state.UseHandle(state.graphExecs, "graph executable", exec);
  const Stream& stream = state.UseStream(streamPtr);
  FLASHINFER_CU(device.ordinal, cuGraphLaunch, AsHandle<CUgraphExec>(exec), stream.handle);
}

double GraphNodeCount(CudaState& state, Ptr graph) {
  const Device& device = state.UseHandle(state.graphs, "graph", graph);
  size_t count = 0;
  FLASHINFER_CU(device.ordinal, cuGraphGetNodes, AsHandle<CUgraph>(graph), nullptr, &count);
  return static_cast<double>(count);
}

void GraphDestroy(CudaState& state, Ptr graph) {
  const Device& device = state.UseHandle(state.graphs, "graph", graph);
  state.graphs.erase(graph);
  FLASHINFER_CU(device.ordinal, cuGraphDestroy, AsHandle<CUgraph>(graph));
}

void GraphExecDestroy(CudaState& state, Ptr exec) {
  const Device& device = state.UseHandle(state.graphExecs, "graph executable", exec);
  state.graphExecs.erase(exec);
  FLASHINFER_CU(device.ordinal, cuGraphExecDestroy, AsHandle<CUgraphExec>(exec));
}

}  // namespace

void AddGraphFunctions(FunctionTable& table) {
  table.Add<CaptureBegin>("captureBegin")
      .Add<CaptureEnd>("captureEnd")
      .Add<GraphInstantiate>("graphInstantiate")
      .Add<GraphLaunch>("graphLaunch")
      .Add<GraphNodeCount>("graphNodeCount")
      .Add<GraphDestroy>("graphDestroy")
      .Add<GraphExecDestroy>("graphExecDestroy");
}

}  // namespace flashinfer::cuda
