// SPDX-License-Identifier: Apache-2.0
// Every exported function that takes options refuses what would silently be the defaults. The list of functions is the
// API's own: a new one is either here or named as one without options.
import { describe, expect, it } from 'vitest';
import * as api from '../../src/index.ts';
import { expectThrows } from '../thrownBy.ts';

const { randn, tensor, zeros } = api;
const x = randn([2, 8], { device: 'cpu' });
const heads = randn([2, 4, 64], { device: 'cpu', dtype: 'float16' });
const vector = randn([8], { device: 'cpu' });
const ids = tensor([0, 1], { dtype: 'int32', device: 'cpu' });
const lse = randn([2, 4], { device: 'cpu' });
const probs = api.softmax(x);
const positions = tensor([0, 1], { dtype: 'int64', device: 'cpu' });
const tokens = randn([2, 16], { device: 'cpu', dtype: 'float16' });
const cosSin = randn([4, 8], { device: 'cpu' });
const chain = zeros([2, 1, 8], { device: 'cpu' });

type Call = (options: never) => unknown;

const calls: Record<string, Call> = {
  aotKernels: (o) => api.aotKernels(o),
  appendPagedKVCache: (o) => api.appendPagedKVCache(heads, heads, o),
  appendPagedMlaKVCache: (o) => api.appendPagedMlaKVCache(heads.select(1, 0), heads.select(1, 1), o),
  applyLlama31Rope: (o) => api.applyLlama31Rope(heads, heads, ids, ids, o),
  applyLlama31RopeInplace: (o) => api.applyLlama31RopeInplace(heads, heads, ids, ids, o),
  applyLlama31RopePosIds: (o) => api.applyLlama31RopePosIds(heads, heads, ids, o),
  applyLlama31RopePosIdsInplace: (o) => api.applyLlama31RopePosIdsInplace(heads, heads, ids, o),
  applyRope: (o) => api.applyRope(heads, heads, ids, ids, o),
  applyRopeInplace: (o) => api.applyRopeInplace(heads, heads, ids, ids, o),
  applyRopePosIds: (o) => api.applyRopePosIds(heads, heads, ids, o),
  applyRopePosIdsInplace: (o) => api.applyRopePosIdsInplace(heads, heads, ids, o),
  applyRopeWithCosSinCache: (o) => api.applyRopeWithCosSinCache(positions, tokens, tokens, 8, cosSin, o),
  applyRopeWithCosSinCacheInplace: (o) =>
    api.applyRopeWithCosSinCacheInplace(positions, tokens, tokens.contiguous(), 8, cosSin, o),
  arange: (o) => api.arange([2], o),
  chainSpeculativeSampling: (o) =>
    api.chainSpeculativeSampling(chain, ids.view(2, 1), zeros([2, 2, 8], { device: 'cpu' }), o),
  dequantizeFp8: (o) =>
    api.dequantizeFp8(zeros([2, 8], { dtype: 'float8_e4m3fn', device: 'cpu' }), vector.slice(0, 0, 1), o),
  empty: (o) => api.empty([2], o),
  fromBits: (o) => api.fromBits(new Uint8Array(2), o),
  full: (o) => api.full([2], 1, o),
  fusedAddRmsnorm: (o) => api.fusedAddRmsnorm(x, x.contiguous(), vector, o),
  fusedAddRmsnormQuant: (o) => api.fusedAddRmsnormQuant(x, x, x.contiguous(), vector, 1, o),
  geluAndMul: (o) => api.geluAndMul(x, o),
  geluTanhAndMul: (o) => api.geluTanhAndMul(x, o),
  gemmaFusedAddRmsnorm: (o) => api.gemmaFusedAddRmsnorm(x, x.contiguous(), vector, o),
  gemmaRmsnorm: (o) => api.gemmaRmsnorm(x, vector, o),
  getBatchIndicesPositions: (o) => api.getBatchIndicesPositions(ids, ids.slice(0, 0, 1), 2, o),
  layernorm: (o) => api.layernorm(x.to('bfloat16'), vector, vector, o),
  layernormQuant: (o) =>
    api.layernormQuant(zeros([2, 8], { dtype: 'float8_e4m3fn', device: 'cpu' }), x, vector, vector, 1, o),
  mergeState: (o) => api.mergeState(heads, lse, heads, lse, o),
  mergeStateInPlace: (o) => api.mergeStateInPlace(heads, lse, heads.contiguous(), lse, o),
  mergeStates: (o) => api.mergeStates(heads.view(1, 2, 4, 64), lse.view(1, 2, 4), o),
  minPSamplingFromProbs: (o) => api.minPSamplingFromProbs(probs, 0.5, o),
  ones: (o) => api.ones([2], o),
  packbits: (o) => api.packbits(zeros([8], { dtype: 'bool', device: 'cpu' }), o),
  quantizeFp8PerBlock: (o) => api.quantizeFp8PerBlock(x, o),
  quantizeFp8PerTensor: (o) => api.quantizeFp8PerTensor(x, o),
  quantizeFp8PerToken: (o) => api.quantizeFp8PerToken(x, o),
  rand: (o) => api.rand([2], o),
  randn: (o) => api.randn([2], o),
  rmsnorm: (o) => api.rmsnorm(x, vector, o),
  rmsnormQuant: (o) => api.rmsnormQuant(zeros([2, 8], { dtype: 'float8_e4m3fn', device: 'cpu' }), x, vector, 1, o),
  samplingFromLogits: (o) => api.samplingFromLogits(x, o),
  samplingFromProbs: (o) => api.samplingFromProbs(probs, o),
  segmentPackbits: (o) => api.segmentPackbits(zeros([8], { dtype: 'bool', device: 'cpu' }), ids, o),
  siluAndMul: (o) => api.siluAndMul(x, o),
  singleDecodeWithKVCache: (o) => api.singleDecodeWithKVCache(heads.select(0, 0), heads, heads, o),
  singlePrefillWithKVCache: (o) => api.singlePrefillWithKVCache(heads, heads, heads, o),
  softmax: (o) => api.softmax(x, o),
  tensor: (o) => api.tensor([1], o),
  topK: (o) => api.topK(x, 1, o),
  topKSamplingFromProbs: (o) => api.topKSamplingFromProbs(probs, 1, o),
  topKTopPSamplingFromLogits: (o) => api.topKTopPSamplingFromLogits(x, 1, 0.5, o),
  topKTopPSamplingFromProbs: (o) => api.topKTopPSamplingFromProbs(probs, 1, 0.5, o),
  topPSamplingFromProbs: (o) => api.topPSamplingFromProbs(probs, 0.5, o),
  Sample: (o) => new api.Sample(o),
  TopK: (o) => new api.TopK(o),
  zeros: (o) => api.zeros([2], o),
  BatchDecodeWithPagedKVCacheWrapper: (o) => new api.BatchDecodeWithPagedKVCacheWrapper(o),
  BatchPrefillWithPagedKVCacheWrapper: (o) => new api.BatchPrefillWithPagedKVCacheWrapper(o),
  BatchPrefillWithRaggedKVCacheWrapper: (o) => new api.BatchPrefillWithRaggedKVCacheWrapper(o),
  BlockSparseAttentionWrapper: (o) => new api.BlockSparseAttentionWrapper(o),
  MultiLevelCascadeAttentionWrapper: (o) => new api.MultiLevelCascadeAttentionWrapper(2, o),
  VariableBlockSparseAttentionWrapper: (o) => new api.VariableBlockSparseAttentionWrapper(o),
};

/** Take a definition or nothing that could be misspelt, or check it in tests of their own. */
const withoutOptions = [
  'LogitsPipe',
  'MinP',
  'Softmax',
  'Temperature',
  'Tensor',
  'TopP',
  'defaultDevice',
  'defineAttentionVariant',
  'getSeqLens',
  'manualSeed',
  'setDefaultDevice',
  'setNumThreads',
  'showConfig',
  'topKMaskLogits',
  'topKRenormProbs',
  'topPRenormProbs',
  'warmup',
];

describe('options', () => {
  it('of every function of the API are tested here', () => {
    const isError = (value: unknown): boolean => typeof value === 'function' && value.prototype instanceof Error;
    const functions = Object.entries(api).filter(([, value]) => typeof value === 'function' && !isError(value));
    expect(functions.map(([name]) => name).sort()).toEqual([...Object.keys(calls), ...withoutOptions].sort());
  });

  for (const [name, call] of Object.entries(calls)) {
    it(`${name} refuses what is no object, and unknown names`, () => {
      for (const options of [null, 1e-6, 'float16', true, ['out']]) {
        expectThrows(() => call(options as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'options is', 'expected');
      }
      const unknown = { noSuchOption: 1 } as never;
      expectThrows(() => call(unknown), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option noSuchOption is unknown');
    });
  }
});
