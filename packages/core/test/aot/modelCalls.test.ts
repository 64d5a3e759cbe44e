// SPDX-License-Identifier: Apache-2.0
// What a program around a listed model calls, with the model's sizes. modelsWithoutCompiler.test.ts runs this where only the
// kernels compiled ahead of time are there.
import { describe, it } from 'vitest';
import {
  appendPagedKVCache,
  applyLlama31RopePosIdsInplace,
  applyRopeInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  BatchDecodeWithPagedKVCacheWrapper,
  BatchPrefillWithPagedKVCacheWrapper,
  BatchPrefillWithRaggedKVCacheWrapper,
  chainSpeculativeSampling,
  cuda,
  type DType,
  dequantizeFp8,
  empty,
  fusedAddRmsnorm,
  fusedAddRmsnormQuant,
  geluTanhAndMul,
  gemmaFusedAddRmsnorm,
  gemmaRmsnorm,
  getBatchIndicesPositions,
  getSeqLens,
  LogitsPipe,
  minPSamplingFromProbs,
  quantizeFp8PerBlock,
  quantizeFp8PerTensor,
  quantizeFp8PerToken,
  rmsnorm,
  rmsnormQuant,
  Sample,
  type Shape,
  Softmax,
  samplingFromLogits,
  samplingFromProbs,
  siluAndMul,
  singleDecodeWithKVCache,
  singlePrefillWithKVCache,
  softmax,
  Temperature,
  type Tensor,
  TopK,
  TopP,
  topK,
  topKMaskLogits,
  topKRenormProbs,
  topKSamplingFromProbs,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
  topPRenormProbs,
  topPSamplingFromProbs,
} from '../../src/index.ts';
import { type ModelDType, type ModelShape, modelShapes } from '../../src/jit/aotRequest.ts';
import { testDevice as device } from '../device.ts';

const tested = process.env.FLASHINFER_TEST_MODEL_DTYPE as ModelDType | undefined;
const pageSize = 16;
const owned: Tensor[] = [];

/** Of any values: the driver computes nothing. */
function make(shape: Shape, dtype: DType): Tensor {
  const x = empty(shape, { dtype, device });
  owned.push(x);
  return x;
}

function release(): void {
  for (const x of owned.splice(0)) x.dispose();
  cuda.synchronizeSync();
}

describe.runIf(tested)('a model', () => {
  it.each(modelShapes.map((model) => [`${model.family} ${model.normLengths[0]}`, model] as const))('%s', (_, model) => {
    for (const tokens of [1, 64, 1024]) callLayer(model, tested!, tokens);
    for (const batch of [1, 64, 256]) callSampling(model.vocab, tested!, batch);
  });
});

function callLayer(model: ModelShape, dtype: ModelDType, tokens: number): void {
  for (const length of model.normLengths) {
    const x = make([tokens, length], dtype);
    callNorms(x, dtype);
    callQuantisation(x);
  }
  for (const parts of [1, 2, 4, 8]) {
    const inner = model.intermediate / parts;
    const gated = make([tokens, 2 * inner], dtype);
    const product = model.activation === 'silu' ? siluAndMul(gated) : geluTanhAndMul(gated);
    callQuantisation(product);
    product.dispose();
  }
  if (model.attention !== undefined) callAttention(model, dtype, tokens);
  release();
}

/** Of tokens, or of their heads. */
function callNorms(x: Tensor, dtype: ModelDType): void {
  const [residual, weight] = [make(x.shape, dtype), make([x.shape[x.rank - 1]!], dtype)];
  for (const norm of [rmsnorm, gemmaRmsnorm]) {
    owned.push(norm(x, weight));
    norm(x, weight, { out: x });
  }
  fusedAddRmsnorm(x, residual, weight);
  gemmaFusedAddRmsnorm(x, residual, weight);
  const quantised = make(x.shape, 'float8_e4m3fn');
  rmsnormQuant(quantised, x, weight, 0.5);
  fusedAddRmsnormQuant(quantised, x, residual, weight, 0.5);
}

/** Rows `[tokens, length]`. */
function callQuantisation(x: Tensor): void {
  for (const [q, scale] of [
    quantizeFp8PerTensor(x),
    quantizeFp8PerTensor(x, { scale: 0.5 }),
    quantizeFp8PerToken(x),
    quantizeFp8PerBlock(x),
    quantizeFp8PerBlock(x, { blockShape: [128, 128] }),
  ]) {
    if (scale.size === 1) owned.push(dequantizeFp8(q, scale, { dtype: x.dtype as ModelDType }));
    owned.push(q, scale);
  }
}

function callAttention(model: ModelShape, dtype: ModelDType, tokens: number): void {
  const { headDim, numQoHeads, numKvHeads, windows, softCap } = model.attention!;
  const q = make([tokens, numQoHeads, headDim], dtype);
  const [k, v] = [make([tokens, numKvHeads, headDim], dtype), make([tokens, numKvHeads, headDim], dtype)];
  if (model.normLengths.includes(headDim)) for (const x of [q, k]) callNorms(x, dtype);
  callQuantisation(q.view(tokens, numQoHeads * headDim));
  owned.push(...quantizeFp8PerToken(k), ...quantizeFp8PerTensor(k, { scale: 0.5 }));
  const posIds = make([tokens], 'int32');
  owned.push(...applyRopePosIds(q, k, posIds));
  applyRopePosIdsInplace(q, k, posIds);
  applyLlama31RopePosIdsInplace(q, k, posIds);
  const cache = make([4096, headDim], 'float32');
  owned.push(...applyRopeWithCosSinCache(posIds, q, k, headDim, cache));
  applyRopeWithCosSinCacheInplace(posIds, q, k, headDim, cache);
  applyRopeInplace(q, k, make([2], 'int32'), make([1], 'int32'));
  const heads = { numQoHeads, numKvHeads, headDimQk: headDim, qDtype: dtype };
  const pages = Math.ceil(tokens / pageSize);
  const paged = {
    pagedKvIndptr: [0, pages],
    pagedKvIndices: Array.from({ length: pages }, (_, page) => page),
    pagedKvLastPageLen: [tokens - (pages - 1) * pageSize],
    pageSize,
  };
  const [batchIndices, positions] = getBatchIndicesPositions(make([2], 'int32'), make([1], 'int32'), tokens);
  owned.push(getSeqLens(make([2], 'int32'), make([1], 'int32'), pageSize), batchIndices, positions);
  for (const kvDtype of [dtype, 'float8_e4m3fn'] as const) {
    const cache = make([pages, 2, pageSize, numKvHeads, headDim], kvDtype);
    if (kvDtype === dtype) {
      const tables = { kvIndices: paged.pagedKvIndices, kvIndptr: paged.pagedKvIndptr };
      const { pagedKvLastPageLen: kvLastPageLen } = paged;
      appendPagedKVCache(k, v, { batchIndices, positions, pagedKVCache: cache, ...tables, kvLastPageLen });
    }
    for (const window of windows) {
      const variant = {
        ...heads,
        kvDtype,
        windowLeft: window === 'full' ? -1 : 512,
        logitsSoftCap: softCap ? 50 : 0,
      };
      const decode = new BatchDecodeWithPagedKVCacheWrapper({ device });
      decode.plan({ ...variant, ...pagedOneEach(tokens) });
      owned.push(decode.run(q, cache));
      const prefill = new BatchPrefillWithPagedKVCacheWrapper({ device });
      prefill.plan({ ...variant, ...paged, qoIndptr: [0, tokens], causal: true });
      owned.push(prefill.run(q, cache));
      if (kvDtype !== dtype) continue;
      const { windowLeft, logitsSoftCap } = variant;
      owned.push(singleDecodeWithKVCache(q.select(0, 0), k, v, { windowLeft, logitsSoftCap }));
      owned.push(singlePrefillWithKVCache(q, k, v, { causal: true, windowLeft, logitsSoftCap }));
      const ragged = new BatchPrefillWithRaggedKVCacheWrapper({ device });
      ragged.plan({ ...variant, qoIndptr: [0, tokens], kvIndptr: [0, tokens], causal: true });
      owned.push(ragged.run(q, k, v));
    }
  }
}

/** So many requests, of one page each. */
function pagedOneEach(requests: number) {
  return {
    pagedKvIndptr: Array.from({ length: requests + 1 }, (_, r) => r),
    pagedKvIndices: new Array<number>(requests).fill(0),
    pagedKvLastPageLen: new Array<number>(requests).fill(3),
    pageSize,
  };
}

function callSampling(vocab: number, dtype: ModelDType, batch: number): void {
  for (const type of ['float32', dtype] as const) {
    const logits = make([batch, vocab], type);
    owned.push(
      samplingFromLogits(logits),
      topKTopPSamplingFromLogits(logits, 40, 0.9),
      topKMaskLogits(logits, 40),
      softmax(logits, { temperature: 0.7 }),
      ...topK(logits, 50),
      ...topK(logits, 50, { sorted: true }),
      logits.to('float32'),
    );
    const pipe = new LogitsPipe([new Temperature(), new TopK(), new Softmax(), new TopP(), new Sample()]);
    owned.push(pipe.run(logits, { temperature: 0.7, topK: 40, topP: 0.9 }));
    release();
  }
  const probs = make([batch, vocab], 'float32');
  owned.push(
    samplingFromProbs(probs),
    topPSamplingFromProbs(probs, 0.9),
    topKSamplingFromProbs(probs, 40),
    minPSamplingFromProbs(probs, 0.1),
    topKTopPSamplingFromProbs(probs, 40, 0.9),
    topPRenormProbs(probs, 0.9),
    topKRenormProbs(probs, 40),
    ...chainSpeculativeSampling(
      probs.view(batch, 1, vocab),
      make([batch, 1], 'int32'),
      make([batch, 2, vocab], 'float32'),
    ),
  );
  release();
}
