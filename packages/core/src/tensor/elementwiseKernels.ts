// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/elementwise, one spec object an instantiation, so that getKernel finds it by identity.
import type { AotRequest } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from './dtype.ts';

export const blockThreads = 256;
/** `kUnroll` of CastConfig and CopyConfig. */
export const itemsPerThread = 4;
/** `kTile` of CopyConfig. */
export const copyTile = 32;
/** Dimensions the copy kernels take, after merging. */
export const maxCopyRank = 8;

function spec(name: string, file: string, entry: string, params: readonly ParamField[]): KernelSpec {
  const header = `flashinfer/elementwise/${file}`;
  return namedSpec(name, () => ({ name, header, entry, params, threads: blockThreads }));
}

const castParams: readonly ParamField[] = [
  { name: 'dst', type: 'ptr' },
  { name: 'src', type: 'ptr' },
  { name: 'count', type: 'i64' },
];

/** `vec` elements a memory access: 1, or {@link castVec} where both addresses are aligned to it. */
export function castSpec(src: DType, dst: DType, vec: number): KernelSpec {
  const config = `flashinfer::CastConfig<${cppType(src)}, ${cppType(dst)}, ${vec}>`;
  const name = `cast_${dtypes[src].short}_${dtypes[dst].short}_v${vec}`;
  return spec(name, 'cast.cuh', `flashinfer::cast_contiguous<${config}>`, castParams);
}

/** Elements an access so that the wider side moves 16 bytes. */
export function castVec(src: DType, dst: DType): number {
  return 16 / Math.max(dtypes[src].bytes, dtypes[dst].bytes);
}

const copyDimIndices = Array.from({ length: maxCopyRank }, (_, d) => d);
const copyParams: readonly ParamField[] = [
  ...castParams,
  ...['shape', 'src_stride', 'dst_stride'].flatMap((field) =>
    copyDimIndices.map((d): ParamField => ({ name: `${field}${d}`, type: 'i64' })),
  ),
];

const unitTypes: Record<number, string> = {
  1: 'flashinfer::uint8_t',
  2: 'flashinfer::uint16_t',
  4: 'flashinfer::uint32_t',
  8: 'flashinfer::uint64_t',
  16: 'flashinfer::Bytes16',
};

export function copySpec(kind: 'rows' | 'transposed', unitBytes: number, rank: number, wide: boolean): KernelSpec {
  const index = wide ? 'flashinfer::uint64_t' : 'flashinfer::uint32_t';
  const config = `flashinfer::CopyConfig<${unitTypes[unitBytes]}, ${rank}, ${index}>`;
  const name = `copy_${kind}_b${unitBytes}_rank${rank}${wide ? '_wide' : ''}`;
  const entry = kind === 'rows' ? 'copy_strided' : 'copy_transposed';
  return spec(name, 'copy.cuh', `flashinfer::${entry}<${config}>`, copyParams);
}

export function fillWordsSpec(): KernelSpec {
  return spec('fill_words', 'fill.cuh', 'flashinfer::fill_words', [
    { name: 'dst', type: 'ptr' },
    { name: 'count', type: 'i64' },
    { name: 'value', type: 'u64' },
  ]);
}

export function arangeSpec(dtype: DType): KernelSpec {
  return spec(`arange_${dtypes[dtype].short}`, 'fill.cuh', `flashinfer::fill_arange<${cppType(dtype)}>`, [
    { name: 'dst', type: 'ptr' },
    { name: 'count', type: 'i64' },
    { name: 'start', type: 'f64' },
    { name: 'step', type: 'f64' },
  ]);
}

/** `vec`: 4 where dst is aligned to four elements, else 1. */
export function randomSpec(distribution: 'uniform' | 'normal', dtype: DType, vec: 1 | 4): KernelSpec {
  const type = cppType(dtype);
  const values = distribution === 'uniform' ? 'UniformDistribution' : 'NormalDistribution';
  const config = `flashinfer::RandomConfig<flashinfer::${values}<${type}>, ${type}, ${vec}>`;
  const name = `random_${distribution}_${dtypes[dtype].short}_v${vec}`;
  return spec(name, 'random_fill.cuh', `flashinfer::random_fill<${config}>`, [
    { name: 'dst', type: 'ptr' },
    { name: 'count', type: 'i64' },
    { name: 'seed', type: 'u64' },
  ]);
}

/** Every template with every element type at least once, and the conversions models need, for builds ahead of time. */
export function elementwiseSpecs(): KernelSpec[] {
  const all = Object.keys(dtypes) as DType[];
  const eachToItsNext = all.map((src, i): [DType, DType] => [src, all[(i + 1) % all.length] as DType]);
  const casts: [DType, DType][] = [
    ...eachToItsNext,
    ['float32', 'float16'],
    ['float32', 'bfloat16'],
    ['float32', 'float8_e5m2'],
    ['float32', 'int32'],
    ['float16', 'float32'],
    ['float8_e4m3fn', 'float32'],
    ['float8_e5m2', 'float32'],
    ['int64', 'bfloat16'],
  ];
  return [
    ...casts.map(([src, dst]) => castSpec(src, dst, castVec(src, dst))),
    castSpec('float32', 'bfloat16', 1),
    ...[1, 2, 4, 8, 16].map((bytes) => copySpec('rows', bytes, 2, false)),
    ...[1, 2, 4, 8].map((bytes) => copySpec('transposed', bytes, 2, false)),
    copySpec('rows', 16, 3, false),
    copySpec('rows', 2, maxCopyRank, true),
    copySpec('transposed', 2, maxCopyRank, true),
    fillWordsSpec(),
    ...(['bfloat16', 'float32', 'int32', 'int64'] as const).map(arangeSpec),
    ...(['float16', 'float32', 'float8_e4m3fn'] as const).map((dtype) => randomSpec('uniform', dtype, 4)),
    ...(['bfloat16', 'float32', 'float8_e5m2'] as const).map((dtype) => randomSpec('normal', dtype, 4)),
    randomSpec('normal', 'float16', 1),
  ];
}

/**
 * What programs around a model launch: conversions among its types, random numbers to try it with, the exchange of
 * tokens and heads, where each key head has blocks of its own, and the column that checkNan reads.
 */
export function elementwiseModelSpecs({ dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  const types: DType[] = [...modelDtypes, 'float32'];
  const stored: DType[] = [...types, 'float8_e4m3fn', 'float8_e5m2'];
  const casts = types.flatMap((a) =>
    stored.flatMap((b): [DType, DType][] => [
      [a, b],
      [b, a],
    ]),
  );
  return [
    ...casts.filter(([src, dst]) => src !== dst).map(([src, dst]) => castSpec(src, dst, castVec(src, dst))),
    ...types.flatMap((dtype) => [randomSpec('uniform', dtype, 4), randomSpec('normal', dtype, 4)]),
    ...types.map(arangeSpec),
    copySpec('rows', 16, 4, false),
    copySpec('rows', 4, 1, false),
    copySpec('rows', 4, 3, false),
    copySpec('transposed', 4, 3, false),
  ];
}
