// SPDX-License-Identifier: Apache-2.0
// Norms of hidden states and of the heads of q and k, bound by bandwidth; one token shows the latency of a launch.
import {
  empty,
  fusedAddRmsnorm,
  fusedAddRmsnormQuant,
  gemmaFusedAddRmsnorm,
  gemmaRmsnorm,
  layernorm,
  layernormQuant,
  ones,
  randn,
  rmsnorm,
  rmsnormQuant,
  type Tensor,
  zeros,
} from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

interface Buffers {
  readonly x: Tensor;
  /** The residual of the norms that add; empty in the others. */
  readonly residual: Tensor;
  readonly out: Tensor;
  readonly weight: Tensor;
  readonly bias: Tensor;
}

interface Norm {
  readonly run: (buffers: Buffers) => unknown;
  /** Reads and writes the residual, and writes x where there is no quantised output. */
  readonly adds?: boolean;
  readonly quantizes?: boolean;
  /** Weights of float32, and a bias. */
  readonly centers?: boolean;
  readonly anchored?: boolean;
}

/** The scale of a norm's output, whose largest values are about 4. */
const outScale = 0.01;

const norms: Readonly<Record<string, Norm>> = {
  rmsnorm: { run: ({ x, weight, out }) => rmsnorm(x, weight, { out }), anchored: true },
  fused_add_rmsnorm: {
    run: ({ x, residual, weight }) => fusedAddRmsnorm(x, residual, weight),
    adds: true,
    anchored: true,
  },
  gemma_rmsnorm: { run: ({ x, weight, out }) => gemmaRmsnorm(x, weight, { out }) },
  gemma_fused_add_rmsnorm: { run: ({ x, residual, weight }) => gemmaFusedAddRmsnorm(x, residual, weight), adds: true },
  layernorm: { run: ({ x, weight, bias, out }) => layernorm(x, weight, bias, { out }), centers: true },
  layernorm_quant: {
    run: ({ x, weight, bias, out }) => layernormQuant(out, x, weight, bias, outScale),
    centers: true,
    quantizes: true,
  },
  rmsnorm_quant: { run: ({ x, weight, out }) => rmsnormQuant(out, x, weight, outScale), quantizes: true },
  fused_add_rmsnorm_quant: {
    run: ({ x, residual, weight, out }) => fusedAddRmsnormQuant(out, x, residual, weight, outScale),
    adds: true,
    quantizes: true,
  },
};

/** x and the output, the residual read and written, the weights once. */
function normBytes({ adds, quantizes, centers }: Norm, tokens: number, hiddenSize: number): number {
  const element = 2 + (adds ? 4 : 0) + (quantizes ? 1 : 2);
  return tokens * hiddenSize * element + hiddenSize * (centers ? 8 : 2);
}

function normCase(operator: string, tokens: number, hiddenSize: number): DeviceCase {
  const norm = norms[operator]!;
  const { adds, quantizes, centers, anchored } = norm;
  const outDtype = quantizes ? 'float8_e4m3fn' : 'bfloat16';
  return {
    kind: 'device',
    name: `norm/${operator}_${tokens}x${hiddenSize}_bf16${quantizes ? '_e4m3' : ''}`,
    params: { tokens, hiddenSize, dtype: 'bfloat16', ...(quantizes && { outDtype }) },
    devices: ['cpu', 'cuda'],
    ...(anchored && { anchor: `${operator}_${tokens}x${hiddenSize}` }),
    bytes: normBytes(norm, tokens, hiddenSize),
    flops: 0,
    setup({ device }, rotations) {
      const shape = [tokens, hiddenSize];
      const draw = (seed: number): Tensor => randn(shape, { dtype: 'bfloat16', device, seed });
      const ofWeights = { dtype: centers ? 'float32' : 'bfloat16', device } as const;
      const weights = { weight: ones([hiddenSize], ofWeights), bias: zeros([centers ? hiddenSize : 0], ofWeights) };
      const sets = Array.from({ length: rotations }, (_, n) => ({
        x: draw(2 * n),
        residual: adds ? draw(2 * n + 1) : empty([0], { dtype: 'bfloat16', device }),
        // What adds without quantising writes x.
        out: empty(adds && !quantizes ? [0] : shape, { dtype: outDtype, device }),
        ...weights,
      }));
      return {
        run: (rotation) => void norm.run(sets[rotation]!),
        dispose() {
          for (const { x, residual, out } of sets) for (const each of [x, residual, out]) each.dispose();
          for (const each of Object.values(weights)) each.dispose();
        },
      };
    },
  };
}

/** The norm of the heads of q (32) or k (8) in the output of their projection, in place, as Qwen 3 has it. */
function headsCase(tokens: number, numHeads: number): DeviceCase {
  const headDim = 128;
  const allHeads = 48;
  return {
    kind: 'device',
    name: `norm/rmsnorm_${tokens}x${numHeads}x${headDim}_bf16`,
    params: { tokens, numHeads, headDim, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    bytes: tokens * numHeads * headDim * 2 * 2 + headDim * 2,
    flops: 0,
    setup({ device }, rotations) {
      const weight = ones([headDim], { dtype: 'bfloat16', device });
      const sets = Array.from({ length: rotations }, (_, seed) => {
        const qkv = randn([tokens, allHeads, headDim], { dtype: 'bfloat16', device, seed });
        return { qkv, heads: qkv.slice(1, 0, numHeads) };
      });
      return {
        run(rotation) {
          const { heads } = sets[rotation]!;
          rmsnorm(heads, weight, { out: heads });
        },
        dispose() {
          for (const each of [weight, ...sets.flatMap(({ qkv, heads }) => [heads, qkv])]) each.dispose();
        },
      };
    },
  };
}

const shapes = [
  [1, 4096],
  [64, 4096],
  [1024, 4096],
  [8192, 4096],
  [8192, 8192],
] as const;

export const normCases: DeviceCase[] = [
  ...shapes.flatMap(([tokens, hiddenSize]) =>
    Object.keys(norms).map((operator) => normCase(operator, tokens, hiddenSize)),
  ),
  ...[1, 64, 8192].flatMap((tokens) => [headsCase(tokens, 32), headsCase(tokens, 8)]),
];
