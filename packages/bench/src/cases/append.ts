// SPDX-License-Identifier: Apache-2.0
// Writing new tokens into a paged KV-cache, and finding their places: bound by bandwidth; one token a request shows the
// latency of a launch.
import {
  appendPagedKVCache,
  appendPagedMlaKVCache,
  type Device,
  getBatchIndicesPositions,
  getSeqLens,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const place = (values: ArrayLike<number>, device: Device): Tensor =>
  tensor(Array.from(values), { dtype: 'int32', device });

/** Places of `batch` requests with `tokens` new tokens each, and none before. */
function appendTable(device: Device, batch: number, tokens: number, pageSize: number) {
  const nnz = batch * tokens;
  const pagesEach = Math.ceil(tokens / pageSize);
  const numPages = batch * pagesEach;
  const [requests, places] = getBatchIndicesPositions(
    Array.from({ length: batch + 1 }, (_, r) => r * tokens),
    Array.from({ length: batch }, () => tokens),
    nnz,
  );
  return {
    batchIndices: place(requests, device),
    positions: place(places, device),
    // Pages in an order without runs, as after much allocating and freeing.
    kvIndices: place(
      Array.from({ length: numPages }, (_, i) => (i * 7919) % numPages),
      device,
    ),
    kvIndptr: place(
      Array.from({ length: batch + 1 }, (_, r) => r * pagesEach),
      device,
    ),
  };
}

function appendCase(batch: number, tokens: number): DeviceCase {
  const [numKvHeads, headDim, pageSize] = [8, 128, 16];
  const nnz = batch * tokens;
  return {
    kind: 'device',
    name: `append/paged_kv_B${batch}_A${tokens}_8_d128_p16_bf16`,
    params: { batch, tokens, numKvHeads, headDim, pageSize, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    anchor: `append_paged_kv_B${batch}_A${tokens}`,
    bytes: nnz * (numKvHeads * headDim * 2 * 4 + 8),
    flops: 0,
    setup({ device }, rotations) {
      const table = appendTable(device, batch, tokens, pageSize);
      const numPages = table.kvIndices.size;
      const sets = Array.from({ length: rotations }, (_, n) => {
        const draw = (seed: number): Tensor => randn([nnz, numKvHeads, headDim], { dtype: 'bfloat16', device, seed });
        const cache = zeros([numPages, 2, pageSize, numKvHeads, headDim], { dtype: 'bfloat16', device });
        return { k: draw(2 * n), v: draw(2 * n + 1), cache };
      });
      return {
        run(rotation) {
          const { k, v, cache } = sets[rotation]!;
          appendPagedKVCache(k, v, { ...table, pagedKVCache: cache });
        },
        dispose() {
          for (const x of [...Object.values(table), ...sets.flatMap(({ k, v, cache }) => [k, v, cache])]) x.dispose();
        },
      };
    },
  };
}

/** The cache of multi-head latent attention, with DeepSeek's dimensions. */
function appendMlaCase(batch: number, tokens: number): DeviceCase {
  const [headDimCkv, headDimKpe, pageSize] = [512, 64, 64];
  const nnz = batch * tokens;
  return {
    kind: 'device',
    name: `append/paged_mla_B${batch}_A${tokens}_ckv${headDimCkv}_kpe${headDimKpe}_p${pageSize}_bf16`,
    params: { batch, tokens, headDimCkv, headDimKpe, pageSize, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    bytes: nnz * ((headDimCkv + headDimKpe) * 2 * 2 + 8),
    flops: 0,
    setup({ device }, rotations) {
      const table = appendTable(device, batch, tokens, pageSize);
      const numPages = table.kvIndices.size;
      const options = { dtype: 'bfloat16', device } as const;
      const sets = Array.from({ length: rotations }, (_, n) => ({
        ckv: randn([nnz, headDimCkv], { ...options, seed: 2 * n }),
        kpe: randn([nnz, headDimKpe], { ...options, seed: 2 * n + 1 }),
        ckvCache: zeros([numPages, pageSize, headDimCkv], options),
        kpeCache: zeros([numPages, pageSize, headDimKpe], options),
      }));
      return {
        run(rotation) {
          const { ckv, kpe, ckvCache, kpeCache } = sets[rotation]!;
          appendPagedMlaKVCache(ckv, kpe, { ...table, ckvCache, kpeCache });
        },
        dispose() {
          for (const x of [table, ...sets].flatMap((set) => Object.values(set))) x.dispose();
        },
      };
    },
  };
}

/** Request and position of each new token, from tensors, written where a graph expects them. */
function placesCase(batch: number, tokens: number): DeviceCase {
  const nnz = batch * tokens;
  return {
    kind: 'device',
    name: `append/batch_indices_positions_B${batch}_A${tokens}`,
    params: { batch, tokens },
    devices: ['cpu', 'cuda'],
    bytes: nnz * 8 + (2 * batch + 1) * 4,
    flops: 0,
    setup({ device }) {
      const appendIndptr = place(
        Array.from({ length: batch + 1 }, (_, r) => r * tokens),
        device,
      );
      const seqLens = place(new Int32Array(batch).fill(1000 + tokens), device);
      const out = {
        batchIndices: zeros([nnz], { dtype: 'int32', device }),
        positions: zeros([nnz], { dtype: 'int32', device }),
      };
      return {
        run: () => void getBatchIndicesPositions(appendIndptr, seqLens, nnz, out),
        dispose() {
          for (const x of [appendIndptr, seqLens, ...Object.values(out)]) x.dispose();
        },
      };
    },
  };
}

function seqLensCase(batch: number): DeviceCase {
  const [pagesEach, pageSize] = [64, 16];
  return {
    kind: 'device',
    name: `append/seq_lens_B${batch}_p${pageSize}`,
    params: { batch, pageSize },
    devices: ['cpu', 'cuda'],
    bytes: (3 * batch + 1) * 4,
    flops: 0,
    setup({ device }) {
      const kvIndptr = place(
        Array.from({ length: batch + 1 }, (_, r) => r * pagesEach),
        device,
      );
      const kvLastPageLen = place(new Int32Array(batch).fill(5), device);
      return {
        run: () => getSeqLens(kvIndptr, kvLastPageLen, pageSize).dispose(),
        dispose() {
          for (const x of [kvIndptr, kvLastPageLen]) x.dispose();
        },
      };
    },
  };
}

const shapes = [
  [64, 1],
  [1, 4096],
  [16, 1024],
] as const;

export const appendCases: DeviceCase[] = [
  ...shapes.flatMap(([batch, tokens]) => [
    appendCase(batch, tokens),
    appendMlaCase(batch, tokens),
    placesCase(batch, tokens),
  ]),
  ...[1, 256].map(seqLensCase),
];
