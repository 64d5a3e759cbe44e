// SPDX-License-Identifier: Apache-2.0
// Prefill with queries, keys and values of float8_e4m3fn, the output in bfloat16: square self-attention of one prompt.
import { randn, singlePrefillWithKVCache } from '@flashinfer/core';
import { type AttentionParams, attentionFlops } from './attentionCase.ts';
import type { DeviceCase } from './benchCase.ts';

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

export const fp8PrefillCases: DeviceCase[] = (
  [
    [128, 32],
    [256, 16],
  ] as const
).flatMap(([headDim, numHeads]) =>
  [8192, 16384].flatMap((length) => [true, false].map((causal) => prefillCase({ length, headDim, numHeads, causal }))),
);
