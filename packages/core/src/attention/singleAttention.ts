// SPDX-License-Identifier: Apache-2.0
// Attention of one request over a contiguous or strided KV cache: single decode and single prefill.
import { Checker } from '../check/checker.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { runOnCpu } from './cpuAttention.ts';
import { runOnCuda } from './cudaAttention.ts';
import { resolveCustomMask } from './customMask.ts';
import { readHeadScales } from './headScales.ts';
import {
  checkBackend,
  decodeOptionNames,
  flag,
  prefillOptionNames,
  readNumbers,
  readOutDtypes,
  type SingleDecodeOptions,
  type SinglePrefillOptions,
} from './options.ts';
import { type AttentionRequest, checkHeadDim, checkHeads, checkNoOverlap, checkSinks, headDimVoOf } from './request.ts';
import { readVariantArgs } from './variantArgs.ts';

/**
 * Decode attention of one request: one query token over its KV cache.
 * o[h] = softmax(smScale · q[h]·Kᵀ) · V, with grouped-query attention when numQoHeads > numKvHeads.
 * @param q `[numQoHeads, headDim]` float16 | bfloat16 (cpu: float32 too), last dimension contiguous
 * @param k NHD `[kvLen, numKvHeads, headDim]`, HND `[numKvHeads, kvLen, headDim]`; dtype of q, or float8
 * @param v as k; its headDim is 128 where that of q and k is 192
 * @param options see {@link SingleDecodeOptions}
 * @returns `o` `[numQoHeads, headDim of v]`, dtype of q; with `returnLse` `[o, lse]`, lse `[numQoHeads]` float32, base 2
 *   unless `lseBase` is `'e'`. With no visible key o is 0 and lse is -Infinity.
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @throws {UnsupportedError} on a headDim other than 64, 128, 192 (with 128 of v), 256, or bfloat16 before sm_80
 * @remarks Asynchronous on the current stream; accumulates in float32; the same call gives the same bits.
 * @see FlashInfer `single_decode_with_kv_cache`; arXiv:2501.01005
 * @example
 * ```ts
 * import { randn, singleDecodeWithKVCache } from '@flashinfer/core';
 *
 * const q = randn([32, 128], { dtype: 'float16' });
 * const k = randn([2048, 8, 128], { dtype: 'float16' });
 * const v = randn([2048, 8, 128], { dtype: 'float16' });
 * const o = singleDecodeWithKVCache(q, k, v); // [32, 128]
 * ```
 */
export function singleDecodeWithKVCache<D extends DType>(
  q: Tensor<D>,
  k: Tensor,
  v: Tensor,
  options: SingleDecodeOptions & { returnLse: true },
): [Tensor<OutputDType<D>>, Tensor<'float32'>];
export function singleDecodeWithKVCache<D extends DType>(
  q: Tensor<D>,
  k: Tensor,
  v: Tensor,
  options?: SingleDecodeOptions & { returnLse?: false },
): Tensor<OutputDType<D>>;
export function singleDecodeWithKVCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: SingleDecodeOptions = {},
): Tensor | [Tensor, Tensor] {
  const name = 'singleDecodeWithKVCache';
  const request = makeRequest(name, q, k, v, options, decodeOptionNames, ['numQoHeads', 'headDim']);
  flag(name, 'useTensorCores', options.useTensorCores);
  logCall(name, { q, k, v, options });
  return run(name, request);
}

/**
 * Prefill or append attention of one request: qoLen query tokens over its KV cache.
 * o[i,h] = softmax(smScale · q[i,h]·Kᵀ + mask) · V. The causal rule and the window align the ends of q and k: query i
 * stands at position i + kvLen - qoLen.
 * @param q `[qoLen, numQoHeads, headDim]` float16 | bfloat16 (cpu: float32 too), last dimension contiguous; or
 *   float8_e4m3fn with k and v of it: on cuda on Hopper GPUs with headDim 128 or 256, both products in 8 bits
 * @param k NHD `[kvLen, numKvHeads, headDim]`, HND `[numKvHeads, kvLen, headDim]`; dtype of q, or float8
 * @param v as k; its headDim is 128 where that of q and k is 192
 * @param options see {@link SinglePrefillOptions}
 * @returns `o` as q (float8: `outDtype`), with the headDim of v; with `returnLse` `[o, lse]`, lse `[qoLen, numQoHeads]` float32, base 2
 *   unless `lseBase` is `'e'`. A row that sees no key has o 0 and lse -Infinity.
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @throws {UnsupportedError} on a headDim other than 64, 128, 192 (with 128 of v), 256, or bfloat16 before sm_80
 * @remarks Asynchronous on the current stream; accumulates in float32; the same call gives the same bits.
 * @see FlashInfer `single_prefill_with_kv_cache`; arXiv:2307.08691
 * @example
 * ```ts
 * import { randn, singlePrefillWithKVCache } from '@flashinfer/core';
 *
 * const q = randn([128, 32, 128], { dtype: 'float16' });
 * const k = randn([2048, 8, 128], { dtype: 'float16' });
 * const v = randn([2048, 8, 128], { dtype: 'float16' });
 * const [o, lse] = singlePrefillWithKVCache(q, k, v, { causal: true, returnLse: true }); // [128, 32, 128], [128, 32]
 * ```
 */
export function singlePrefillWithKVCache<D extends DType>(
  q: Tensor<D>,
  k: Tensor,
  v: Tensor,
  options: SinglePrefillOptions & { returnLse: true },
): [Tensor<OutputDType<D>>, Tensor<'float32'>];
export function singlePrefillWithKVCache<D extends DType>(
  q: Tensor<D>,
  k: Tensor,
  v: Tensor,
  options?: SinglePrefillOptions & { returnLse?: false },
): Tensor<OutputDType<D>>;
export function singlePrefillWithKVCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: SinglePrefillOptions = {},
): Tensor | [Tensor, Tensor] {
  const name = 'singlePrefillWithKVCache';
  const request = makeRequest(name, q, k, v, options, prefillOptionNames, ['qoLen', 'numQoHeads', 'headDim']);
  logCall(name, { q, k, v, options });
  return run(name, request);
}

function run(functionName: string, request: AttentionRequest): Tensor | [Tensor, Tensor] {
  const { out, lse, temporaries } = request;
  if (out.size > 0) {
    if (out.device === 'cpu') runOnCpu(request);
    else runOnCuda(functionName, request);
  }
  for (const temporary of temporaries) temporary.dispose();
  return lse === undefined ? out : [out, lse];
}

const cudaDtypes: readonly DType[] = ['float16', 'bfloat16'];
const cpuDtypes: readonly DType[] = ['float16', 'bfloat16', 'float32'];

/** Decoding is bound by the cache's bytes: float8 queries, which only prefill takes, would gain it nothing. */
function queryDtypes(q: Tensor | undefined, prefill: boolean): readonly DType[] {
  const allowed = q?.device === 'cpu' ? cpuDtypes : cudaDtypes;
  return prefill ? [...allowed, 'float8_e4m3fn'] : allowed;
}

function makeRequest(
  functionName: string,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: SinglePrefillOptions,
  allowed: ReadonlySet<string>,
  qDims: readonly string[],
): AttentionRequest {
  const check = new Checker(functionName);
  check.tensor('q', q, qDims, {
    dtypes: queryDtypes(q, qDims.length === 3),
    lastDimContiguous: true,
  });
  const headDim = check.dim('headDim');
  const fp8 = q.dtype === 'float8_e4m3fn';
  const numbers = readNumbers(functionName, options, allowed, headDim);
  const nhd = numbers.kvLayout === 'NHD';
  const kvDims = nhd ? ['kvLen', 'numKvHeads'] : ['numKvHeads', 'kvLen'];
  const headDimVo = headDimVoOf(headDim);
  const { device } = q;
  check.tensor('k', k, [...kvDims, 'headDim'], {
    dtypes: fp8 ? ['float8_e4m3fn'] : [q.dtype, 'float8_e4m3fn', 'float8_e5m2'],
    device,
    lastDimContiguous: true,
  });
  check.tensor('v', v, [...kvDims, headDimVo === headDim ? 'headDim' : headDimVo], {
    dtypes: [k.dtype],
    device,
    lastDimContiguous: true,
  });
  const numQoHeads = check.dim('numQoHeads');
  const numKvHeads = check.dim('numKvHeads');
  const kvLen = check.dim('kvLen');
  const qoLen = qDims.length === 3 ? check.dim('qoLen') : 1;
  checkHeadDim(functionName, headDim);
  checkHeads(functionName, numQoHeads, numKvHeads);
  checkBackend(functionName, options.backend, device);
  const outShape = [...q.shape.slice(0, -1), headDimVo];
  const outDtypes = readOutDtypes(functionName, options, q.dtype);
  if (options.out !== undefined) {
    check.tensor('out', options.out, outShape, { dtypes: outDtypes, device, lastDimContiguous: true });
  }
  checkSinks(check, options.sinks, { numQoHeads, variant: numbers.variant }, device);
  checkNoOverlap(functionName, 'out', options.out, { q, k, v, sinks: options.sinks });
  const headScales = readHeadScales(check, options, { numQoHeads, numKvHeads }, fp8, device);
  const mask = resolveCustomMask(functionName, check, options, qoLen, kvLen, device);
  const out = options.out ?? empty(outShape, { dtype: outDtypes[0]!, device });
  const lse = options.returnLse === true ? empty(q.shape.slice(0, -1), { dtype: 'float32', device }) : undefined;
  const rows = (tensor: Tensor): number => (qDims.length === 3 ? tensor.strides[0]! : 0);
  const heads = (tensor: Tensor): number => tensor.strides[qDims.length - 2]!;
  // Spelled out: V8 makes a slow dictionary of a literal this long that spreads others, 15 us a call.
  return {
    kvLayout: numbers.kvLayout,
    posEncodingMode: numbers.posEncodingMode,
    windowLeft: numbers.windowLeft,
    logitsSoftCap: numbers.logitsSoftCap,
    smScale: numbers.smScale,
    ropeScale: numbers.ropeScale,
    ropeTheta: numbers.ropeTheta,
    vScale: numbers.vScale,
    lseFactor: numbers.lseFactor,
    variant: numbers.variant,
    q,
    k,
    v,
    out,
    lse,
    qDtype: q.dtype,
    kvDtype: k.dtype,
    qoLen,
    kvLen,
    numQoHeads,
    numKvHeads,
    headDim,
    qStrideN: rows(q),
    qStrideH: heads(q),
    kStrideN: k.strides[nhd ? 0 : 1]!,
    kStrideH: k.strides[nhd ? 1 : 0]!,
    vStrideN: v.strides[nhd ? 0 : 1]!,
    vStrideH: v.strides[nhd ? 1 : 0]!,
    outStrideN: rows(out),
    outStrideH: heads(out),
    maskMode: mask.maskMode,
    customMask: mask.customMask,
    temporaries: mask.temporaries,
    sinks: options.sinks,
    headScales,
    backend: options.backend ?? 'auto',
    variantArgs: readVariantArgs(check, numbers.variant, options.variantParams, device),
  };
}
