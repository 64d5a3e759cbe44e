// SPDX-License-Identifier: Apache-2.0
// Writing new tokens into a paged KV-cache: bound by bandwidth; one token a request shows the latency of a launch.
import { appendPagedKVCache, getBatchIndicesPositions, randn, type Tensor, tensor, zeros } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const [numKvHeads, headDim, pageSize] = [8, 128, 16];

/** `batch` requests with `tokens` new tokens each, and none before. */
function appendCase(batch: number, tokens: number): DeviceCase {
  const nnz = batch * tokens;
  const pagesEach = Math.ceil(tokens / pageSize);
  return {
    kind: 'device',
    name: `append/paged_kv_B${batch}_A${tokens}_8_d128_p16_bf16`,
    params: { batch, tokens, numKvHeads, headDim, pageSize, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    anchor: `append_paged_kv_B${batch}_A${tokens}`,
    bytes: nnz * (numKvHeads * headDim * 2 * 4 + 8),
    flops: 0,
    setup({ device }, rotations) {
      const place = (values: ArrayLike<number>): Tensor => tensor(Array.from(values), { dtype: 'int32', device });
      const indptr = Array.from({ length: batch + 1 }, (_, r) => r * pagesEach);
      const [requests, places] = getBatchIndicesPositions(
        Array.from({ length: batch + 1 }, (_, r) => r * tokens),
        Array.from({ length: batch }, () => tokens),
        nnz,
      );
      const [batchIndices, positions, kvIndptr] = [requests, places, indptr].map(place) as [Tensor, Tensor, Tensor];
      // Pages in an order without runs, as after much allocating and freeing.
      const numPages = batch * pagesEach;
      const kvIndices = place(Array.from({ length: numPages }, (_, i) => (i * 7919) % numPages));
      const sets = Array.from({ length: rotations }, (_, n) => {
        const draw = (seed: number): Tensor => randn([nnz, numKvHeads, headDim], { dtype: 'bfloat16', device, seed });
        const cache = zeros([numPages, 2, pageSize, numKvHeads, headDim], { dtype: 'bfloat16', device });
        return { k: draw(2 * n), v: draw(2 * n + 1), cache };
      });
      return {
        run(rotation) {
          const { k, v, cache } = sets[rotation]!;
          appendPagedKVCache(k, v, { batchIndices, positions, pagedKVCache: cache, kvIndices, kvIndptr });
        },
        dispose() {
          for (const x of [batchIndices, positions, kvIndptr, kvIndices]) x.dispose();
          for (const { k, v, cache } of sets) for (const x of [k, v, cache]) x.dispose();
        },
      };
    },
  };
}

export const appendCases: DeviceCase[] = [appendCase(64, 1), appendCase(1, 4096), appendCase(16, 1024)];
