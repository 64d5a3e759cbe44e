// SPDX-License-Identifier: Apache-2.0
// The attention that programs around a listed model call, with the model's sizes.
import {
  BatchDecodeWithPagedKVCacheWrapper,
  BatchPrefillWithPagedKVCacheWrapper,
  BatchPrefillWithRaggedKVCacheWrapper,
  BlockSparseAttentionWrapper,
  type DType,
  MultiLevelCascadeAttentionWrapper,
  mergeState,
  mergeStateInPlace,
  mergeStates,
  singleDecodeWithKVCache,
  singlePrefillWithKVCache,
  type Tensor,
  VariableBlockSparseAttentionWrapper,
} from '../../src/index.ts';
import type { ModelDType, ModelShape } from '../../src/jit/aotRequest.ts';
import { testDevice as device } from '../device.ts';
import { make, own } from './modelTensors.ts';

const pageSize = 16;
const windowLeft = 20;

/** The attention of a layer. */
interface Layer {
  readonly tokens: number;
  readonly dtype: ModelDType;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimVo: number;
  readonly isFull: boolean;
  readonly hasCap: boolean;
  /** What plans say of it, besides the dtype of keys and values. */
  readonly plan: {
    readonly numQoHeads: number;
    readonly numKvHeads: number;
    readonly headDimQk: number;
    readonly headDimVo: number;
    readonly qDtype: ModelDType;
    readonly windowLeft: number;
    readonly logitsSoftCap: number;
  };
  readonly q: Tensor;
  readonly sinks: Tensor;
}

/** Batches of `tokens` query rows over as many keys, and single requests. */
export function callAttention({ attention }: ModelShape, dtype: ModelDType, tokens: number): void {
  const { headDim, headDimVo, numQoHeads, numKvHeads, windows, softCap, latent } = attention;
  const q = make([tokens, numQoHeads, headDim], dtype);
  const sinks = make([numQoHeads], 'float32');
  for (const window of windows) {
    const isFull = window === 'full';
    const options = { windowLeft: isFull ? -1 : windowLeft, logitsSoftCap: softCap ? 50 : 0 };
    const plan = { numQoHeads, numKvHeads, headDimQk: headDim, headDimVo, qDtype: dtype, ...options };
    const layer = { ...attention, tokens, dtype, isFull, hasCap: softCap, plan, q, sinks };
    callPaged(layer, dtype);
    callRagged(layer, dtype);
    if (latent) continue;
    callPaged(layer, 'float8_e4m3fn');
    callRagged(layer, 'float8_e4m3fn');
    callTrees(layer);
    callSingle(layer, dtype);
    if (isFull) callSingle(layer, 'float8_e4m3fn');
    if (isFull) callSparse(layer);
  }
  callMerges([tokens, numQoHeads, headDimVo], dtype);
}

/** Keys and values, each a tensor of its own: their heads may differ. */
function makeCache({ numKvHeads, headDim, headDimVo }: Layer, pages: number, dtype: DType): [Tensor, Tensor] {
  const [k, v] = [headDim, headDimVo].map((dim) => make([pages, pageSize, numKvHeads, dim], dtype));
  return [k!, v!];
}

/** `requests` of one page each. */
function pageEach(requests: number) {
  return {
    pagedKvIndptr: Array.from({ length: requests + 1 }, (_, r) => r),
    pagedKvIndices: new Array<number>(requests).fill(0),
    pagedKvLastPageLen: new Array<number>(requests).fill(pageSize),
    pageSize,
  };
}

/** One request of so many keys. */
function pagesOfOne(keys: number) {
  const pages = Math.ceil(keys / pageSize);
  return {
    pagedKvIndptr: [0, pages],
    pagedKvIndices: Array.from({ length: pages }, (_, page) => page),
    pagedKvLastPageLen: [keys - (pages - 1) * pageSize],
    pageSize,
  };
}

const steps = (count: number, size: number): number[] => Array.from({ length: count + 1 }, (_, r) => r * size);

function callPaged(layer: Layer, kvDtype: DType): void {
  const { tokens, plan, q, sinks } = layer;
  const cache = makeCache(layer, Math.ceil(tokens / pageSize), kvDtype);
  for (const useTensorCores of [undefined, true]) {
    using decode = new BatchDecodeWithPagedKVCacheWrapper({ device, useTensorCores });
    decode.plan({ ...plan, kvDtype, ...pageEach(tokens) });
    own(decode.run(q, cache), decode.run(q, cache, { sinks }));
    for (const qLenPerReq of [2, 4, 16]) {
      if (tokens % qLenPerReq > 0) continue;
      decode.plan({ ...plan, kvDtype, ...pageEach(tokens / qLenPerReq), qLenPerReq });
      own(decode.run(q, cache));
    }
  }
  using prefill = new BatchPrefillWithPagedKVCacheWrapper({ device });
  prefill.plan({ ...plan, kvDtype, ...pagesOfOne(tokens), qoIndptr: [0, tokens], causal: true });
  own(prefill.run(q, cache), prefill.run(q, cache, { sinks }));
  if (layer.headDimVo === layer.headDim) callCascade(layer, cache, kvDtype);
}

/** A prefix that all rows share, and keys of their own: of each row, and of all as one request. */
function callCascade({ tokens, isFull, dtype, plan, q }: Layer, cache: [Tensor, Tensor], kvDtype: DType): void {
  // Masks in place of windows are prebuilt for caches of the model's own type.
  if (!isFull && kvDtype !== dtype) return;
  using cascade = new MultiLevelCascadeAttentionWrapper(2, { device });
  const prefix = pagesOfOne(tokens);
  for (const [qoIndptr, pages, causal] of [
    [steps(tokens, 1), pageEach(tokens), false],
    [[0, tokens], prefix, true],
  ] as const) {
    const levels = [prefix, pages];
    cascade.plan({
      ...plan,
      kvDtype,
      causal,
      pageSize,
      qoIndptrArr: [[0, tokens], qoIndptr],
      pagedKvIndptrArr: levels.map(({ pagedKvIndptr }) => pagedKvIndptr),
      pagedKvIndicesArr: levels.map(({ pagedKvIndices }) => pagedKvIndices),
      pagedKvLastPageLenArr: levels.map(({ pagedKvLastPageLen }) => pagedKvLastPageLen),
    });
    own(cascade.run(q, cache), cascade.run(q, cache, { returnLse: true }));
  }
}

/** Draft tokens of which each sees its ancestors: of one request, and small trees of many. */
function callTrees(layer: Layer): void {
  const { tokens, dtype, isFull, plan, q } = layer;
  if (!isFull) return;
  const cache = makeCache(layer, Math.ceil(tokens / pageSize), dtype);
  using prefill = new BatchPrefillWithPagedKVCacheWrapper({ device });
  prefill.plan({
    ...plan,
    ...pagesOfOne(tokens),
    qoIndptr: [0, tokens],
    packedCustomMask: new Uint8Array(Math.ceil((tokens * tokens) / 8)),
  });
  own(prefill.run(q, cache));
  for (const treeSize of [1, 2, 4, 8]) {
    if (tokens % treeSize > 0) continue;
    const requests = tokens / treeSize;
    prefill.plan({
      ...plan,
      ...pageEach(requests),
      qoIndptr: steps(requests, treeSize),
      customMask: make([requests * treeSize * pageSize], 'bool'),
    });
    own(prefill.run(q, cache));
  }
}

function callRagged(layer: Layer, kvDtype: DType): void {
  const { tokens, numKvHeads, headDim, headDimVo, isFull, hasCap, dtype, plan, q, sinks } = layer;
  const [k, v] = [headDim, headDimVo].map((dim) => make([tokens, numKvHeads, dim], kvDtype)) as [Tensor, Tensor];
  using ragged = new BatchPrefillWithRaggedKVCacheWrapper({ device });
  for (const requests of [1, tokens]) {
    const indptr = steps(requests, tokens / requests);
    ragged.plan({ ...plan, kvDtype, qoIndptr: indptr, kvIndptr: indptr, causal: true });
    own(ragged.run(q, k, v), ragged.run(q, k, v, { sinks }));
  }
  // A piece of a context, whose last one may be short; with whole heads, of many tokens.
  if (!isFull || hasCap || kvDtype !== dtype || (tokens === 1 && headDim === headDimVo)) return;
  ragged.plan({ ...plan, kvDtype, qoIndptr: [0, tokens], kvIndptr: [0, tokens] });
  own(ragged.run(q, k, v, { returnLse: true }));
}

function callSingle({ tokens, numKvHeads, headDim, isFull, hasCap, plan, q, sinks }: Layer, kvDtype: DType): void {
  const [k, v] = [make([tokens, numKvHeads, headDim], kvDtype), make([tokens, numKvHeads, headDim], kvDtype)];
  const { windowLeft, logitsSoftCap } = plan;
  const options = { windowLeft, logitsSoftCap };
  using row = q.select(0, 0);
  own(singleDecodeWithKVCache(row, k, v, options), singleDecodeWithKVCache(row, k, v, { ...options, sinks }));
  own(singlePrefillWithKVCache(q, k, v, { ...options, causal: true }));
  if (!isFull || hasCap || kvDtype !== plan.qDtype) return;
  own(singlePrefillWithKVCache(q, k, v));
  own(singleDecodeWithKVCache(row, k, v, { posEncodingMode: 'ROPE_LLAMA' }));
}

/** Rows of one token and of 16, blocks of 16 keys and of one; whole, cut by the causal rule and with masks within. */
function callSparse({ tokens, numQoHeads, numKvHeads, headDim, dtype, plan, q }: Layer): void {
  const { windowLeft: _, headDimVo: __, ...shape } = plan;
  const [k, v] = [make([tokens, numKvHeads, headDim], dtype), make([tokens, numKvHeads, headDim], dtype)];
  using sparse = new BlockSparseAttentionWrapper({ device });
  for (const R of [1, 16]) {
    for (const C of [1, 16]) {
      if (tokens % R > 0 || tokens % C > 0) continue;
      const blocks = { M: tokens, N: tokens, R, C, indptr: steps(tokens / R, 1) };
      const indices = new Int32Array(tokens / R);
      for (const mask of [{}, { causal: true }, { mask: new Uint8Array((tokens / R) * R * C).fill(1) }]) {
        sparse.plan({ ...shape, ...blocks, indices, ...mask });
        own(sparse.run(q, k, v));
      }
    }
  }
  if (tokens % 16 > 0) return;
  using variable = new VariableBlockSparseAttentionWrapper({ device });
  const heads = { q: make([numQoHeads, tokens, headDim], dtype), kv: make([numKvHeads, tokens, headDim], dtype) };
  const sizes = new Array<number>(numKvHeads).fill(tokens / 2).flatMap((half) => [half, half]);
  // Of many tokens, the causal bits take long to write, and need no other kernel.
  for (const causal of tokens > 64 ? [false] : [false, true]) {
    const blockMaskMap = new Uint8Array(numKvHeads * 4).fill(1);
    variable.plan({ ...shape, causal, blockMaskMap, blockRowSz: sizes, blockColSz: sizes });
    own(variable.run(heads.q, heads.kv, heads.kv, { returnLse: true }));
  }
}

function callMerges(shape: readonly [tokens: number, heads: number, dim: number], dtype: ModelDType): void {
  const [tokens, heads, dim] = shape;
  const [v, s] = [make(shape, dtype), make([tokens, heads], 'float32')];
  const [other, otherS] = [make(shape, dtype), make([tokens, heads], 'float32')];
  own(mergeState(v, s, other, otherS));
  mergeStateInPlace(v, s, other, otherS);
  for (const states of [3, 20]) {
    own(mergeStates(make([tokens, states, heads, dim], dtype), make([tokens, states, heads], 'float32')));
  }
}
