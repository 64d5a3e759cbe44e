// SPDX-License-Identifier: Apache-2.0
// What the fa3 template adds: its choice, its tiles, and its kernel where there is a Hopper GPU.
import { describe, expect, it } from 'vitest';
import type { PlannedAttention } from '../../src/attention/batchCall.ts';
import { hopperKernels } from '../../src/attention/hopperBatch.ts';
import {
  chooseHopperTile,
  hopperHeadSection,
  hopperPagedTile,
  hopperRefusal,
  hopperRows,
  hopperSharedBytes,
  hopperSpec,
  hopperWarpgroupRows,
  pagesFit,
} from '../../src/attention/hopperKernel.ts';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';
import { onHopper, poisoned, runCase } from './attentionCase.ts';
import { type BatchCase, expectBatch, indptr, kept, makeInputs, planOptions, runPaged } from './batchCase.ts';
import { h200, plain } from './kernelOptions.ts';

const heads = { numQoHeads: 8, numKvHeads: 2 };

describe('tiles of the fa3 template', () => {
  it.each([64, 128, 192, 256])('fit in shared memory with headDim %i, for pages of any size', (headDim) => {
    for (const maskMode of ['none', 'causal'] as const) {
      for (const keys of [100, 100_000]) {
        const tile = chooseHopperTile({ ...plain, headDim, maskMode }, keys);
        expect(hopperSharedBytes({ headDim }, tile)).toBeLessThanOrEqual(h200.sharedPerBlock);
        expect(tile.kvTile % 16).toBe(0);
        for (const pageSize of [1, 5, 8, 16, 32, 64, 100, 128, 256]) {
          const paged = hopperPagedTile(tile, headDim, pageSize);
          expect(hopperSharedBytes({ headDim }, paged)).toBeLessThanOrEqual(h200.sharedPerBlock);
          if ([8, 16, 32, 64].includes(pageSize)) expect(pagesFit(pageSize, paged.kvTile)).toBe(true);
          if (pageSize % 8 !== 0) expect(pagesFit(pageSize, paged.kvTile)).toBe(false);
        }
      }
    }
  });

  it('hold whole tokens of any group', () => {
    for (let group = 1; group <= 64; ++group) {
      const rows = hopperWarpgroupRows(group);
      expect(rows % group).toBe(0);
      expect(rows).toBeLessThanOrEqual(64);
      expect(rows + group).toBeGreaterThan(64);
      const { warpgroup_tokens, group_multiplier } = hopperRows({ numQoHeads: 2 * group, numKvHeads: 2 });
      expect(warpgroup_tokens).toBe(rows / group);
      for (let row = 0; row < 64; ++row) expect((row * group_multiplier) >> 12).toBe(Math.floor(row / group));
    }
  });

  it('keep the keys at work within the second-level cache', () => {
    expect(hopperHeadSection({ headDim: 128, numKvHeads: 32 }, 16_384)).toBe(2);
    expect(hopperHeadSection({ headDim: 128, numKvHeads: 32 }, 100)).toBe(32);
    expect(hopperHeadSection({ headDim: 128, numKvHeads: 32 }, 10_000_000)).toBe(1);
  });

  it.each([
    [1, 16_384, 192],
    [1, 2048, 128],
    [16, 1024, 128],
    [64, 16_384, 128],
  ])("are those of the maxima's lengths in a graph: %i requests, %i tokens", (batchSize, numTokens, tileRows) => {
    const attention = { ...plain, headDim: 64, maskMode: 'causal', numQoHeads: 8, numKvHeads: 8, pageSize: 0 };
    // The plan itself says otherwise: another plan of the graph may.
    for (const length of [1, 100_000]) {
      const one = Int32Array.of(length);
      const zero = Int32Array.of(0);
      const requests = { batchSize: 1, qoBegin: zero, qoLen: one, kvStart: zero, kvLen: one };
      const maxima = { batchSize, numPages: 0, numTokens };
      const planned = (given?: typeof maxima) => hopperKernels(attention as PlannedAttention, requests, given, h200);
      expect(planned(maxima).shape.tileRows).toBe(tileRows);
      expect(planned().shape.tileRows).toBe(length > 2048 ? 192 : 128);
    }
  });

  it('are part of the name, and only sm_90a compiles them', () => {
    const tile = chooseHopperTile({ ...plain, maskMode: 'causal' }, 500);
    const spec = hopperSpec({ ...plain, maskMode: 'causal', windowLeft: 3 }, tile, 'gather', true);
    expect(spec.name).toBe('batch_prefill_fa3_gather_bf16_hd128_causal_swa_t128x128_s2');
    expect(spec).toMatchObject({ exactArch: 'sm_90a', threads: 384 });
    expect(spec.entry).toContain('flashinfer::Visibility<flashinfer::MaskMode::kCausal, true>, flashinfer::HopperKv');
  });
});

describe('hopperRefusal', () => {
  it('names what the template does not do', () => {
    expect(hopperRefusal({ ...plain, ...heads })).toBeUndefined();
    expect(hopperRefusal({ ...plain, ...heads, kvDtype: 'float8_e4m3fn' })).toContain('float8_e4m3fn');
    expect(hopperRefusal({ ...plain, ...heads, posEncodingMode: 'ROPE_LLAMA' })).toContain('ROPE_LLAMA');
    expect(hopperRefusal({ ...plain, ...heads, maskMode: 'custom' })).toContain('custom masks');
    expect(hopperRefusal({ ...plain, numQoHeads: 65, numKvHeads: 1 })).toContain('64 query heads');
    const variant = flashinfer.defineAttentionVariant({ name: 'half', queryTransform: 'q * 0.5f' });
    expect(hopperRefusal({ ...plain, ...heads, variant })).toContain('queryTransform');
  });
});

it.skipIf(onCuda)("backend 'fa3' is refused on the cpu", () => {
  expectThrows(
    () => new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ backend: 'fa3', device: 'cpu' }),
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    'fa3',
    'cuda',
  );
  const q = flashinfer.zeros([4, 8, 64], { dtype: 'float16', device: 'cpu' });
  expectThrows(
    () => flashinfer.singlePrefillWithKVCache(q, q, q, { backend: 'fa3' }),
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    'fa3',
    'cuda',
  );
});

describe.skipIf(!onHopper)("backend 'fa3'", () => {
  const fa3 = { operatorOptions: { backend: 'fa3' } } as const;

  it.each([
    [1, 1],
    [1, 500],
    [64, 64],
    [127, 129],
    [300, 20],
    [333, 1777],
  ])('single prefill of %i rows over %i keys', (qoLen, kvLen) => {
    for (const headDim of [64, 128, 256]) {
      for (const causal of [false, true]) {
        const dtype = headDim === 128 ? 'bfloat16' : 'float16';
        runCase({ qoLen, kvLen, ...heads, headDim, dtype, options: { causal }, ...fa3 });
      }
    }
    runCase({
      qoLen,
      kvLen,
      ...heads,
      headDim: 192,
      headDimVo: 128,
      dtype: 'bfloat16',
      options: { causal: true },
      ...fa3,
    });
  });

  it.each([1, 2, 3, 5, 7, 12, 48, 64])('a group of %i heads', (group) => {
    const shape = { numQoHeads: group, numKvHeads: 1, headDim: 128, dtype: 'bfloat16' } as const;
    runCase({ qoLen: 70, kvLen: 200, ...shape, options: { causal: true }, ...fa3 });
  });

  it('windows, soft caps and ALiBi', () => {
    const shape = { qoLen: 150, kvLen: 700, ...heads, headDim: 128, dtype: 'float16', ...fa3 } as const;
    runCase({ ...shape, options: { causal: true, windowLeft: 77 } });
    runCase({ ...shape, options: { windowLeft: 300, logitsSoftCap: 20 } });
    runCase({ ...shape, options: { causal: true, posEncodingMode: 'ALIBI' } });
  });

  it('more items than multiprocessors', () => {
    runCase({
      qoLen: 700,
      kvLen: 700,
      numQoHeads: 64,
      numKvHeads: 64,
      headDim: 64,
      dtype: 'bfloat16',
      options: { causal: true },
      ...fa3,
    });
  });

  // Whole tiles are stored by box, parts of them by row; blocks take several items, some of them without keys.
  it.each([
    [64, 8],
    [64, 2],
    [128, 4],
    [128, 3],
    [192, 2],
    [256, 1],
  ])('writes its own rows only, headDim %i, %i key heads', (headDim, numKvHeads) => {
    const numQoHeads = numKvHeads === 3 ? 9 : 8;
    const headDimVo = headDim === 192 ? 128 : headDim;
    const c: BatchCase = {
      qoLens: [640, 1, 0, 127, 64, 129, 63, 1700, 256],
      kvLens: [700, 1, 5, 0, 64, 90, 640, 300, 0],
      numQoHeads,
      numKvHeads,
      headDim,
      headDimVo,
      dtype: 'bfloat16',
      options: { causal: true },
    };
    const inputs = makeInputs(c);
    const rows = inputs.q.shape[0]!;
    const around = poisoned([rows + 2, numQoHeads + 3, headDimVo], 'bfloat16');
    const out = around.slice(0, 1, rows + 1).slice(1, 2, numQoHeads + 2);
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ backend: 'fa3', device: testDevice }));
    wrapper.plan({ ...planOptions(c), qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) });
    const lse = wrapper.run(inputs.q, inputs.k, inputs.v, { out, returnLse: true })[1];
    expectBatch(c, inputs, out.contiguous().toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    const numbers = (around.toArraySync() as Float32Array).reduce((n, x) => n + (Number.isNaN(x) ? 0 : 1), 0);
    expect(numbers).toBe(rows * numQoHeads * headDimVo);
  });

  // Rows are held against some of the first tile's keys: the others' logits are greater by far here.
  it.each([64, 128, 256])('greatest logits beside the keys that are looked at first, headDim %i', (headDim) => {
    for (const causal of [false, true]) {
      runCase({
        qoLen: 300,
        kvLen: 300,
        ...heads,
        headDim,
        dtype: 'float16',
        options: { causal },
        prepare: ({ k }) => {
          const width = heads.numKvHeads * headDim;
          for (let i = 0; i < k.length; ++i) if (Math.floor(i / width) % 32 > 7) k[i] = 8 * k[i]!;
        },
        ...fa3,
      });
    }
  });

  it.each(['NHD', 'HND'] as const)('gives 0 and -Infinity to a ragged batch without any keys, %s', (kvLayout) => {
    const wrapper = kept(
      new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ backend: 'fa3', kvLayout, device: testDevice }),
    );
    wrapper.plan({ qoIndptr: [0, 70, 200], kvIndptr: [0, 0, 0], ...heads, headDimQk: 128 });
    const q = flashinfer.randn([200, 8, 128], { dtype: 'float16', device: testDevice, seed: 1 });
    const kv = flashinfer.zeros(kvLayout === 'NHD' ? [0, 2, 128] : [2, 0, 128], {
      dtype: 'float16',
      device: testDevice,
    });
    const [out, lse] = wrapper.run(q, kv, kv, { out: poisoned([200, 8, 128], 'float16'), returnLse: true });
    expect(new Set(out.toArraySync() as Float32Array)).toEqual(new Set([0]));
    expect(new Set(lse.toArraySync() as Float32Array)).toEqual(new Set([-Infinity]));
  });

  // Whole tiles and parts of them; keys and values of other strides where their headDims differ.
  it.each([1, 3, 8, 16, 24, 48, 256])('pages of %i rows', (pageSize) => {
    const c = { qoLens: [150, 1, 40, 20], kvLens: [700, 0, 353, 8], ...heads, pageSize, backend: 'fa3' } as const;
    runPaged({ ...c, headDim: 128, dtype: 'bfloat16', options: { causal: true } }, 'prefill');
    runPaged({ ...c, headDim: 64, dtype: 'float16', kvLayout: 'HND' }, 'prefill');
    runPaged({ ...c, headDim: 192, headDimVo: 128, dtype: 'bfloat16', tuple: true }, 'prefill');
  });

  it('refuses what it does not do', () => {
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ backend: 'fa3', device: testDevice }));
    const plan = { qoIndptr: [0, 4], kvIndptr: [0, 4], ...heads, headDimQk: 64 } as const;
    expectThrows(
      () => wrapper.plan({ ...plan, posEncodingMode: 'ROPE_LLAMA' }),
      'ERR_FLASHINFER_UNSUPPORTED',
      'fa3',
      'ROPE_LLAMA',
    );
    const q = flashinfer.zeros([4, 8, 64], { dtype: 'float16', device: testDevice });
    const k = flashinfer.zeros([4, 2, 64], { dtype: 'float8_e4m3fn', device: testDevice });
    expectThrows(
      () => flashinfer.singlePrefillWithKVCache(q, k, k, { backend: 'fa3' }),
      'ERR_FLASHINFER_UNSUPPORTED',
      'float8_e4m3fn',
    );
  });

  it('custom variants', () => {
    const [q, k, v] = [8, 2, 2].map((count, seed) =>
      flashinfer.randn([200, count, 64], { dtype: 'float16', device: testDevice, seed }),
    ) as [flashinfer.Tensor, flashinfer.Tensor, flashinfer.Tensor];
    const sigmoid = flashinfer.defineAttentionVariant({
      name: 'sigmoid',
      params: { bias: 'float32' },
      logitsTransform: '1.0f / (1.0f + expf(-(logits + bias)))',
      logitsMask: 'kvIdx % 3 != 0',
      outputTransform: 'output + qoHeadIdx',
      useSoftmax: false,
    });
    const run = (backend: 'fa2' | 'fa3'): Float32Array =>
      flashinfer
        .singlePrefillWithKVCache(q, k, v, { backend, causal: true, variant: sigmoid, variantParams: { bias: -2 } })
        .toArraySync() as Float32Array;
    const [wanted, got] = [run('fa2'), run('fa3')];
    const error = Math.hypot(...got.map((x, i) => x - wanted[i]!)) / Math.hypot(...wanted);
    expect(error).toBeLessThan(2e-3);
  });

  it('gives the same bits in 200 runs', () => {
    const [q, k, v] = [16, 4, 4].map((count, seed) =>
      flashinfer.randn([1500, count, 128], { dtype: 'bfloat16', device: testDevice, seed }),
    ) as [flashinfer.Tensor, flashinfer.Tensor, flashinfer.Tensor];
    const run = (): Float32Array => {
      const out = poisoned([1500, 16, 128], 'bfloat16');
      flashinfer.singlePrefillWithKVCache(q, k, v, { backend: 'fa3', causal: true, out });
      return out.toArraySync() as Float32Array;
    };
    const first = Buffer.from(run().buffer);
    for (let i = 1; i < 200; ++i) expect(first.equals(Buffer.from(run().buffer))).toBe(true);
  });

  it('graphs replay correctly after new plans', () => {
    const maxima = { maxBatchSize: 4, maxNumTokens: 600 };
    const wrapper = kept(
      new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({
        backend: 'fa3',
        useCudaGraph: true,
        ...maxima,
        device: testDevice,
      }),
    );
    const c = (qoLens: number[], kvLens: number[]): BatchCase => ({
      ...heads,
      headDim: 128,
      dtype: 'float16',
      options: { causal: true },
      qoLens,
      kvLens,
    });
    // Rows of the tensors stay, as a captured run reads them; plans use parts of them.
    const plans = [c([100, 200, 50, 250], [300, 300, 100, 300]), c([600], [1000]), c([1, 0, 599], [400, 100, 500])];
    const first = plans[0]!;
    const place = (inputs: ReturnType<typeof makeInputs>): flashinfer.Tensor[] => [inputs.q, inputs.k, inputs.v];
    const tensors = place(makeInputs(first));
    const out = poisoned(tensors[0]!.shape, 'float16');
    const lse = flashinfer.zeros([600, 8], { dtype: 'float32', device: testDevice });
    const plan = (each: BatchCase): void =>
      wrapper.plan({ ...planOptions(each), qoIndptr: indptr(each.qoLens), kvIndptr: indptr(each.kvLens) });
    plan(first);
    const run = () => void wrapper.run(tensors[0]!, tensors[1]!, tensors[2]!, { out, lse, returnLse: true });
    run();
    flashinfer.cuda.synchronizeSync();
    const graph = kept(flashinfer.cuda.capture(kept(new flashinfer.cuda.Stream()), run));
    for (const each of plans) {
      const inputs = makeInputs(each);
      place(inputs).forEach((x, i) => void tensors[i]!.copy_(x));
      plan(each);
      out.copy_(poisoned(out.shape, 'float16'));
      graph.launch();
      expectBatch(each, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });
});
