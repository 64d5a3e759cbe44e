// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings: bound by bandwidth; one token shows the latency of a launch.
import {
  applyLlama31Rope,
  applyLlama31RopeInplace,
  applyLlama31RopePosIds,
  applyLlama31RopePosIdsInplace,
  applyRope,
  applyRopeInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  arange,
  type Device,
  full,
  randn,
  type Tensor,
  tensor,
} from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const [numQoHeads, numKvHeads, headDim] = [32, 8, 128];

/** What says where the tokens stand: a row of `table` or an angle for each, or requests of tokens that follow each other. */
interface Places {
  readonly positions: Tensor;
  readonly table: Tensor;
  readonly indptr: Tensor;
  readonly offsets: Tensor;
}

// biome-ignore lint/suspicious/noConfusingVoidType: what writes in place returns nothing.
type Rotate = (q: Tensor, k: Tensor, places: Places) => readonly [Tensor, Tensor] | void;

const operators: Readonly<Record<string, Rotate>> = {
  cache_inplace: (q, k, { positions, table }) => applyRopeWithCosSinCacheInplace(positions, q, k, headDim, table),
  posids_inplace: (q, k, { positions }) => applyRopePosIdsInplace(q, k, positions),
  requests_inplace: (q, k, { indptr, offsets }) => applyRopeInplace(q, k, indptr, offsets),
  llama31_posids_inplace: (q, k, { positions }) => applyLlama31RopePosIdsInplace(q, k, positions),
  llama31_requests_inplace: (q, k, { indptr, offsets }) => applyLlama31RopeInplace(q, k, indptr, offsets),
  cache: (q, k, { positions, table }) => applyRopeWithCosSinCache(positions, q, k, headDim, table),
  posids: (q, k, { positions }) => applyRopePosIds(q, k, positions),
  requests: (q, k, { indptr, offsets }) => applyRope(q, k, indptr, offsets),
  llama31_posids: (q, k, { positions }) => applyLlama31RopePosIds(q, k, positions),
  llama31_requests: (q, k, { indptr, offsets }) => applyLlama31Rope(q, k, indptr, offsets),
};

/** Decode steps of up to 64 requests, and prompts of 512 tokens. */
const requestLength = (tokens: number): number => (tokens <= 64 ? 1 : 512);

function makePlaces(device: Device, tokens: number): Places {
  const step = requestLength(tokens);
  const batchSize = tokens / step;
  const place = (values: number[]): Tensor => tensor(values, { dtype: 'int32', device });
  return {
    positions: arange([tokens], { dtype: 'int32', device }),
    table: randn([tokens, headDim], { dtype: 'float32', device, seed: 1 }),
    indptr: place(Array.from({ length: batchSize + 1 }, (_, r) => r * step)),
    offsets: full([batchSize], 1000, { dtype: 'int32', device }),
  };
}

/** q and k read and written, and for each token a position and a row of the table, or for each request its place. */
function ropeBytes(operator: string, tokens: number): number {
  const requests = operator.includes('requests');
  const placeBytes = requests ? (2 * tokens) / requestLength(tokens) + 1 : tokens;
  const tableBytes = operator.startsWith('cache') ? tokens * headDim * 4 : 0;
  return tokens * (numQoHeads + numKvHeads) * headDim * 2 * 2 + tableBytes + placeBytes * 4;
}

function ropeCase(operator: string, tokens: number): DeviceCase {
  const rotate = operators[operator]!;
  return {
    kind: 'device',
    name: `rope/${operator}_T${tokens}_32_8_d128_bf16`,
    params: { tokens, numQoHeads, numKvHeads, headDim, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    ...(operator === 'cache_inplace' && { anchor: `rope_cache_inplace_T${tokens}_32k8` }),
    bytes: ropeBytes(operator, tokens),
    flops: 0,
    setup({ device }, rotations) {
      const places = makePlaces(device, tokens);
      const sets = Array.from({ length: rotations }, (_, n) => {
        const qkv = randn([tokens, numQoHeads + 2 * numKvHeads, headDim], { dtype: 'bfloat16', device, seed: n });
        const q = qkv.slice(1, 0, numQoHeads);
        return { qkv, q, k: qkv.slice(1, numQoHeads, numQoHeads + numKvHeads) };
      });
      return {
        run(rotation) {
          const { q, k } = sets[rotation]!;
          for (const rotated of rotate(q, k, places) ?? []) rotated.dispose();
        },
        dispose() {
          for (const each of Object.values(places)) each.dispose();
          for (const { qkv, q, k } of sets) for (const each of [q, k, qkv]) each.dispose();
        },
      };
    },
  };
}

export const ropeCases: DeviceCase[] = [1, 64, 1024, 8192].flatMap((tokens) =>
  Object.keys(operators).map((operator) => ropeCase(operator, tokens)),
);
