// SPDX-License-Identifier: Apache-2.0
// Norms of hidden states, bound by bandwidth; one token shows the latency of a launch.
import { empty, fusedAddRmsnorm, layernormQuant, ones, randn, rmsnorm, type Tensor, zeros } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const shapes = [
  [1, 4096],
  [64, 4096],
  [1024, 4096],
  [8192, 4096],
  [8192, 8192],
] as const;

function normCase(operator: 'rmsnorm' | 'fused_add_rmsnorm', tokens: number, hiddenSize: number): DeviceCase {
  const add = operator === 'fused_add_rmsnorm';
  return {
    kind: 'device',
    name: `norm/${operator}_${tokens}x${hiddenSize}_bf16`,
    params: { tokens, hiddenSize, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    anchor: `${operator}_${tokens}x${hiddenSize}`,
    bytes: tokens * hiddenSize * 2 * (add ? 4 : 2) + hiddenSize * 2,
    flops: 0,
    setup({ device }, rotations) {
      const draw = (seed: number): Tensor => randn([tokens, hiddenSize], { dtype: 'bfloat16', device, seed });
      const weight = ones([hiddenSize], { dtype: 'bfloat16', device });
      const sets = Array.from({ length: rotations }, (_, n) => ({
        x: draw(2 * n),
        other: add ? draw(2 * n + 1) : empty([tokens, hiddenSize], { dtype: 'bfloat16', device }),
      }));
      return {
        run(rotation) {
          const { x, other } = sets[rotation]!;
          if (add) fusedAddRmsnorm(x, other, weight);
          else rmsnorm(x, weight, { out: other });
        },
        dispose() {
          for (const tensor of [weight, ...sets.flatMap(({ x, other }) => [x, other])]) tensor.dispose();
        },
      };
    },
  };
}

/** LayerNorm from bfloat16 to fp8, gamma and beta in float32. */
function layernormQuantCase(tokens: number, hiddenSize: number): DeviceCase {
  return {
    kind: 'device',
    name: `norm/layernorm_quant_${tokens}x${hiddenSize}_bf16_e4m3`,
    params: { tokens, hiddenSize, dtype: 'bfloat16', outDtype: 'float8_e4m3fn' },
    devices: ['cpu', 'cuda'],
    bytes: tokens * hiddenSize * 3 + hiddenSize * 8,
    flops: 0,
    setup({ device }, rotations) {
      const gamma = ones([hiddenSize], { device });
      const beta = zeros([hiddenSize], { device });
      const sets = Array.from({ length: rotations }, (_, seed) => ({
        x: randn([tokens, hiddenSize], { dtype: 'bfloat16', device, seed }),
        out: empty([tokens, hiddenSize], { dtype: 'float8_e4m3fn', device }),
      }));
      return {
        run(rotation) {
          const { x, out } = sets[rotation]!;
          layernormQuant(out, x, gamma, beta, 0.02);
        },
        dispose() {
          for (const tensor of [gamma, beta, ...sets.flatMap(({ x, out }) => [x, out])]) tensor.dispose();
        },
      };
    },
  };
}

export const normCases: DeviceCase[] = [
  ...shapes.flatMap(([tokens, hiddenSize]) => [
    normCase('rmsnorm', tokens, hiddenSize),
    normCase('fused_add_rmsnorm', tokens, hiddenSize),
  ]),
  layernormQuantCase(64, 4096),
  layernormQuantCase(8192, 4096),
];
