// SPDX-License-Identifier: Apache-2.0
// Batched decode over a paged KV-cache: one query token a request.
import { BatchDecodeWithPagedKVCacheWrapper } from '@flashinfer/core';
import {
  type BatchParams,
  batchBuffers,
  disposeBatch,
  keyValueBytes,
  kvSuffix,
  pageTable,
  planShape,
} from './batchCase.ts';
import type { DeviceCase, DeviceKind } from './benchCase.ts';
import { pickWrapper } from './pickWrapper.ts';

type Shape = Pick<BatchParams, 'numQoHeads' | 'numKvHeads' | 'kvDtype'> & {
  readonly headDim?: number;
  readonly pageSize?: number;
};

function paramsOf(kvLens: readonly number[], shape: Shape): BatchParams {
  return { headDim: 128, pageSize: 16, ...shape, qoLens: kvLens.map(() => 1), kvLens };
}

export function plannedDecode(device: string, kvLens: readonly number[], shape: Shape, graph: boolean) {
  const params = paramsOf(kvLens, shape);
  const table = pageTable(params);
  const maxima = { useCudaGraph: true, maxBatchSize: kvLens.length, maxNumPages: table.pagedKvIndices.length };
  const wrapper = new BatchDecodeWithPagedKVCacheWrapper({ device, ...(graph && maxima) });
  wrapper.plan({ ...table, ...planShape(params) });
  return wrapper;
}

export function decodeCase(
  name: string,
  kvLens: readonly number[],
  shape: Shape,
  anchor?: string,
  device: DeviceKind = 'cuda',
): DeviceCase {
  const params = paramsOf(kvLens, shape);
  const { numQoHeads, numKvHeads, headDim, pageSize, kvDtype } = params;
  return {
    name: `batch_decode/${name}_h${numQoHeads}k${numKvHeads}_d${headDim}_bf16${kvSuffix(kvDtype)}_ps${pageSize}`,
    params: {
      numQoHeads,
      numKvHeads,
      headDim,
      pageSize,
      batchSize: kvLens.length,
      dtype: 'bfloat16',
      ...(kvDtype && { kvDtype }),
    },
    devices: [device],
    ...(anchor !== undefined && { anchor }),
    kind: 'device',
    bytes: keyValueBytes(params),
    flops: 0,
    setup({ device }, rotations) {
      const buffers = batchBuffers(device, rotations, params);
      const wrappers = pickWrapper((graph) => plannedDecode(device, kvLens, shape, graph));
      return {
        run(rotation) {
          const { q, cache, out } = buffers[rotation]!;
          wrappers.current().run(q, cache!, { out });
        },
        dispose() {
          wrappers.dispose();
          disposeBatch(buffers);
        },
      };
    },
  };
}

const heads: readonly Shape[] = [
  { numQoHeads: 32, numKvHeads: 8 },
  { numQoHeads: 32, numKvHeads: 32 },
  { numQoHeads: 64, numKvHeads: 8 },
];
const uniformShapes = [
  [1, 1024],
  [1, 8192],
  [1, 65536],
  [16, 1024],
  [16, 8192],
  [64, 1024],
  [64, 4096],
  [128, 2048],
  [256, 1024],
] as const;

/** Lengths by Zipf's law (rank^-1), of about `total` keys: a few long requests and many short ones. */
function zipfLengths(batchSize: number, total: number): number[] {
  const weights = Array.from({ length: batchSize }, (_, rank) => 1 / (rank + 1));
  const sum = weights.reduce((a, b) => a + b, 0);
  // Every seventh rank next to each other would be the order of arrival of no server.
  return weights.map((_, i) => Math.max(1, Math.round((weights[(i * 37) % batchSize]! / sum) * total)));
}

function uniformCase(batchSize: number, kvLen: number, shape: Shape, anchor?: string, device?: DeviceKind): DeviceCase {
  const kvLens = new Array<number>(batchSize).fill(kvLen);
  return decodeCase(`b${batchSize}_kv${kvLen}`, kvLens, shape, anchor, device);
}

const grouped = heads[0]!;
const fp8: Shape = { ...grouped, kvDtype: 'float8_e4m3fn' };

export const batchDecodeCases: DeviceCase[] = [
  ...heads.flatMap((shape) =>
    uniformShapes.map(([batchSize, kvLen]) =>
      uniformCase(
        batchSize,
        kvLen,
        shape,
        `decode_B${batchSize}_L${kvLen}_H${shape.numQoHeads}k${shape.numKvHeads}_D128_ps16`,
      ),
    ),
  ),
  decodeCase('b128_zipf262144', zipfLengths(128, 262_144), grouped, 'decode_B128_L2048_H32k8_D128_ps16'),
  ...uniformShapes.map(([batchSize, kvLen]) => uniformCase(batchSize, kvLen, fp8)),
  ...(
    [
      [1, 65536],
      [64, 4096],
    ] as const
  ).flatMap(([batchSize, kvLen]) =>
    [1, 5, 64].map((pageSize) => uniformCase(batchSize, kvLen, { ...grouped, pageSize })),
  ),
  uniformCase(64, 4096, { ...fp8, pageSize: 1 }),
  // More query heads a key head than a tile of the decode template has rows.
  uniformCase(64, 16384, { numQoHeads: 64, numKvHeads: 1 }),
  ...[grouped, { ...grouped, pageSize: 1 }, fp8].map((shape) => uniformCase(4, 4096, shape, undefined, 'cpu')),
];
