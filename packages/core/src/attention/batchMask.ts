// SPDX-License-Identifier: Apache-2.0
// The custom masks of a batch: packed bits, those of each request from a byte of its own, in one buffer on the device.
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { InvalidArgumentError } from '../errors.ts';
import { native } from '../native/load.ts';
import { packBits } from '../quantization/packBitsKernel.ts';
import { type Device, deviceIndex } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty, tensor } from '../tensor/create.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { BatchRequests } from './batchPlan.ts';
import { checkBooleans } from './hostArray.ts';

/** The custom masks of a plan; either replaces `causal`. */
export interface BatchMaskOptions {
  /**
   * The `[qoLen, kvLen]` masks of all requests, flattened one after the other; true where a key is visible: a bool tensor
   * on the wrapper's device, or a host array.
   */
  customMask?: Tensor | Uint8Array | readonly boolean[];
  /**
   * The same as bits, each request's from a byte of its own, lowest bit first (`segmentPackbits` with
   * `bitorder: 'little'`): a uint8 tensor `[sum of ceil(qoLen * kvLen / 8)]` on the wrapper's device, or a host array.
   */
  packedCustomMask?: Tensor | Uint8Array;
}

/** First element and first byte of each request's mask, `[batchSize + 1]`. */
interface MaskSegments {
  readonly elements: Float64Array;
  readonly bytes: Float64Array;
}

/** Offsets on the device are int32. */
const maxElements = 2 ** 31 - 1;

export function hasCustomMask({ customMask, packedCustomMask }: BatchMaskOptions): boolean {
  return customMask !== undefined || packedCustomMask !== undefined;
}

export class MaskBuffer {
  private readonly device: Device;
  /** In graph mode the buffer stays where it is. */
  private readonly fixedBytes: number | undefined;
  private tensor: Tensor | undefined;

  constructor(device: Device, fixedBytes: number | undefined) {
    this.device = device;
    this.fixedBytes = fixedBytes;
  }

  /** Of the last {@link write}; 0 before. */
  get ptr(): number {
    return this.tensor?.ptr ?? 0;
  }

  dispose(): void {
    this.tensor?.dispose();
    this.tensor = undefined;
  }

  /** Checks the masks of a plan; the function it returns brings them to the device, in stream order. */
  read(caller: string, options: BatchMaskOptions, requests: BatchRequests): () => void {
    const { customMask, packedCustomMask } = options;
    if (customMask !== undefined && packedCustomMask !== undefined) {
      throw invalid(caller, 'customMask and packedCustomMask are both given', 'one of them', 'leave the other out');
    }
    const name = customMask === undefined ? 'packedCustomMask' : 'customMask';
    const mask = (customMask ?? packedCustomMask)!;
    const segments = maskSegments(requests);
    const { batchSize } = requests;
    const numBytes = segments.bytes[batchSize]!;
    const size = name === 'customMask' ? segments.elements[batchSize]! : numBytes;
    this.checkRoom(caller, numBytes);
    if (mask instanceof Tensor) {
      const dtype = name === 'customMask' ? 'bool' : 'uint8';
      new Checker(caller).tensor(name, mask, [size], { dtypes: [dtype], device: this.device });
      if (name === 'customMask' && size > maxElements) {
        throw invalid(caller, `customMask has ${size} elements`, `at most ${maxElements}`, 'pass packedCustomMask');
      }
      return () => this.writeTensor(mask, this.reserve(numBytes), segments);
    }
    checkHostMask(caller, name, mask, size);
    const packed = name === 'customMask' ? packOnHost(mask, segments) : (mask as Uint8Array);
    return () => writeHost(this.reserve(numBytes), packed);
  }

  private checkRoom(caller: string, numBytes: number): void {
    if (this.fixedBytes === undefined || numBytes <= this.fixedBytes) return;
    throw invalid(
      caller,
      `the packed custom masks take ${numBytes} bytes`,
      `at most maxCustomMaskBytes=${this.fixedBytes}, which the wrapper was made with (0 by default)`,
      'with useCudaGraph make it with room for the largest plan, and capture again',
    );
  }

  private reserve(numBytes: number): Tensor {
    const needed = Math.max(64, this.fixedBytes ?? numBytes);
    if (this.tensor === undefined || this.tensor.size < needed) {
      this.tensor?.dispose();
      const room = this.fixedBytes === undefined ? Math.ceil(needed * 1.5) : needed;
      this.tensor = empty([room], { dtype: 'uint8', device: this.device });
    }
    return this.tensor.slice(0, 0, numBytes);
  }

  private writeTensor(mask: Tensor, packed: Tensor, { elements, bytes }: MaskSegments): void {
    using target = packed;
    if (mask.dtype === 'uint8') {
      if (mask.size > 0) target.copy_(mask);
      return;
    }
    using source = mask.contiguous();
    using src = tensor(Int32Array.from(elements), { dtype: 'int32', device: this.device });
    using dst = tensor(Int32Array.from(bytes), { dtype: 'int32', device: this.device });
    packBits(source, target, 'little', { src, dst });
  }
}

function writeHost(packed: Tensor, bytes: Uint8Array): void {
  using target = packed;
  if (bytes.length === 0) return;
  const index = deviceIndex(target.device);
  if (index < 0) native().host.write(target.ptr, bytes);
  else native().cuda.write(index, target.ptr, bytes, currentStream(index));
}

function maskSegments({ batchSize, qoLen, kvLen }: BatchRequests): MaskSegments {
  const elements = new Float64Array(batchSize + 1);
  const bytes = new Float64Array(batchSize + 1);
  for (let r = 0; r < batchSize; ++r) {
    const size = qoLen[r]! * kvLen[r]!;
    elements[r + 1] = elements[r]! + size;
    bytes[r + 1] = bytes[r]! + Math.ceil(size / 8);
  }
  return { elements, bytes };
}

function checkHostMask(caller: string, name: string, mask: unknown, size: number): void {
  const allowed =
    name === 'customMask' ? 'a bool tensor, a Uint8Array or a boolean[]' : 'a uint8 tensor or a Uint8Array';
  if (!(mask instanceof Uint8Array) && !(name === 'customMask' && Array.isArray(mask))) {
    throw invalid(caller, `${name} is ${describeValue(mask)}`, allowed, 'pass one of these');
  }
  if (mask.length === size) {
    checkBooleans(caller, name, mask);
    return;
  }
  const formula = name === 'customMask' ? 'qoLen * kvLen' : 'ceil(qoLen * kvLen / 8)';
  throw invalid(
    caller,
    `${name} has ${mask.length} elements`,
    `${size}, the sum of ${formula} over all requests`,
    'flatten the masks of all requests one after the other',
    'ERR_FLASHINFER_INVALID_SHAPE',
  );
}

function packOnHost(mask: Uint8Array | readonly boolean[], { elements, bytes }: MaskSegments): Uint8Array {
  const packed = new Uint8Array(bytes[bytes.length - 1]!);
  for (let r = 0; r + 1 < elements.length; ++r) {
    const first = elements[r]!;
    const size = elements[r + 1]! - first;
    for (let i = 0; i < size; ++i) if (mask[first + i]) packed[bytes[r]! + (i >> 3)]! |= 1 << (i & 7);
  }
  return packed;
}

function invalid(
  caller: string,
  given: string,
  expected: string,
  fix: string,
  code: 'ERR_FLASHINFER_INVALID_ARGUMENT' | 'ERR_FLASHINFER_INVALID_SHAPE' = 'ERR_FLASHINFER_INVALID_ARGUMENT',
): InvalidArgumentError {
  return new InvalidArgumentError(code, `${caller}: ${given}; expected ${expected}; ${fix}`);
}
