// SPDX-License-Identifier: Apache-2.0
// Runs one checked call of a rotary embedding on its device.
import { divisionMultiplier } from '../jit/divisionMultiplier.ts';
import { getKernel } from '../jit/kernel.ts';
import { residentBlocks } from '../jit/residentBlocks.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { ropeAhead } from './ropeAhead.ts';
import { chooseRopeTile, type RopeKernelOptions, ropeSpec } from './ropeKernel.ts';

/** `[tokens, heads, headDim]`, or `[tokens, heads * headDim]`; out has the shape of x, and may be x. */
export interface RopeHeads {
  readonly x: Tensor;
  readonly out: Tensor;
  readonly heads: number;
}

export interface RopePositions {
  /** `[batchSize + 1]`, or undefined: one position a token. */
  readonly indptr: Tensor | undefined;
  /** `[batchSize]` offsets with indptr, else `[tokens]`. */
  readonly values: Tensor;
}

/** A frequency f keeps the share f * smoothA + smoothB, within [0, 1]; the rest of it is multiplied by rcpScale. */
export interface RopeFrequencies {
  readonly rcpScale: number;
  readonly theta: number;
  readonly smoothA: number;
  readonly smoothB: number;
}

export interface RopeCall {
  readonly q: RopeHeads;
  readonly k: RopeHeads;
  readonly headDim: number;
  readonly rotaryDim: number;
  readonly interleave: boolean;
  readonly positions: RopePositions;
  /** A tensor is a table of cosines and sines. */
  readonly angles: RopeFrequencies | Tensor;
  readonly enablePdl: boolean | undefined;
}

export function runRope(call: RopeCall): void {
  if (call.q.x.size === 0 && call.k.x.size === 0) return;
  if (call.q.x.deviceIndex < 0) runOnCpu(call);
  else runOnCuda(call);
}

const noFrequencies: RopeFrequencies = { rcpScale: 1, theta: 1, smoothA: 0, smoothB: 0 };

const isCache = (angles: RopeFrequencies | Tensor): angles is Tensor => 'dtype' in angles;
const headStride = ({ shape, strides }: Tensor, headDim: number): number =>
  shape.length === 3 ? strides[1]! : headDim;

function runOnCpu({ q, k, headDim, rotaryDim, interleave, positions, angles }: RopeCall): void {
  const cache = isCache(angles) ? angles : undefined;
  const { rcpScale, theta, smoothA, smoothB } = isCache(angles) ? noFrequencies : angles;
  native().cpu.rope({
    dtype: dtypes[q.x.dtype].code,
    q: q.x.ptr,
    qOut: q.out.ptr,
    qHeads: q.heads,
    qStrideN: q.x.strides[0]!,
    qStrideH: headStride(q.x, headDim),
    qOutStrideN: q.out.strides[0]!,
    qOutStrideH: headStride(q.out, headDim),
    k: k.x.ptr,
    kOut: k.out.ptr,
    kHeads: k.heads,
    kStrideN: k.x.strides[0]!,
    kStrideH: headStride(k.x, headDim),
    kOutStrideN: k.out.strides[0]!,
    kOutStrideH: headStride(k.out, headDim),
    tokens: q.x.shape[0]!,
    headDim,
    rotaryDim,
    interleave,
    indptr: positions.indptr?.ptr ?? 0,
    positions: positions.values.ptr,
    indexDtype: dtypes[positions.values.dtype].code,
    batchSize: positions.indptr === undefined ? 0 : positions.values.size,
    cache: cache?.ptr ?? 0,
    cacheRows: cache?.shape[0] ?? 0,
    cacheStride: cache?.strides[0] ?? 0,
    rcpScale,
    theta,
    smoothA,
    smoothB,
  });
}

function runOnCuda(call: RopeCall): void {
  const { q, k, headDim, rotaryDim, interleave, positions, angles, enablePdl } = call;
  const { deviceIndex } = q.x;
  const { bytes } = dtypes[q.x.dtype];
  const tokens = q.x.shape[0]!;
  const batchSize = positions.indptr === undefined ? 0 : positions.values.size;
  const cache = isCache(angles) ? angles : undefined;
  const { rcpScale, theta, smoothA, smoothB } = isCache(angles) ? noFrequencies : angles;
  const tensors = [q.x, q.out, k.x, k.out];
  if (cache !== undefined) tensors.push(cache);
  // A power of two divides both exactly where it divides their bitwise or.
  const vec = vectorWidth((rotaryDim / 2) | headDim, tensors);
  const numSms = deviceProperties(deviceIndex).multiProcessorCount;
  const options: RopeKernelOptions = {
    dtype: q.x.dtype,
    indexDtype: positions.values.dtype === 'int64' ? 'int64' : 'int32',
    interleave,
    positions: positions.indptr === undefined ? 'posIds' : 'indptr',
    angles: cache === undefined ? 'frequency' : 'cache',
    inPlace: q.x === q.out && k.x === k.out,
  };
  const tile = chooseRopeTile(tokens, q.heads + k.heads, rotaryDim, vec, numSms, options);
  const items = tile.columns * tile.groups;
  const kernel = getKernel(ropeSpec(options, tile), deviceIndex);
  const needed = Math.ceil(tokens / tile.tokensPerBlock);
  // Frequencies are made once a block: no more blocks than run at once.
  const most = cache === undefined ? Math.ceil(residentBlocks(kernel, deviceIndex) / tile.blocksPerToken) : needed;
  const args = {
    q: q.x.ptr,
    k: k.x.ptr,
    q_out: q.out.ptr,
    k_out: k.out.ptr,
    positions: positions.values.ptr,
    indptr: positions.indptr?.ptr ?? 0,
    cache: cache?.ptr ?? 0,
    q_stride_n: q.x.strides[0]!,
    q_stride_h: headStride(q.x, headDim),
    k_stride_n: k.x.strides[0]!,
    k_stride_h: headStride(k.x, headDim),
    q_out_stride_n: q.out.strides[0]!,
    q_out_stride_h: headStride(q.out, headDim),
    k_out_stride_n: k.out.strides[0]!,
    k_out_stride_h: headStride(k.out, headDim),
    cache_stride: cache?.strides[0] ?? 0,
    cache_rows: cache?.shape[0] ?? 0,
    rcp_scale: rcpScale,
    log2_step: (-2 * Math.log2(theta)) / rotaryDim,
    smooth_a: smoothA,
    smooth_b: smoothB,
    tokens,
    q_heads: q.heads,
    k_heads: k.heads,
    batch_size: batchSize,
    requests_per_token: batchSize / tokens,
    rotary_dim: rotaryDim,
    columns: tile.columns,
    columns_multiplier: divisionMultiplier(tile.columns),
    groups: tile.groups,
    items,
    items_multiplier: divisionMultiplier(items),
    tokens_per_block: tile.tokensPerBlock,
    tail: (headDim - rotaryDim) / vec,
    ahead: ropeAhead(call, options.inPlace, tile, numSms),
    q_ahead_bytes: q.heads * headDim * bytes,
    k_ahead_bytes: k.heads * headDim * bytes,
  };
  const pdl = usesDependentLaunch(deviceIndex, enablePdl);
  const stream = currentStream(deviceIndex);
  kernel.launch([Math.min(needed, most), tile.blocksPerToken, 1], args, { stream, pdl, threads: tile.threads });
}
