// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/activation.cuh: how rows are spread over threads, and the spec of each instantiation.
import { type AotRequest, tensorParallelSizes } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

/** C++ functors; the codes are those of ActivationKind in csrc/cpu/activation. */
export const activations = {
  silu: { cpp: 'Silu', code: 0 },
  gelu: { cpp: 'Gelu', code: 1 },
  gelu_tanh: { cpp: 'GeluTanh', code: 2 },
} as const;
export type Activation = keyof typeof activations;

/** Template arguments of ActivationConfig, and the blocks that share a row. */
export interface ActivationTile {
  readonly vec: number;
  readonly cols: number;
  readonly rows: number;
  readonly chunks: number;
}

/** Threads a multiprocessor holds. */
const threadsPerSm = 2048;

/**
 * `length`: elements of half a row. Rows are cut into equal blocks without idle warps, small ones where that fills more
 * multiprocessors; short rows share a block.
 */
export function chooseActivationTile(length: number, vec: number, numRows: number, numSms: number): ActivationTile {
  const vectors = length / vec;
  if (vectors <= 32) {
    const cols = 2 ** Math.ceil(Math.log2(vectors));
    return { vec, cols, rows: 128 / cols, chunks: 1 };
  }
  const many = vectors * numRows >= 2 * numSms * threadsPerSm;
  const chunks = Math.ceil(vectors / (many ? 512 : 128));
  return { vec, cols: 32 * Math.ceil(vectors / (chunks * 32)), rows: 1, chunks };
}

const params: readonly ParamField[] = [
  { name: 'out', type: 'ptr' },
  { name: 'x', type: 'ptr' },
  { name: 'out_stride', type: 'i64' },
  { name: 'x_stride', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'vectors', type: 'i32' },
  { name: 'chunks', type: 'i32' },
  { name: 'chunks_multiplier', type: 'u32' },
];

export function activationSpec(activation: Activation, dtype: DType, tile: ActivationTile): KernelSpec {
  const { vec, cols, rows } = tile;
  const name = `${activation}_and_mul_${dtypes[dtype].short}_v${vec}_${cols}x${rows}`;
  return namedSpec(name, () => {
    const functor = `flashinfer::${activations[activation].cpp}`;
    const config = `flashinfer::ActivationConfig<${cppType(dtype)}, ${functor}, ${vec}, ${cols}, ${rows}>`;
    const entry = `flashinfer::act_and_mul<${config}>`;
    return { name, header: 'flashinfer/activation.cuh', entry, params, threads: cols * rows };
  });
}

/** Every activation, dtype and way to spread rows at least once, for prebuilt kernels and compile checks. */
export function activationSpecs(): KernelSpec[] {
  return [
    activationSpec('silu', 'bfloat16', chooseActivationTile(14336, 8, 8192, 132)),
    activationSpec('silu', 'bfloat16', chooseActivationTile(14336, 8, 1, 132)),
    activationSpec('silu', 'float16', chooseActivationTile(64, 8, 8192, 132)),
    activationSpec('silu', 'float16', chooseActivationTile(111, 1, 8192, 132)),
    activationSpec('gelu', 'float16', chooseActivationTile(14336, 8, 8192, 132)),
    activationSpec('gelu_tanh', 'bfloat16', chooseActivationTile(14336, 8, 8192, 132)),
    activationSpec('gelu', 'float32', chooseActivationTile(14336, 4, 8192, 132)),
  ];
}

/** Activations of models, whole and split over GPUs, for few rows, as in decode, and for many. */
export function activationModelSpecs({ models, dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  return models.flatMap(({ activation, intermediate }) =>
    (activation === undefined ? [] : tensorParallelSizes).flatMap((parts) =>
      [1, 1 << 20].flatMap((rows) => {
        const tile = chooseActivationTile(intermediate / parts, 8, rows, 132);
        return modelDtypes.map((dtype) => activationSpec(activation!, dtype, tile));
      }),
    ),
  );
}
