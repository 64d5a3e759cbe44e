// SPDX-License-Identifier: Apache-2.0
// Batched prefill, ragged and paged: square self-attention of every request.
import { BatchPrefillWithPagedKVCacheWrapper, BatchPrefillWithRaggedKVCacheWrapper } from '@flashinfer/core';
import {
  type BatchParams,
  batchBuffers,
  batchFlops,
  disposeBatch,
  indptr,
  type KvDtype,
  keyValueBytes,
  kvSuffix,
  pageTable,
  planShape,
} from './batchCase.ts';
import type { DeviceCase, DeviceKind, PeerRequest } from './benchCase.ts';
import { pickWrapper } from './pickWrapper.ts';

export interface PrefillShape {
  readonly batchSize: number;
  readonly length: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimVo?: number;
  readonly causal: boolean;
  readonly pageSize?: number;
  /** Default: what the library takes. */
  readonly backend?: 'fa2' | 'fa3';
  /** Default: bfloat16. */
  readonly kvDtype?: KvDtype;
}

export function prefillCase(shape: PrefillShape, device: DeviceKind = 'cuda'): DeviceCase {
  const { batchSize, length, numQoHeads, numKvHeads, headDim, headDimVo = headDim, causal, pageSize = 0 } = shape;
  const params = paramsOf(shape);
  const heads = numQoHeads === numKvHeads ? `H${numQoHeads}` : `H${numQoHeads}k${numKvHeads}`;
  const pages = pageSize > 0 ? `_ps${pageSize}` : '';
  const mask = causal ? 'causal' : 'full';
  const family = pageSize > 0 ? 'paged_prefill' : 'prefill';
  const template = shape.backend === undefined ? '' : `_${shape.backend}`;
  const dims = headDimVo === headDim ? `${headDim}` : `${headDim}x${headDimVo}`;
  const dtypes = `bf16${kvSuffix(shape.kvDtype)}`;
  const plain = headDimVo === headDim && shape.kvDtype === undefined && device === 'cuda';
  return {
    name: `batch_${family}${template}/b${batchSize}_l${length}_h${numQoHeads}k${numKvHeads}_d${dims}_${dtypes}${pages}_${mask}`,
    params: { ...shape, dtype: 'bfloat16' },
    devices: [device],
    // No peer was measured with 192 and 128, with keys of float8, or on a cpu.
    ...(plain && {
      anchor: `${family}_B${batchSize}_L${length}_${heads}_D${headDim}${pages}_${mask}`,
    }),
    // PyTorch's attention takes neither pages nor different head dimensions and dtypes.
    ...(pageSize === 0 && headDimVo === headDim && !shape.kvDtype && { peer: peerRequest(shape) }),
    kind: 'device',
    bytes: keyValueBytes(params),
    flops: batchFlops(params, causal),
    dtype: 'bfloat16',
    setup({ device }, rotations) {
      const buffers = batchBuffers(device, rotations, params);
      const wrappers = pageSize > 0 ? pagedWrappers(device, shape) : raggedWrappers(device, shape);
      return {
        run: (rotation) => wrappers.run(buffers[rotation]!),
        dispose() {
          wrappers.dispose();
          disposeBatch(buffers);
        },
      };
    },
  };
}

function paramsOf(shape: PrefillShape): BatchParams {
  const { batchSize, length, numQoHeads, numKvHeads, headDim, headDimVo = headDim, pageSize = 0, kvDtype } = shape;
  const lens = Array.from({ length: batchSize }, () => length);
  return { qoLens: lens, kvLens: lens, numQoHeads, numKvHeads, headDim, headDimVo, pageSize, kvDtype };
}

function peerRequest({ batchSize, length, numQoHeads, numKvHeads, headDim, causal }: PrefillShape): PeerRequest {
  const shape = { batchSize, qoLen: length, kvLen: length, numQoHeads, numKvHeads, headDim };
  return { op: 'attention', ...shape, dtype: 'bfloat16', causal };
}

type Buffers = ReturnType<typeof batchBuffers>[number];
interface Wrappers {
  run(buffers: Buffers): void;
  dispose(): void;
}

function pagedWrappers(device: string, shape: PrefillShape): Wrappers {
  const params = paramsOf(shape);
  const { causal, backend = 'auto' } = shape;
  const table = pageTable(params);
  const qoIndptr = indptr(params.qoLens);
  const wrappers = pickWrapper((graph) => {
    const maxima = {
      useCudaGraph: true,
      maxBatchSize: params.qoLens.length,
      maxNumPages: table.pagedKvIndices.length,
      maxNumTokens: qoIndptr.at(-1)!,
    };
    const wrapper = new BatchPrefillWithPagedKVCacheWrapper({ device, backend, ...(graph && maxima) });
    wrapper.plan({ qoIndptr, ...table, ...planShape(params), causal });
    return wrapper;
  });
  return {
    run: ({ q, cache, out }) => void wrappers.current().run(q, cache!, { out }),
    dispose: () => wrappers.dispose(),
  };
}

function raggedWrappers(device: string, shape: PrefillShape): Wrappers {
  const wrappers = pickWrapper((graph) => plannedRagged(device, shape, graph));
  return {
    run: ({ q, k, v, out }) => void wrappers.current().run(q, k!, v!, { out }),
    dispose: () => wrappers.dispose(),
  };
}

export function plannedRagged(device: string, shape: PrefillShape, graph: boolean) {
  const params = paramsOf(shape);
  const qoIndptr = indptr(params.qoLens);
  const kvIndptr = indptr(params.kvLens);
  const maxima = { useCudaGraph: true, maxBatchSize: params.qoLens.length, maxNumTokens: qoIndptr.at(-1)! };
  const { backend = 'auto', causal } = shape;
  const wrapper = new BatchPrefillWithRaggedKVCacheWrapper({ device, backend, ...(graph && maxima) });
  wrapper.plan({ qoIndptr, kvIndptr, ...planShape(params), causal });
  return wrapper;
}

const grouped = { numQoHeads: 32, numKvHeads: 8, headDim: 128 };
const lengths = [
  [1, 2048],
  [1, 8192],
  [4, 4096],
  [16, 1024],
  [1, 16384],
] as const;

export const batchPrefillCases: DeviceCase[] = [
  ...(
    [
      [128, 32],
      [64, 32],
      [256, 16],
    ] as const
  ).flatMap(([headDim, numQoHeads]) =>
    lengths.flatMap(([batchSize, length]) =>
      [true, false].map((causal) =>
        prefillCase({ batchSize, length, numQoHeads, numKvHeads: numQoHeads, headDim, causal }),
      ),
    ),
  ),
  ...lengths.map(([batchSize, length]) => prefillCase({ batchSize, length, ...grouped, causal: true })),
  // DeepSeek's prefill.
  ...(
    [
      [1, 8192],
      [16, 1024],
    ] as const
  ).map(([batchSize, length]) =>
    prefillCase({ batchSize, length, numQoHeads: 32, numKvHeads: 32, headDim: 192, headDimVo: 128, causal: true }),
  ),
  ...(
    [
      [1, 8192],
      [16, 1024],
    ] as const
  ).flatMap(([batchSize, length]) =>
    [1, 16].map((pageSize) => prefillCase({ batchSize, length, ...grouped, causal: true, pageSize })),
  ),
  // What GPUs other than Hopper take.
  ...(
    [
      [1, 8192],
      [16, 1024],
    ] as const
  ).flatMap(([batchSize, length]) =>
    [0, 1, 16].map((pageSize) =>
      prefillCase({ batchSize, length, ...grouped, causal: true, pageSize, backend: 'fa2' }),
    ),
  ),
  // The fa3 template takes no keys of another dtype than the queries'.
  ...(
    [
      [1, 8192],
      [16, 1024],
    ] as const
  ).flatMap(([batchSize, length]) =>
    [0, 16].map((pageSize) =>
      prefillCase({ batchSize, length, ...grouped, causal: true, pageSize, kvDtype: 'float8_e4m3fn' }),
    ),
  ),
  ...([{}, { pageSize: 16 }, { pageSize: 16, kvDtype: 'float8_e4m3fn' }] as const).map((options) =>
    prefillCase({ batchSize: 4, length: 512, ...grouped, causal: true, ...options }, 'cpu'),
  ),
];
