// SPDX-License-Identifier: Apache-2.0
// What concurrency tests run in threads and streams: the steps of a decode and a prefill wrapper, repeatable bit by bit.
import {
  appendPagedKVCache,
  BatchDecodeWithPagedKVCacheWrapper,
  BatchPrefillWithPagedKVCacheWrapper,
  cuda,
  getBatchIndicesPositions,
  randn,
  type Tensor,
  zeros,
} from '../../src/index.ts';

const [numQoHeads, numKvHeads, headDim, pageSize, batchSize, maxLength] = [8, 2, 64, 16, 3, 150];
const heads = { numQoHeads, numKvHeads, headDimQk: headDim, pageSize };
const pagesEach = Math.ceil(maxLength / pageSize);

export interface Work {
  readonly device: string;
  readonly seed: number;
  readonly steps: number;
  /** On a GPU: each wrapper on a stream of its own, and nothing waits; otherwise one after the other. */
  readonly together: boolean;
}

/** The outputs of all steps. */
export function runWrappers({ device, seed, steps, together }: Work): Float32Array[] {
  const onGpu = device !== 'cpu';
  const decode = new BatchDecodeWithPagedKVCacheWrapper({ device });
  const prefill = new BatchPrefillWithPagedKVCacheWrapper({ device });
  const caches = [seed, seed + 1].map(() =>
    zeros([batchSize * pagesEach, 2, pageSize, numKvHeads, headDim], { dtype: 'float16', device }),
  );
  if (onGpu) cuda.synchronizeSync();
  const streams = together && onGpu ? [new cuda.Stream({ device }), new cuda.Stream({ device })] : [];
  const on = (n: number, run: () => Tensor): Tensor => {
    const stream = streams[n];
    const out = stream === undefined ? run() : cuda.withStream(stream, run);
    if (!together && onGpu) cuda.synchronizeSync();
    return out;
  };

  const outs: Tensor[] = [];
  for (let step = 0; step < steps; ++step) {
    const draw = seed + 10 * step;
    outs.push(
      on(0, () => {
        const kvLens = lengths(draw);
        append(caches[0]!, kvLens, device, draw);
        decode.plan({ ...pageTable(kvLens), ...heads });
        return decode.run(
          randn([batchSize, numQoHeads, headDim], { dtype: 'float16', device, seed: draw }),
          caches[0]!,
        );
      }),
      on(1, () => {
        const kvLens = lengths(draw + 1);
        append(caches[1]!, kvLens, device, draw + 2);
        prefill.plan({ ...pageTable(kvLens), ...heads, qoIndptr: [0, 1, 8, 40], causal: true });
        return prefill.run(randn([40, numQoHeads, headDim], { dtype: 'float16', device, seed: draw }), caches[1]!);
      }),
    );
  }
  for (const stream of streams) stream.synchronizeSync();
  return outs.map((out) => out.toArraySync() as Float32Array);
}

/** From 40, the most queries of a request, to maxLength. */
function lengths(draw: number): number[] {
  return Array.from({ length: batchSize }, (_, r) => 40 + ((draw * 7919 + r * 104729) % (maxLength - 39)));
}

/** New values for every token. */
function append(cache: Tensor, kvLens: readonly number[], device: string, seed: number): void {
  const indptr = [0];
  for (const length of kvLens) indptr.push(indptr.at(-1)! + length);
  const nnz = indptr.at(-1)!;
  const [batchIndices, positions] = getBatchIndicesPositions(indptr, kvLens, nnz);
  const [k, v] = [seed, seed + 1].map((n) => randn([nnz, numKvHeads, headDim], { dtype: 'float16', device, seed: n }));
  const { pagedKvIndices: kvIndices, pagedKvIndptr: kvIndptr } = pageTable(kvLens);
  appendPagedKVCache(k!, v!, { batchIndices, positions, pagedKVCache: cache, kvIndices, kvIndptr });
}

function pageTable(kvLens: readonly number[]) {
  const pages = kvLens.map((length, r) =>
    Array.from({ length: Math.ceil(length / pageSize) }, (_, i) => i * batchSize + r),
  );
  const pagedKvIndptr = [0];
  for (const { length } of pages) pagedKvIndptr.push(pagedKvIndptr.at(-1)! + length);
  const pagedKvLastPageLen = kvLens.map((length) => ((length - 1) % pageSize) + 1);
  return { pagedKvIndptr, pagedKvIndices: pages.flat(), pagedKvLastPageLen };
}
