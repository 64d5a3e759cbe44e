// SPDX-License-Identifier: Apache-2.0
// A decode step of sequences with a common prefix: each reading all its keys (flat), and the prefix once for all (levels).
// Both read the same pages, so that the flat one too finds part of a short prefix in L2.
import { BatchDecodeWithPagedKVCacheWrapper, MultiLevelCascadeAttentionWrapper } from '@flashinfer/core';
import {
  type BatchParams,
  batchBuffers,
  disposeBatch,
  indptr,
  keyValueBytes,
  pageTable,
  planShape,
} from './batchCase.ts';
import type { DeviceCase, DeviceKind } from './benchCase.ts';
import { pickWrapper } from './pickWrapper.ts';

const pageSize = 16;
const shape = { numQoHeads: 32, numKvHeads: 8, headDim: 128, pageSize } as const;

interface Lengths {
  readonly batchSize: number;
  readonly prefix: number;
  readonly suffix: number;
}

/** Prefix and suffixes as one batch: what memory holds, and its pages. */
function stored({ batchSize, prefix, suffix }: Lengths): BatchParams {
  const kvLens = [prefix, ...Array.from({ length: batchSize }, () => suffix)];
  return { ...shape, qoLens: [0, ...Array.from({ length: batchSize }, () => 1)], kvLens };
}

function levelsWrapper(device: string, lengths: Lengths, graph: boolean): MultiLevelCascadeAttentionWrapper {
  const { batchSize, prefix } = lengths;
  const table = pageTable(stored(lengths));
  const prefixPages = prefix / pageSize;
  const ones = Array.from({ length: batchSize }, () => 1);
  const own = table.pagedKvIndices.subarray(prefixPages);
  const maxima = {
    useCudaGraph: true,
    maxBatchSize: [1, batchSize],
    maxNumPages: [prefixPages, own.length],
    maxNumTokens: batchSize,
  };
  const wrapper = new MultiLevelCascadeAttentionWrapper(2, { device, ...(graph && maxima) });
  wrapper.plan({
    qoIndptrArr: [[0, batchSize], indptr(ones)],
    pagedKvIndptrArr: [[0, prefixPages], table.pagedKvIndptr.subarray(1).map((entry) => entry - prefixPages)],
    pagedKvIndicesArr: [table.pagedKvIndices.subarray(0, prefixPages), own],
    pagedKvLastPageLenArr: [table.pagedKvLastPageLen.slice(0, 1), table.pagedKvLastPageLen.slice(1)],
    pageSize,
    ...planShape(stored(lengths)),
  });
  return wrapper;
}

function flatWrapper(device: string, lengths: Lengths, graph: boolean): BatchDecodeWithPagedKVCacheWrapper {
  const { batchSize, prefix, suffix } = lengths;
  const table = pageTable(stored(lengths));
  const [shared, each] = [prefix / pageSize, suffix / pageSize];
  const pagedKvIndices = new Int32Array(batchSize * (shared + each));
  for (let r = 0; r < batchSize; ++r) {
    const own = shared + r * each;
    pagedKvIndices.set(table.pagedKvIndices.subarray(0, shared), r * (shared + each));
    pagedKvIndices.set(table.pagedKvIndices.subarray(own, own + each), r * (shared + each) + shared);
  }
  const maxima = { useCudaGraph: true, maxBatchSize: batchSize, maxNumPages: pagedKvIndices.length };
  const wrapper = new BatchDecodeWithPagedKVCacheWrapper({ device, ...(graph && maxima) });
  wrapper.plan({
    pagedKvIndptr: indptr(Array.from({ length: batchSize }, () => shared + each)),
    pagedKvIndices,
    pagedKvLastPageLen: table.pagedKvLastPageLen.slice(1),
    pageSize,
    ...planShape(stored(lengths)),
  });
  return wrapper;
}

function cascadeCase(kind: 'flat' | 'levels', lengths: Lengths, device: DeviceKind): DeviceCase {
  const { batchSize, prefix, suffix } = lengths;
  const { numQoHeads, numKvHeads, headDim } = shape;
  return {
    name: `cascade/${kind}_b${batchSize}_prefix${prefix}_own${suffix}_h${numQoHeads}k${numKvHeads}_d${headDim}_bf16_ps${pageSize}`,
    params: { ...shape, ...lengths, kind, dtype: 'bfloat16' },
    devices: [device],
    kind: 'device',
    bytes: keyValueBytes(stored(lengths)),
    flops: 4 * batchSize * (prefix + suffix) * numQoHeads * headDim,
    dtype: 'bfloat16',
    setup({ device }, rotations) {
      const buffers = batchBuffers(device, rotations, stored(lengths));
      const wrappers = pickWrapper<BatchDecodeWithPagedKVCacheWrapper | MultiLevelCascadeAttentionWrapper>((graph) =>
        kind === 'flat' ? flatWrapper(device, lengths, graph) : levelsWrapper(device, lengths, graph),
      );
      return {
        run(rotation) {
          const { q, cache, out } = buffers[rotation]!;
          const wrapper: Pick<BatchDecodeWithPagedKVCacheWrapper, 'run'> = wrappers.current();
          wrapper.run(q, cache!, { out });
        },
        dispose() {
          wrappers.dispose();
          disposeBatch(buffers);
        },
      };
    },
  };
}

const lengths: readonly Lengths[] = [16, 64, 256].flatMap((batchSize) => [
  ...[1024, 8192, 32_768].map((prefix) => ({ batchSize, prefix, suffix: 256 })),
  ...(batchSize === 64 ? [128, 512].map((suffix) => ({ batchSize, prefix: 8192, suffix })) : []),
]);

export const cascadeCases: DeviceCase[] = [
  ...lengths.map((each) => [each, 'cuda'] as const),
  [{ batchSize: 16, prefix: 1024, suffix: 128 }, 'cpu'] as const,
].flatMap(([each, device]) => [cascadeCase('flat', each, device), cascadeCase('levels', each, device)]);
