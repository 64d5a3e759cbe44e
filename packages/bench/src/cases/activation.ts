// SPDX-License-Identifier: Apache-2.0
// Gated activations, bound by bandwidth; one token shows the latency of a launch.
import { empty, geluAndMul, geluTanhAndMul, randn, siluAndMul } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

/** Hidden size of Llama 3 8B's feed-forward layers. */
const length = 14336;

const activations = { silu: siluAndMul, gelu: geluAndMul, gelu_tanh: geluTanhAndMul } as const;

function activationCase(name: keyof typeof activations, tokens: number): DeviceCase {
  const activation = activations[name];
  return {
    kind: 'device',
    name: `activation/${name}_and_mul_${tokens}x${length}_bf16`,
    params: { tokens, length, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    ...(name === 'silu' && { anchor: `silu_and_mul_${tokens}x${length}` }),
    bytes: tokens * length * 3 * 2,
    flops: 0,
    setup({ device }, rotations) {
      const sets = Array.from({ length: rotations }, (_, seed) => ({
        x: randn([tokens, 2 * length], { dtype: 'bfloat16', device, seed }),
        out: empty([tokens, length], { dtype: 'bfloat16', device }),
      }));
      return {
        run(rotation) {
          const { x, out } = sets[rotation]!;
          activation(x, { out });
        },
        dispose() {
          for (const { x, out } of sets) {
            x.dispose();
            out.dispose();
          }
        },
      };
    },
  };
}

export const activationCases: DeviceCase[] = [1, 64, 1024, 8192].flatMap((tokens) =>
  (['silu', 'gelu', 'gelu_tanh'] as const).map((name) => activationCase(name, tokens)),
);
