// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings in place: bound by bandwidth; one token shows the latency of a launch.
import { applyRopePosIdsInplace, applyRopeWithCosSinCacheInplace, arange, randn } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const [numQoHeads, numKvHeads, headDim] = [32, 8, 128];

function ropeCase(source: 'cache' | 'posids', tokens: number): DeviceCase {
  const cached = source === 'cache';
  return {
    kind: 'device',
    name: `rope/${source}_inplace_T${tokens}_32_8_d128_bf16`,
    params: { tokens, numQoHeads, numKvHeads, headDim, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    ...(cached ? { anchor: `rope_cache_inplace_T${tokens}_32k8` } : {}),
    bytes: tokens * ((numQoHeads + numKvHeads) * headDim * 2 * 2 + (cached ? headDim * 4 : 0) + 4),
    flops: 0,
    setup({ device }, rotations) {
      const positions = arange([tokens], { dtype: 'int32', device });
      const table = randn([tokens, headDim], { dtype: 'float32', device, seed: 1 });
      const sets = Array.from({ length: rotations }, (_, n) => {
        const qkv = randn([tokens, numQoHeads + 2 * numKvHeads, headDim], { dtype: 'bfloat16', device, seed: n });
        const q = qkv.slice(1, 0, numQoHeads);
        return { qkv, q, k: qkv.slice(1, numQoHeads, numQoHeads + numKvHeads) };
      });
      return {
        run(rotation) {
          const { q, k } = sets[rotation]!;
          if (cached) applyRopeWithCosSinCacheInplace(positions, q, k, headDim, table);
          else applyRopePosIdsInplace(q, k, positions);
        },
        dispose() {
          for (const tensor of [positions, table, ...sets.flatMap(({ qkv, q, k }) => [q, k, qkv])]) tensor.dispose();
        },
      };
    },
  };
}

export const ropeCases: DeviceCase[] = [1, 64, 1024, 8192].flatMap((tokens) => [
  ropeCase('cache', tokens),
  ropeCase('posids', tokens),
]);
