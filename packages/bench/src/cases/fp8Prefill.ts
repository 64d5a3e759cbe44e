// SPDX-License-Identifier: Apache-2.0
// Prefill with queries, keys and values of float8_e4m3fn, the output in bfloat16: square self-attention of prompts.
import {
  BatchPrefillWithPagedKVCacheWrapper,
  BatchPrefillWithRaggedKVCacheWrapper,
  randn,
  singlePrefillWithKVCache,
  type Tensor,
} from '@flashinfer/core';
import { type AttentionParams, attentionFlops } from './attentionCase.ts';
import { type BatchParams, batchFlops, indptr, keyValueBytes, pageTable } from './batchCase.ts';
import type { DeviceCase } from './benchCase.ts';
import { pickWrapper } from './pickWrapper.ts';

interface Shape {
  readonly length: number;
  readonly headDim: number;
  readonly numHeads: number;
  readonly causal: boolean;
}

function prefillCase({ length, headDim, numHeads, causal }: Shape): DeviceCase {
  const heads = { numQoHeads: numHeads, numKvHeads: numHeads, headDim };
  const params: Omit<AttentionParams, 'dtype'> = { qoLen: length, kvLen: length, ...heads, causal };
  const mask = causal ? 'causal' : 'full';
  return {
    kind: 'device',
    name: `prefill_fp8/q${length}_kv${length}_h${numHeads}k${numHeads}_d${headDim}_e4m3_${mask}`,
    params: { ...params, dtype: 'float8_e4m3fn', outDtype: 'bfloat16' },
    devices: ['cuda'],
    bytes: length * numHeads * headDim * (3 + 2),
    flops: attentionFlops(params),
    dtype: 'float8',
    setup({ device }, rotations) {
      const shape = [length, numHeads, headDim];
      const draw = (dtype: 'float8_e4m3fn' | 'bfloat16', seed: number) => randn(shape, { dtype, device, seed });
      const sets = Array.from({ length: rotations }, (_, n) => ({
        q: draw('float8_e4m3fn', 4 * n),
        k: draw('float8_e4m3fn', 4 * n + 1),
        v: draw('float8_e4m3fn', 4 * n + 2),
        out: draw('bfloat16', 4 * n + 3),
      }));
      return {
        run(rotation) {
          const { q, k, v, out } = sets[rotation]!;
          singlePrefillWithKVCache(q, k, v, { causal, out });
        },
        dispose() {
          for (const tensor of sets.flatMap((set) => Object.values(set))) tensor.dispose();
        },
      };
    },
  };
}

/** Causal, 32 query heads over 8; pageSize 0: ragged. */
function batchCase(batchSize: number, length: number, pageSize: number): DeviceCase {
  const lens = Array.from({ length: batchSize }, () => length);
  const heads = { numQoHeads: 32, numKvHeads: 8, headDim: 128 };
  const params: BatchParams = { qoLens: lens, kvLens: lens, ...heads, pageSize };
  const family = pageSize > 0 ? 'batch_paged_prefill_fp8' : 'batch_prefill_fp8';
  const pages = pageSize > 0 ? `_ps${pageSize}` : '';
  const tokens = batchSize * length;
  return {
    kind: 'device',
    name: `${family}/b${batchSize}_l${length}_h32k8_d128_e4m3${pages}_causal`,
    params: { batchSize, length, ...heads, pageSize, causal: true, dtype: 'float8_e4m3fn', outDtype: 'bfloat16' },
    devices: ['cuda'],
    // Half of what 16 bits take, and the output in 16.
    bytes: keyValueBytes(params) / 2 + tokens * 32 * 128,
    flops: batchFlops(params, true),
    dtype: 'float8',
    setup({ device }, rotations) {
      const draw = (shape: number[], seed: number) => randn(shape, { dtype: 'float8_e4m3fn', device, seed });
      const sets = Array.from({ length: rotations }, (_, n) => ({
        q: draw([tokens, 32, 128], 4 * n),
        k: pageSize === 0 ? draw([tokens, 8, 128], 4 * n + 1) : undefined,
        v: pageSize === 0 ? draw([tokens, 8, 128], 4 * n + 2) : undefined,
        cache: pageSize > 0 ? draw([tokens / pageSize, 2, pageSize, 8, 128], 4 * n + 1) : undefined,
        out: randn([tokens, 32, 128], { dtype: 'bfloat16', device, seed: 4 * n + 3 }),
      }));
      const runner = pageSize > 0 ? pagedRunner(device, params) : raggedRunner(device, params);
      return {
        run: (rotation) => runner.run(sets[rotation]!),
        dispose() {
          runner.dispose();
          for (const tensor of sets.flatMap((set) => Object.values(set))) tensor?.dispose();
        },
      };
    },
  };
}

interface BatchSet {
  readonly q: Tensor;
  readonly k: Tensor | undefined;
  readonly v: Tensor | undefined;
  readonly cache: Tensor | undefined;
  readonly out: Tensor;
}

const planned = {
  numQoHeads: 32,
  numKvHeads: 8,
  headDimQk: 128,
  causal: true,
  qDtype: 'float8_e4m3fn',
  outDtype: 'bfloat16',
} as const;

function pagedRunner(device: string, params: BatchParams) {
  const wrapper = pickWrapper((graph) => {
    const table = pageTable(params);
    const qoIndptr = indptr(params.qoLens);
    const maxima = {
      useCudaGraph: true,
      maxBatchSize: params.qoLens.length,
      maxNumPages: table.pagedKvIndices.length,
      maxNumTokens: qoIndptr.at(-1)!,
    };
    const made = new BatchPrefillWithPagedKVCacheWrapper({ device, ...(graph && maxima) });
    made.plan({ qoIndptr, ...table, ...planned });
    return made;
  });
  return {
    run: ({ q, cache, out }: BatchSet) => void wrapper.current().run(q, cache!, { out }),
    dispose: () => wrapper.dispose(),
  };
}

function raggedRunner(device: string, params: BatchParams) {
  const wrapper = pickWrapper((graph) => {
    const qoIndptr = indptr(params.qoLens);
    const maxima = { useCudaGraph: true, maxBatchSize: params.qoLens.length, maxNumTokens: qoIndptr.at(-1)! };
    const made = new BatchPrefillWithRaggedKVCacheWrapper({ device, ...(graph && maxima) });
    made.plan({ qoIndptr, kvIndptr: indptr(params.kvLens), ...planned });
    return made;
  });
  return {
    run: ({ q, k, v, out }: BatchSet) => void wrapper.current().run(q, k!, v!, { out }),
    dispose: () => wrapper.dispose(),
  };
}

export const fp8PrefillCases: DeviceCase[] = [
  ...(
    [
      [128, 32],
      [256, 16],
    ] as const
  ).flatMap(([headDim, numHeads]) =>
    [8192, 16384].flatMap((length) =>
      [true, false].map((causal) => prefillCase({ length, headDim, numHeads, causal })),
    ),
  ),
  ...(
    [
      [1, 8192],
      [16, 1024],
    ] as const
  ).flatMap(([batchSize, length]) => [0, 16, 1].map((pageSize) => batchCase(batchSize, length, pageSize))),
];
