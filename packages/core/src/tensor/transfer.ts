// SPDX-License-Identifier: Apache-2.0
// Bytes between JS memory, host blocks and device blocks. Device work goes to the current stream.
import type { Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { refuseInCapture } from '../runtime/capture.ts';
import { currentStream } from '../runtime/stream.ts';

/** Host blocks pass through JS memory in pieces, which stay in the cpu's cache. */
const pieceBytes = 1 << 20;

const afterCapture = 'do it before the capture, into a tensor that the captured work reads';

/** JS memory → device or host block. Staged: `src` may change at once. */
export function writeBytes(deviceIndex: number, dst: Ptr, src: Uint8Array, caller: string): void {
  if (src.byteLength === 0) return;
  if (deviceIndex < 0) {
    native().host.write(dst, src);
    return;
  }
  refuseInCapture(deviceIndex, caller, afterCapture);
  try {
    native().cuda.write(deviceIndex, dst, src, currentStream(deviceIndex));
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

/** Device or host block → JS memory, blocking. */
export function readBytesSync(deviceIndex: number, src: Ptr, dst: Uint8Array, caller: string): void {
  if (dst.byteLength === 0) return;
  if (deviceIndex < 0) {
    native().host.read(src, dst);
    return;
  }
  refuseInCapture(deviceIndex, caller, 'read after graph.launch()');
  try {
    native().cuda.readSync(deviceIndex, src, dst, currentStream(deviceIndex));
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

/** Device → JS memory, off the event loop; the copy is in the stream when this returns. */
export async function readBytes(deviceIndex: number, src: Ptr, dst: Uint8Array, caller: string): Promise<void> {
  if (deviceIndex < 0 || dst.byteLength === 0) {
    readBytesSync(deviceIndex, src, dst, caller);
    return;
  }
  refuseInCapture(deviceIndex, caller, 'read after graph.launch()');
  try {
    await native().cuda.read(deviceIndex, src, dst, currentStream(deviceIndex));
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

/** Host block → device block; the host block may be freed at once. */
export function copyHostToDevice(deviceIndex: number, dst: Ptr, src: Ptr, bytes: number, caller: string): void {
  const piece = new Uint8Array(Math.min(bytes, pieceBytes));
  for (let at = 0; at < bytes; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, bytes - at));
    native().host.read(src + at, part);
    writeBytes(deviceIndex, dst + at, part, caller);
  }
}

/** Device block → host block, blocking until it is there. */
export function copyDeviceToHost(deviceIndex: number, dst: Ptr, src: Ptr, bytes: number, caller: string): void {
  if (bytes === 0) return;
  refuseInCapture(deviceIndex, caller, 'copy after graph.launch()');
  const { cuda } = native();
  const stream = currentStream(deviceIndex);
  try {
    cuda.copyDtoH(dst, src, bytes, stream);
    cuda.streamSynchronize(stream);
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

/** Within one device. */
export function copyWithin(deviceIndex: number, dst: Ptr, src: Ptr, bytes: number, caller: string): void {
  if (bytes === 0) return;
  if (deviceIndex < 0) {
    native().host.copy(dst, src, bytes);
    return;
  }
  try {
    native().cuda.copyDtoD(dst, src, bytes, currentStream(deviceIndex));
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}
