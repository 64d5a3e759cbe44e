// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { checkOutput, mayOverlap } from '../check/overlap.ts';
import { divisionMultiplier } from '../jit/divisionMultiplier.ts';
import { getKernel } from '../jit/kernel.ts';
import { logCall } from '../logging.ts';
import { native } from '../native/load.ts';
import { type DependentLaunchOptions, usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import { type DType, dtypes, type SameDType } from '../tensor/dtype.ts';
import { rowStride } from '../tensor/rowStride.ts';
import { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { type Activation, activationSpec, activations, chooseActivationTile } from './activationKernel.ts';

/** Options of `siluAndMul`, `geluAndMul` and `geluTanhAndMul`. */
export interface ActivationOptions extends DependentLaunchOptions {
  /** Where to write, `[..., d]`, dtype of x; may be strided, or either half of x. Default: a new tensor. */
  out?: Tensor;
}

/**
 * Gated activation of feed-forward layers: out = silu(x[..., :d]) · x[..., d:], silu(z) = z / (1 + e^-z).
 * @param x `[..., 2d]` float16 | bfloat16 | float32; last dimension contiguous, rows at one distance
 * @param options see {@link ActivationOptions}
 * @returns `out` `[..., d]`, dtype of x
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream; computes in float32, rounded once.
 * @see FlashInfer `silu_and_mul`; arXiv:2002.05202
 * @example
 * ```ts
 * import { randn, siluAndMul } from '@flashinfer/core';
 *
 * const x = randn([8, 2 * 14336], { dtype: 'bfloat16' });
 * const y = siluAndMul(x); // [8, 14336]
 * ```
 */
export function siluAndMul<D extends DType>(x: Tensor<D>, options: ActivationOptions = {}): Tensor<SameDType<D>> {
  return actAndMul('siluAndMul', 'silu', x, options) as Tensor<SameDType<D>>;
}

/**
 * As {@link siluAndMul} with gelu(z) = z · Φ(z), Φ the normal distribution function ("erf" in other libraries).
 * @see FlashInfer `gelu_and_mul`; arXiv:1606.08415
 * @example
 * ```ts
 * import { geluAndMul, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 2 * 4096], { dtype: 'float16' });
 * const y = geluAndMul(x); // [8, 4096]
 * ```
 */
export function geluAndMul<D extends DType>(x: Tensor<D>, options: ActivationOptions = {}): Tensor<SameDType<D>> {
  return actAndMul('geluAndMul', 'gelu', x, options) as Tensor<SameDType<D>>;
}

/**
 * As {@link siluAndMul} with gelu(z) ≈ z/2 · (1 + tanh(√(2/π) · (z + 0.044715 z³))).
 * @see FlashInfer `gelu_tanh_and_mul`
 * @example
 * ```ts
 * import { geluTanhAndMul, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 2 * 4096], { dtype: 'float16' });
 * const y = geluTanhAndMul(x); // [8, 4096]
 * ```
 */
export function geluTanhAndMul<D extends DType>(x: Tensor<D>, options: ActivationOptions = {}): Tensor<SameDType<D>> {
  return actAndMul('geluTanhAndMul', 'gelu_tanh', x, options) as Tensor<SameDType<D>>;
}

const optionNames: readonly (keyof ActivationOptions)[] = ['out', 'enablePdl'];
const floats: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const rowsRule = { dtypes: floats, lastDimContiguous: true } as const;

/** The kernel counts rows and columns in 31 bits. */
const maxCount = 2 ** 31 - 1;

function actAndMul(name: string, activation: Activation, x: Tensor, options: ActivationOptions): Tensor {
  const check = new Checker(name);
  check.tensor('x', x, rowDims(x, '2d'), rowsRule).options(options, optionNames).flag('enablePdl', options.enablePdl);
  const { shape, dtype } = x;
  const rank = shape.length;
  const doubled = shape[rank - 1]!;
  if (rank === 0 || doubled % 2 !== 0 || doubled > maxCount || x.size / Math.max(doubled, 1) > maxCount) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `x has shape [${shape.join(', ')}]; expected [..., 2d], the gate and the factor in an even last dimension, ` +
        `and at most ${maxCount} rows; join them along the last dimension`,
    );
  }
  const outShape = shape.with(rank - 1, doubled / 2);
  if (options.out !== undefined) checkOut(check, options.out, x, outShape);
  const xStride = rowDistance(check, 'x', x);
  logCall(name, { x, options });
  const out = options.out ?? empty(outShape, { dtype, device: x.device });
  const outStride = rowDistance(check, 'out', out);
  if (out.size > 0) {
    if (x.deviceIndex < 0) runOnCpu(activation, x, xStride, out, outStride);
    else runOnCuda(activation, x, xStride, out, outStride, options.enablePdl);
  }
  return out;
}

/** `[*, ..., last]` of x's rank. */
function rowDims(x: Tensor, last: string): readonly string[] {
  const rank = x instanceof Tensor ? x.rank : 1;
  return rank === 1 ? [last] : rank === 2 ? ['*', last] : [...new Array<string>(Math.max(rank - 1, 0)).fill('*'), last];
}

function checkOut(check: Checker, out: Tensor, x: Tensor, shape: readonly number[]): void {
  check.tensor('out', out, shape, { dtypes: [x.dtype], lastDimContiguous: true });
  if (!mayOverlap(out, x)) return;
  const d = shape[shape.length - 1]!;
  for (const first of [0, d]) {
    using half = x.slice(-1, first, first + d);
    checkOutput(check.functionName, out, 'a half of x', half);
  }
}

function rowDistance(check: Checker, name: string, tensor: Tensor): number {
  const stride = rowStride(tensor.shape, tensor.strides);
  if (stride !== undefined) return stride;
  throw check.error(
    'ERR_FLASHINFER_NON_CONTIGUOUS',
    `${name} has strides [${tensor.strides.join(', ')}] for shape [${tensor.shape.join(', ')}]; expected rows at one ` +
      `distance from each other; copy it with ${name}.contiguous()`,
  );
}

function runOnCpu(activation: Activation, x: Tensor, xStride: number, out: Tensor, outStride: number): void {
  const length = out.shape[out.shape.length - 1]!;
  native().cpu.actAndMul({
    kind: activations[activation].code,
    dtype: dtypes[x.dtype].code,
    x: x.ptr,
    xStride,
    out: out.ptr,
    outStride,
    rows: out.size / length,
    length,
  });
}

function runOnCuda(
  activation: Activation,
  x: Tensor,
  xStride: number,
  out: Tensor,
  outStride: number,
  enablePdl: boolean | undefined,
): void {
  const { deviceIndex } = x;
  const length = out.shape[out.shape.length - 1]!;
  const rows = out.size / length;
  const vec = vectorWidth(length, [x, out]);
  const tile = chooseActivationTile(length, vec, rows, deviceProperties(deviceIndex).multiProcessorCount);
  const kernel = getKernel(activationSpec(activation, x.dtype, tile), deviceIndex);
  const args = {
    out: out.ptr,
    x: x.ptr,
    out_stride: outStride,
    x_stride: xStride,
    rows,
    vectors: length / vec,
    chunks: tile.chunks,
    chunks_multiplier: divisionMultiplier(tile.chunks),
  };
  const pdl = usesDependentLaunch(deviceIndex, enablePdl);
  const blocks = Math.ceil(rows / tile.rows) * tile.chunks;
  kernel.launch([blocks, 1, 1], args, { stream: currentStream(deviceIndex), pdl });
}
