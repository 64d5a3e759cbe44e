// SPDX-License-Identifier: Apache-2.0
// Streams and events.
#include <algorithm>

#include "binding/async_task.h"
#include "cuda/state.h"

namespace flashinfer::cuda {
namespace {

Ptr StreamCreate(CudaState& state, int32_t ordinal, int32_t priority) {
  Device& device = state.Use(ordinal);
  CUstream stream;
  FLASHINFER_CU(ordinal, cuStreamCreateWithPriority, &stream, CU_STREAM_NON_BLOCKING, priority);
  state.streams.push_back({stream, &device});
  return AsPtr(stream);
}

/** Orders the default stream after all work of `stream`, so that memory last used there can be freed here. */
void HandWorkToDefaultStream(const Stream& stream) {
  const Event end(*stream.device, CU_EVENT_DISABLE_TIMING);
  FLASHINFER_CU(stream.device->ordinal, cuEventRecord, end.handle, stream.handle);
  FLASHINFER_CU(stream.device->ordinal, cuStreamWaitEvent, stream.device->defaultStream, end.handle, 0);
}

void StreamDestroy(CudaState& state, Ptr streamPtr) {
  const Stream stream = state.UseStream(streamPtr);
  const int ordinal = stream.device->ordinal;
  if (stream.handle == stream.device->defaultStream) {
    throw NativeError("INVALID_POINTER", "cuda.streamDestroy: the default stream lives as long as its thread");
  }
  state.RefuseCapture(stream, "cuda.streamDestroy", "end the capture first");
  if (state.IsCapturing({stream.device->defaultStream, stream.device})) {
    FLASHINFER_CU(ordinal, cuStreamSynchronize, stream.handle);
  } else {
    HandWorkToDefaultStream(stream);
  }
  state.streams.erase(std::find_if(state.streams.begin(), state.streams.end(),
                                   [&](const Stream& s) { return s.handle == stream.handle; }));
  FLASHINFER_CU(ordinal, cuStreamDestroy, stream.handle);
}

void StreamSynchronize(CudaState& state, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  FLASHINFER_CU(stream.device->ordinal, cuStreamSynchronize, stream.handle);
}

class EventTask : public AsyncTask {
 public:
  explicit EventTask(std::shared_ptr<Event> event) : event_(std::move(event)) {}
  void Execute() override {
    const ScopedContext context(event_->device);
    FLASHINFER_CU(event_->device.ordinal, cuEventSynchronize, event_->handle);
  }

 private:
  std::shared_ptr<Event> event_;
};

/** Waits for what the stream holds now, through an event: the stream itself may be destroyed meanwhile. */
JsValue StreamSynchronizeAsync(CudaState& state, int32_t ordinal, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  state.RefuseCapture(stream, "cuda.streamSynchronizeAsync", "end the capture first");
  auto event = std::make_shared<Event>(*stream.device, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
  FLASHINFER_CU(ordinal, cuEventRecord, event->handle, stream.handle);
  return StartTask(state.env, "flashinfer:streamSynchronize", std::make_unique<EventTask>(std::move(event)));
}

void StreamWaitEvent(CudaState& state, Ptr streamPtr, Ptr eventPtr) {
  const std::shared_ptr<Event>& event = state.FindEvent(eventPtr);
  const Stream& stream = state.UseStream(streamPtr);
  FLASHINFER_CU(stream.device->ordinal, cuStreamWaitEvent, stream.handle, event->handle, 0);
}

bool StreamIsCapturing(CudaState& state, Ptr streamPtr) { return state.IsCapturing(state.UseStream(streamPtr)); }

Ptr EventCreate(CudaState& state, int32_t ordinal, bool timing, bool interrupts) {
  const unsigned int flags = (interrupts ? CU_EVENT_BLOCKING_SYNC : 0) | (timing ? 0 : CU_EVENT_DISABLE_TIMING);
  auto event = std::make_shared<Event>(state.Use(ordinal), flags);
  const Ptr ptr = AsPtr(event->handle);
  state.events[ptr] = std::move(event);
  return ptr;
}

void EventDestroy(CudaState& state, Ptr event) {
  state.FindEvent(event);
  state.events.erase(event);
}

void EventRecord(CudaState& state, Ptr eventPtr, Ptr streamPtr) {
  const std::shared_ptr<Event>& event = state.FindEvent(eventPtr);
  const Stream& stream = state.UseStream(streamPtr);
  FLASHINFER_CU(stream.device->ordinal, cuEventRecord, event->handle, stream.handle);
}

bool EventQuery(CudaState& state, Ptr eventPtr) {
  const std::shared_ptr<Event>& event = state.FindEvent(eventPtr);
  return IsDone(event->handle, event->device.ordinal);
}

void EventSynchronize(CudaState& state, Ptr eventPtr) {
  const std::shared_ptr<Event>& event = state.FindEvent(eventPtr);
  FLASHINFER_CU(event->device.ordinal, cuEventSynchronize, event->handle);
}

JsValue EventSynchronizeAsync(CudaState& state, int32_t, Ptr eventPtr) {
  return StartTask(state.env, "flashinfer:eventSynchronize", std::make_unique<EventTask>(state.FindEvent(eventPtr)));
}

double EventElapsedMs(CudaState& state, Ptr startPtr, Ptr endPtr) {
  const std::shared_ptr<Event>& start = state.FindEvent(startPtr);
  const std::shared_ptr<Event>& end = state.FindEvent(endPtr);
  float ms = 0;
  FLASHINFER_CU(end->device.ordinal, cuEventElapsedTime, &ms, start->handle, end->handle);
  return ms;
}

}  // namespace

void AddStreamFunctions(FunctionTable& table) {
  table.Add<StreamCreate>("streamCreate")
      .Add<StreamDestroy>("streamDestroy")
      .Add<StreamSynchronize>("streamSynchronize")
      .Add<StreamSynchronizeAsync>("streamSynchronizeAsync")
      .Add<StreamWaitEvent>("streamWaitEvent")
      .Add<StreamIsCapturing>("streamIsCapturing")
      .Add<EventCreate>("eventCreate")
      .Add<EventDestroy>("eventDestroy")
      .Add<EventRecord>("eventRecord")
      .Add<EventQuery>("eventQuery")
      .Add<EventSynchronize>("eventSynchronize")
      .Add<EventSynchronizeAsync>("eventSynchronizeAsync")
      .Add<EventElapsedMs>("eventElapsedMs");
}

}  // namespace flashinfer::cuda
