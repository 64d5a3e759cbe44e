// SPDX-License-Identifier: Apache-2.0
// What a program around a listed model calls, with the model's sizes. modelsWithoutCompiler.test.ts runs this where only the
// kernels compiled ahead of time are there.
import { describe, it } from 'vitest';
import {
  appendPagedKVCache,
  appendPagedMlaKVCache,
  applyLlama31RopePosIdsInplace,
  applyRopeInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  chainSpeculativeSampling,
  dequantizeFp8,
  fusedAddRmsnorm,
  fusedAddRmsnormQuant,
  geluTanhAndMul,
  gemmaFusedAddRmsnorm,
  gemmaRmsnorm,
  getBatchIndicesPositions,
  getSeqLens,
  LogitsPipe,
  layernorm,
  minPSamplingFromProbs,
  quantizeFp8PerBlock,
  quantizeFp8PerTensor,
  quantizeFp8PerToken,
  rmsnorm,
  rmsnormQuant,
  Sample,
  Softmax,
  samplingFromLogits,
  samplingFromProbs,
  siluAndMul,
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
import { callAttention } from './attentionCalls.ts';
import { make, own, release } from './modelTensors.ts';

const tested = process.env.FLASHINFER_TEST_MODEL_DTYPE as ModelDType | undefined;
const pageSize = 16;

describe.runIf(tested)('a model', () => {
  it.each(modelShapes.map((model) => [`${model.family} ${model.hidden}`, model] as const))('%s', (_, model) => {
    for (const tokens of [1, 64, 1024]) callLayer(model, tested!, tokens);
    for (const batch of [1, 64, 256]) callSampling(model.vocab, tested!, batch);
  });
});

function callLayer(model: ModelShape, dtype: ModelDType, tokens: number): void {
  for (const length of [model.hidden, ...model.innerNorms]) callQuantisation(make([tokens, length], dtype));
  callNorms(make([tokens, model.hidden], dtype), dtype);
  for (const length of model.innerNorms) callRmsnorm(make([tokens, length], dtype));
  for (const parts of [1, 2, 4, 8]) {
    const inner = model.intermediate / parts;
    callQuantisation(make([tokens, inner], dtype));
    if (model.activation === undefined) continue;
    const gated = make([tokens, 2 * inner], dtype);
    own(model.activation === 'silu' ? siluAndMul(gated) : geluTanhAndMul(gated));
  }
  release();
  if (model.attention.latent) callLatent(model, dtype, tokens);
  else callHeads(model, dtype, tokens);
  callQuantisation(make([tokens, model.attention.numQoHeads * model.attention.headDimVo], dtype));
  callAttention(model, dtype, tokens);
  release();
}

/** Of tokens, or of their heads. */
function callRmsnorm(x: Tensor): void {
  const weight = make([x.shape[x.rank - 1]!], x.dtype);
  for (const norm of [rmsnorm, gemmaRmsnorm]) {
    own(norm(x, weight));
    norm(x, weight, { out: x });
  }
}

function callNorms(x: Tensor, dtype: ModelDType): void {
  callRmsnorm(x);
  const [residual, weight] = [make(x.shape, dtype), make([x.shape[1]!], dtype)];
  fusedAddRmsnorm(x, residual, weight);
  gemmaFusedAddRmsnorm(x, residual, weight);
  const quantised = make(x.shape, 'float8_e4m3fn');
  rmsnormQuant(quantised, x, weight, 0.5);
  fusedAddRmsnormQuant(quantised, x, residual, weight, 0.5);
  const gamma = make([x.shape[1]!], 'float32');
  own(layernorm(x, gamma, gamma));
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
    if (scale.size === 1) own(dequantizeFp8(q, scale, { dtype: x.dtype as ModelDType }));
    own(q, scale);
  }
}

/** Before attention: norms of heads, rotations, and the cache. */
function callHeads({ attention, innerNorms }: ModelShape, dtype: ModelDType, tokens: number): void {
  const { headDim, numQoHeads, numKvHeads } = attention;
  const q = make([tokens, numQoHeads, headDim], dtype);
  const [k, v] = [make([tokens, numKvHeads, headDim], dtype), make([tokens, numKvHeads, headDim], dtype)];
  if (innerNorms.includes(headDim)) for (const x of [q, k]) callRmsnorm(x);
  own(quantizeFp8PerToken(k), quantizeFp8PerTensor(k, { scale: 0.5 }));
  const posIds = make([tokens], 'int32');
  own(applyRopePosIds(q, k, posIds));
  applyRopePosIdsInplace(q, k, posIds);
  applyLlama31RopePosIdsInplace(q, k, posIds);
  const cosSin = make([4096, headDim], 'float32');
  for (const positions of [posIds, make([tokens], 'int64')]) {
    own(applyRopeWithCosSinCache(positions, q, k, headDim, cosSin));
    applyRopeWithCosSinCacheInplace(positions, q, k, headDim, cosSin);
  }
  applyRopeInplace(q, k, make([2], 'int32'), make([1], 'int32'));
  const { pages, table } = appendTable(tokens);
  appendPagedKVCache(k, v, { ...table, pagedKVCache: make([pages, 2, pageSize, numKvHeads, headDim], dtype) });
}

/** The same where the cache holds the vectors that keys and values are made from, and one rotated part of all keys. */
function callLatent({ attention, innerNorms }: ModelShape, dtype: ModelDType, tokens: number): void {
  const [rank, rotated] = [innerNorms[innerNorms.length - 1]!, 64];
  using q = make([tokens, attention.numQoHeads, attention.headDim], dtype).slice(2, attention.headDimVo);
  const k = make([tokens, 1, rotated], dtype);
  const cosSin = make([4096, rotated], 'float32');
  for (const dtype of ['int32', 'int64'] as const) {
    applyRopeWithCosSinCacheInplace(make([tokens], dtype), q, k, rotated, cosSin, { isNeox: false });
  }
  const { pages, table } = appendTable(tokens);
  const [ckvCache, kpeCache] = [make([pages, pageSize, rank], dtype), make([pages, pageSize, rotated], dtype)];
  appendPagedMlaKVCache(make([tokens, rank], dtype), k.view(tokens, rotated), { ...table, ckvCache, kpeCache });
}

/** Of one request whose tokens are all new. */
function appendTable(tokens: number) {
  const pages = Math.ceil(tokens / pageSize);
  const [batchIndices, positions] = getBatchIndicesPositions(make([2], 'int32'), make([1], 'int32'), tokens);
  own(getSeqLens(make([2], 'int32'), make([1], 'int32'), pageSize), batchIndices, positions);
  const kvIndices = Array.from({ length: pages }, (_, page) => page);
  const kvLastPageLen = [tokens - (pages - 1) * pageSize];
  return { pages, table: { batchIndices, positions, kvIndices, kvIndptr: [0, pages], kvLastPageLen } };
}

function callSampling(vocab: number, dtype: ModelDType, batch: number): void {
  for (const type of ['float32', dtype] as const) {
    const logits = make([batch, vocab], type);
    own(
      samplingFromLogits(logits),
      topKTopPSamplingFromLogits(logits, 40, 0.9),
      topKMaskLogits(logits, 40),
      softmax(logits, { temperature: 0.7 }),
      ...topK(logits, 50),
      ...topK(logits, 50, { sorted: true }),
      logits.to('float32'),
    );
    callCheckNan(logits);
    const pipe = new LogitsPipe([new Temperature(), new TopK(), new Softmax(), new TopP(), new Sample()]);
    own(pipe.run(logits, { temperature: 0.7, topK: 40, topP: 0.9 }));
    release();
  }
  const probs = make([batch, vocab], 'float32');
  own(
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

/** What stands in memory that no kernel wrote may be NaN. */
function callCheckNan(logits: Tensor): void {
  try {
    own(samplingFromLogits(logits, { checkNan: true }));
  } catch (error) {
    if (!String(error).includes('logits is NaN')) throw error;
  }
}
