// SPDX-License-Identifier: Apache-2.0
// Block sparse attention beside dense attention over the same tensors: figures count visible pairs only.
import {
  BatchPrefillWithRaggedKVCacheWrapper,
  BlockSparseAttentionWrapper,
  randn,
  type Tensor,
  VariableBlockSparseAttentionWrapper,
} from '@flashinfer/core';
import type { BenchContext, DeviceCase, DeviceKind, Operation } from './benchCase.ts';

const headDim = 128;

/** Queries and keys, and heads of both. */
interface Size {
  readonly length: number;
  readonly numHeads: number;
  readonly device: DeviceKind;
}

function planHeads({ numHeads }: Size) {
  return { numQoHeads: numHeads, numKvHeads: numHeads, headDimQk: headDim, qDtype: 'bfloat16' } as const;
}

/** Numerical Recipes' generator: the same masks in every run. */
function uniformSource(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Sets {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly out: Tensor;
}

function makeSets({ device }: BenchContext, rotations: number, shape: readonly number[]): Sets[] {
  const draw = (seed: number): Tensor => randn(shape, { dtype: 'bfloat16', device, seed });
  return Array.from({ length: rotations }, (_, n) => ({
    q: draw(4 * n),
    k: draw(4 * n + 1),
    v: draw(4 * n + 2),
    out: draw(4 * n + 3),
  }));
}

interface Attention {
  run(set: Sets): void;
  dispose(): void;
}

function sparseCase(
  name: string,
  { length, numHeads, device }: Size,
  density: number,
  visible: number,
  shape: readonly number[],
  plan: (context: BenchContext) => Attention,
): DeviceCase {
  return {
    name: `sparse/${name}_l${length}_h${numHeads}_d${headDim}_bf16`,
    params: { length, numHeads, headDim, density, dtype: 'bfloat16' },
    devices: [device],
    kind: 'device',
    bytes: 4 * length * numHeads * headDim * 2,
    flops: 4 * visible * headDim,
    dtype: 'bfloat16',
    capturable: false,
    setup(context, rotations): Operation {
      const sets = makeSets(context, rotations, shape);
      const attention = plan(context);
      return {
        run: (rotation) => attention.run(sets[rotation]!),
        dispose() {
          attention.dispose();
          for (const { q, k, v, out } of sets) for (const x of [q, k, v, out]) x.dispose();
        },
      };
    },
  };
}

const nhd = ({ length, numHeads }: Size): number[] => [length, numHeads, headDim];
const hnd = ({ length, numHeads }: Size): number[] => [numHeads, length, headDim];

function denseCase(size: Size): DeviceCase {
  const { length, numHeads } = size;
  return sparseCase('dense', size, 1, length * length * numHeads, nhd(size), ({ device }) => {
    const wrapper = new BatchPrefillWithRaggedKVCacheWrapper({ device });
    wrapper.plan({ qoIndptr: [0, length], kvIndptr: [0, length], ...planHeads(size) });
    return {
      run: ({ q, k, v, out }) => void wrapper.run(q, k, v, { out }),
      dispose: () => wrapper.dispose(),
    };
  });
}

/** R rows by C keys a block; C = 1 is vector sparsity. */
function blockCase(size: Size, R: number, C: number, density: number): DeviceCase {
  const { length, numHeads } = size;
  const uniform = uniformSource();
  const indptr = [0];
  const indices: number[] = [];
  for (let r = 0; r < length / R; ++r) {
    for (let j = 0; j < length / C; ++j) if (uniform() < density) indices.push(j);
    indptr.push(indices.length);
  }
  const visible = indices.length * R * C * numHeads;
  return sparseCase(`block${R}x${C}_density${density}`, size, density, visible, nhd(size), ({ device }) => {
    const wrapper = new BlockSparseAttentionWrapper({ device });
    wrapper.plan({ indptr, indices, M: length, N: length, R, C, ...planHeads(size) });
    return {
      run: ({ q, k, v, out }) => void wrapper.run(q, k, v, { out }),
      dispose: () => wrapper.dispose(),
    };
  });
}

/** As FlashInfer's benchmark: 20 rows and 50 columns of blocks of random sizes, the same density for every head. */
function variableCase(size: Size, density: number): DeviceCase {
  const { length, numHeads } = size;
  const uniform = uniformSource();
  const cut = (count: number): number[] => {
    const ends = Array.from({ length: count - 1 }, () => 1 + Math.floor(uniform() * (length - 1))).sort(
      (a, b) => a - b,
    );
    return [...ends, length].map((end, i) => end - (ends[i - 1] ?? 0));
  };
  const rows = Array.from({ length: numHeads }, () => cut(20));
  const columns = Array.from({ length: numHeads }, () => cut(50));
  const map = Uint8Array.from({ length: numHeads * 20 * 50 }, () => (uniform() < density ? 1 : 0));
  let visible = 0;
  for (const [i, bit] of map.entries()) {
    const head = Math.floor(i / 1000);
    if (bit === 1) visible += rows[head]![Math.floor((i % 1000) / 50)]! * columns[head]![i % 50]!;
  }
  return sparseCase(`variable_density${density}`, size, density, visible, hnd(size), ({ device }) => {
    const wrapper = new VariableBlockSparseAttentionWrapper({ device });
    wrapper.plan({ blockMaskMap: map, blockRowSz: rows.flat(), blockColSz: columns.flat(), ...planHeads(size) });
    return {
      run: ({ q, k, v, out }) => void wrapper.run(q, k, v, { out }),
      dispose: () => wrapper.dispose(),
    };
  });
}

const large: Size = { length: 8192, numHeads: 32, device: 'cuda' };
const small: Size = { length: 1024, numHeads: 8, device: 'cpu' };

export const sparseCases: DeviceCase[] = [
  denseCase(large),
  ...[0.1, 0.5].flatMap((density) => [
    blockCase(large, 128, 128, density),
    blockCase(large, 64, 64, density),
    blockCase(large, 16, 16, density),
    blockCase(large, 64, 1, density),
  ]),
  ...[0.1, 0.5, 0.9].map((density) => variableCase(large, density)),
  denseCase(small),
  blockCase(small, 64, 64, 0.5),
  blockCase(small, 64, 1, 0.5),
  variableCase(small, 0.5),
];
