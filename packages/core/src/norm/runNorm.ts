// SPDX-License-Identifier: Apache-2.0
// Runs one checked call of a norm on its device.
import { getKernel } from '../jit/kernel.ts';
import { residentBlocks } from '../jit/residentBlocks.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { dtypes } from '../tensor/dtype.ts';
import { rowStride } from '../tensor/rowStride.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import {
  chooseNormTile,
  type NormKernelOptions,
  normAhead,
  normBlocks,
  normSpec,
  splitsIntoHeads,
} from './normKernel.ts';

/** All tensors `[numTokens, length]` or `[numTokens, numHeads, length]`, weight and bias `[length]`. */
export interface NormCall {
  readonly kind: NormKernelOptions['kind'];
  readonly x: Tensor;
  readonly residual: Tensor | undefined;
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
  readonly out: Tensor;
  /** Divides the output; a tensor is float32 with one element. */
  readonly scale: Tensor | number;
  readonly eps: number;
  /** Added to the weight. */
  readonly weightOffset: number;
  readonly enablePdl: boolean | undefined;
}

export function runNorm(call: NormCall): void {
  if (call.x.size === 0) return;
  if (call.x.deviceIndex < 0) runOnCpu(call);
  else runOnCuda(call);
}

/** Elements between rows, undefined where heads and tokens differ. */
const rowDistance = ({ shape, strides }: Tensor): number | undefined =>
  shape.length === 2 ? strides[0]! : rowStride(shape, strides);
const headStride = ({ shape, strides }: Tensor): number => (shape.length === 3 ? strides[1]! : 0);

function runOnCpu({ kind, x, residual, weight, bias, out, scale, eps, weightOffset }: NormCall): void {
  const { shape } = x;
  native().cpu.norm({
    layer: kind === 'layer',
    dtype: dtypes[x.dtype].code,
    outDtype: dtypes[out.dtype].code,
    weightDtype: dtypes[weight.dtype].code,
    x: x.ptr,
    xStrideN: x.strides[0]!,
    xStrideH: headStride(x),
    residual: residual?.ptr ?? 0,
    residualStrideN: residual?.strides[0] ?? 0,
    residualStrideH: residual === undefined ? 0 : headStride(residual),
    out: out.ptr,
    outStrideN: out.strides[0]!,
    outStrideH: headStride(out),
    weight: weight.ptr,
    bias: bias?.ptr ?? 0,
    scale: typeof scale === 'number' ? 0 : scale.ptr,
    scaleValue: typeof scale === 'number' ? scale : 1,
    tokens: shape[0]!,
    heads: shape.length === 3 ? shape[1]! : 1,
    length: shape[shape.length - 1]!,
    eps,
    weightOffset,
  });
}

function runOnCuda({ kind, x, residual, weight, bias, out, scale, eps, weightOffset, enablePdl }: NormCall): void {
  const { shape, deviceIndex } = x;
  const length = shape[shape.length - 1]!;
  const heads = shape.length === 3 ? shape[1]! : 1;
  const rows = shape[0]! * heads;
  const tensors = [x, out, weight];
  if (residual !== undefined) tensors.push(residual);
  if (bias !== undefined) tensors.push(bias);
  const vec = vectorWidth(length, tensors);
  const add = residual !== undefined;
  const numSms = deviceProperties(deviceIndex).multiProcessorCount;
  const work = { kind, add, dtype: x.dtype, outDtype: out.dtype };
  const tile = chooseNormTile(length, vec, rows, numSms, work);
  const distance = rowDistance(x);
  const outDistance = rowDistance(out);
  const residualDistance = add ? rowDistance(residual) : 0;
  const oneDistance = distance !== undefined && outDistance !== undefined && residualDistance !== undefined;
  const byHeads = splitsIntoHeads(tile, oneDistance, add);
  const spec = normSpec({ ...work, weightDtype: weight.dtype, heads: byHeads }, tile);
  const kernel = getKernel(spec, deviceIndex);
  const resident = (): number => residentBlocks(kernel, deviceIndex);
  const blocks = normBlocks(tile, rows, resident);
  const ahead = normAhead(tile, length * dtypes[x.dtype].bytes, rows, byHeads ? heads : 1, numSms, resident);
  const args = {
    out: out.ptr,
    x: x.ptr,
    residual: residual?.ptr ?? 0,
    weight: weight.ptr,
    bias: bias?.ptr ?? 0,
    scale: typeof scale === 'number' ? 0 : scale.ptr,
    out_stride_n: byHeads ? out.strides[0]! : outDistance!,
    out_stride_h: headStride(out),
    x_stride_n: byHeads ? x.strides[0]! : distance!,
    x_stride_h: headStride(x),
    residual_stride_n: byHeads ? (residual?.strides[0] ?? 0) : residualDistance!,
    residual_stride_h: residual === undefined ? 0 : headStride(residual),
    rows,
    heads,
    vectors: length / vec,
    rcp_length: 1 / length,
    eps,
    weight_offset: weightOffset,
    scale_value: typeof scale === 'number' ? scale : 1,
    ahead: ahead.distance,
    first_ahead: ahead.first,
    rows_ahead: ahead.rows,
  };
  const pdl = usesDependentLaunch(deviceIndex, enablePdl);
  kernel.launch([blocks, 1, 1], args, { stream: currentStream(deviceIndex), pdl });
}
