// SPDX-License-Identifier: Apache-2.0
// Pages that are copied into rows before the fa3 template reads them: when, and what comes of it.
import { describe, expect, it } from 'vitest';
import { arrangedBytes, rowsToArrange } from '../../src/attention/arrangePages.ts';
import type { PlannedAttention } from '../../src/attention/batchCall.ts';
import { hopperKernels } from '../../src/attention/hopperBatch.ts';
import { hopperKv } from '../../src/attention/hopperKernel.ts';
import * as flashinfer from '../../src/index.ts';
import { smArch } from '../../src/runtime/device.ts';
import { onCuda, testDevice } from '../device.ts';
import { type BatchCase, expectBatch, indptr, kept, pagedInputs, planOptions, runPaged } from './batchCase.ts';
import { h200, plain } from './kernelOptions.ts';

const prompt = { ...plain, numQoHeads: 32, numKvHeads: 8, maskMode: 'causal', pageSize: 1 } as PlannedAttention;

function requestsOf(qoLens: readonly number[], kvLens: readonly number[], pageSize: number) {
  const starts = (lengths: readonly number[]) => indptr(lengths).subarray(0, lengths.length);
  return {
    batchSize: qoLens.length,
    qoBegin: starts(qoLens),
    qoLen: Int32Array.from(qoLens),
    kvStart: starts(kvLens.map((length) => Math.ceil(length / pageSize))),
    kvLen: Int32Array.from(kvLens),
  };
}

describe('rowsToArrange', () => {
  const rows = (kv: 'rows' | 'pages' | 'tokens' | 'gather', qoLen: number, kvLen: number, more = {}, pageSize = 1) =>
    rowsToArrange({ ...prompt, pageSize, ...more }, requestsOf([qoLen], [kvLen], pageSize), kv);

  it('takes long prompts alone', () => {
    expect(rows('tokens', 8192, 8192)).toBe(8192);
    expect(rows('tokens', 1024, 1024)).toBe(0);
    expect(rows('tokens', 100, 8192)).toBe(0);
    expect(rows('tokens', 8192, 8192, { windowLeft: 500 })).toBe(0);
    expect(rows('tokens', 900, 900, { maskMode: 'none' })).toBe(900);
    expect(rows('tokens', 0, 0)).toBe(0);
  });

  it('asks for more queries where pages are read fast', () => {
    const [tokens, gather, pages] = (['tokens', 'gather', 'pages'] as const).map((kv) => {
      let length = 0;
      while (rows(kv, length, Math.max(1, length)) === 0) length += 16;
      return length;
    });
    expect(gather).toBeLessThan(tokens!);
    expect(tokens).toBeLessThan(pages!);
    expect(rows('rows', 8192, 8192)).toBe(0);
    expect(rows('pages', 8192, 8192, { headDim: 64 })).toBe(0);
    expect(rows('tokens', 8192, 8192, { headDim: 64 })).toBe(8192);
  });

  it('counts whole pages of all requests, and no more scratch than there is', () => {
    const attention = { ...prompt, pageSize: 3 };
    const requests = requestsOf([5000, 4000], [5000, 4001], 3);
    const all = (1667 + 1334) * 3;
    expect(rowsToArrange(attention, requests, 'gather')).toBe(all);
    const bytes = arrangedBytes(attention, all);
    expect(bytes).toBe(all * 8 * 256 * 2);
    expect(rowsToArrange(attention, requests, 'gather', bytes)).toBe(all);
    expect(rowsToArrange(attention, requests, 'gather', bytes - 1)).toBe(0);
    expect(rows('tokens', 32_768, 32_768)).toBe(32_768);
    expect(rows('tokens', 32_769, 32_769)).toBe(0);
  });

  it('changes the kernel to that of rows, but not in a graph', () => {
    const requests = requestsOf([8192], [8192], 1);
    const eager = hopperKernels(prompt, requests, undefined, h200);
    expect(eager.spec.name).toContain('fa3_rows');
    expect(eager.arranged).toMatchObject({ rows: 8192, spec: { name: 'arrange_pages_hd128' } });
    const graph = hopperKernels(prompt, requests, { batchSize: 1, numPages: 8192, numTokens: 8192 }, h200);
    expect(graph.spec.name).toContain('fa3_tokens');
    expect(graph.arranged).toBeUndefined();
  });
});

describe.skipIf(!onCuda || smArch(0) !== 90)('pages that are copied first', () => {
  const heads = { numQoHeads: 64, numKvHeads: 1, backend: 'fa3' } as const;
  const lengths = { qoLens: [150, 1, 90, 220], kvLens: [170, 0, 99, 231] };

  it.each([
    [1, 64, 'NHD'],
    [3, 128, 'HND'],
    [16, 128, 'HND'],
    [5, 256, 'NHD'],
    [48, 128, 'NHD'],
  ] as const)('of %i rows, headDim %i, %s', (pageSize, headDim, kvLayout) => {
    const attention = { ...prompt, ...heads, maskMode: 'none', pageSize, headDim } as PlannedAttention;
    const requests = requestsOf(lengths.qoLens, lengths.kvLens, pageSize);
    expect(rowsToArrange(attention, requests, hopperKv(pageSize, 128))).toBeGreaterThan(0);
    runPaged({ ...lengths, ...heads, pageSize, headDim, kvLayout, dtype: 'bfloat16' }, 'prefill');
    const causal = { causal: true, windowLeft: 200 };
    runPaged({ ...lengths, ...heads, pageSize, headDim, kvLayout, dtype: 'float16', options: causal }, 'prefill');
  });

  it('of keys that are longer than values', () => {
    runPaged(
      { ...lengths, ...heads, pageSize: 7, headDim: 192, headDimVo: 128, dtype: 'bfloat16', tuple: true },
      'prefill',
    );
  });

  it('several key heads, in scratch of the caller or out of pages where that is too small', () => {
    const c: BatchCase = {
      ...{ qoLens: [400, 300], kvLens: [333, 290], headDim: 64, dtype: 'float16', pageSize: 1 },
      ...{ numQoHeads: 96, numKvHeads: 3, backend: 'fa3' },
    };
    const { inputs, table, cache } = pagedInputs(c);
    const { numPages: _, ...pages } = table;
    const results = [undefined, 623 * 3 * 128 * 2, 1024].map((bytes) => {
      const workspace =
        bytes === undefined ? undefined : flashinfer.empty([bytes], { dtype: 'uint8', device: testDevice });
      const wrapper = kept(
        new flashinfer.BatchPrefillWithPagedKVCacheWrapper({
          ...{ backend: 'fa3', device: testDevice },
          ...(workspace && { workspace }),
        }),
      );
      wrapper.plan({ ...planOptions(c), ...pages, pageSize: 1, qoIndptr: indptr(c.qoLens) });
      const names = wrapper.kernelSpecs().map(({ name }) => name);
      expect(names.includes('arrange_pages_hd64')).toBe(bytes !== 1024);
      expect(wrapper.workspaceSize()).toBe(bytes === 1024 ? 0 : 623 * 3 * 128 * 2);
      const [out, lse] = wrapper.run(inputs.q, cache, { returnLse: true });
      const values = out.toArraySync() as Float32Array;
      expectBatch(c, inputs, values, lse.toArraySync() as Float32Array);
      return values;
    });
    expect(results[1]).toEqual(results[0]);
  });
});
