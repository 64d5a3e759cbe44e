// SPDX-License-Identifier: Apache-2.0
// Keeps waits for a whole context and captures apart. cuCtxSynchronize in any thread invalidates the captures of every
// other one, whatever their mode, and threads share a device's context: so this is the process's, as the context is.
#pragma once

namespace flashinfer::cuda {

/** A capture begins on a device: waits until no thread waits for its context. Pair with EndCapture. */
void BeginCapture(int ordinal);
void EndCapture(int ordinal);

/**
 * Lives while its thread waits for the context. Begins when no thread captures on the device, which takes as long as a
 * synchronous function of JS; one that was terminated inside is not waited for longer than a few seconds.
 */
class ContextWait {
 public:
  explicit ContextWait(int ordinal);
  ~ContextWait();
  ContextWait(const ContextWait&) = delete;
  ContextWait& operator=(const ContextWait&) = delete;

 private:
  const int ordinal_;
};

}  // namespace flashinfer::cuda
