// SPDX-License-Identifier: Apache-2.0
// One attention request after validation: what the cpu operator and the CUDA planners are given.
import type { Checker } from '../check/checker.ts';
import { mayOverlap } from '../check/overlap.ts';
import { InvalidArgumentError, UnsupportedError } from '../errors.ts';
import type { Device } from '../runtime/device.ts';
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { HeadScales } from './headScales.ts';
import type { AttentionBackend, AttentionNumbers } from './options.ts';
import type { VariantArgs } from './variantArgs.ts';

/** Values of MaskMode in include/flashinfer/attention/variant.cuh and of `maskMode` in csrc/cpu. */
export const maskModes = { none: 0, causal: 1, custom: 2 } as const;
export type MaskMode = keyof typeof maskModes;

/** Values of PosEncodingMode, likewise. */
export const posEncodingCodes = { NONE: 0, ROPE_LLAMA: 1, ALIBI: 2 } as const;

/** Strides in elements. `lse` is contiguous `[qoLen, numQoHeads]`. */
export interface AttentionRequest extends AttentionNumbers {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly out: Tensor;
  readonly lse: Tensor | undefined;
  readonly qDtype: DType;
  readonly kvDtype: DType;
  readonly qoLen: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  /** Of q and k; {@link headDimVoOf} it v and the output. */
  readonly headDim: number;
  readonly qStrideN: number;
  readonly qStrideH: number;
  readonly kStrideN: number;
  readonly kStrideH: number;
  readonly vStrideN: number;
  readonly vStrideH: number;
  readonly outStrideN: number;
  readonly outStrideH: number;
  readonly maskMode: MaskMode;
  /** Packed little-endian bits where maskMode is `custom`. */
  readonly customMask: Tensor | undefined;
  readonly temporaries: readonly Tensor[];
  /** float32 `[numQoHeads]`. */
  readonly sinks: Tensor | undefined;
  readonly backend: AttentionBackend;
  /** Only with float8 queries. */
  readonly headScales?: HeadScales | undefined;
  /** The variant's fields of the params struct; empty without one. */
  readonly variantArgs: VariantArgs;
}

/**
 * Head dimensions the kernels are built for, of q and k, and what v and the output have with each: 192/128 is
 * DeepSeek's prefill. The cpu device keeps to the same list, so that code moves unchanged.
 */
const valueDims: ReadonlyMap<number, number> = new Map([
  [64, 64],
  [128, 128],
  [192, 128],
  [256, 256],
]);

/** Head dimension of v and of the output for one of q and k. */
export function headDimVoOf(headDim: number): number {
  return valueDims.get(headDim) ?? headDim;
}

export function checkHeadDim(functionName: string, headDim: number): void {
  if (valueDims.has(headDim)) return;
  const supported = [...valueDims].map(([qk, vo]) => (qk === vo ? qk : `${qk} (with headDimVo ${vo})`));
  throw new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM',
    `${functionName}: headDim is ${headDim}; expected one of ${supported.join(', ')}; ` +
      'pad q, k and v with zeros to the next one and pass smScale',
  );
}

export function checkHeads(functionName: string, numQoHeads: number, numKvHeads: number): void {
  if (numKvHeads > 0 && numQoHeads > 0 && numQoHeads % numKvHeads === 0) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_HEADS_MISMATCH',
    `${functionName}: numQoHeads=${numQoHeads} (from q) is not a multiple of numKvHeads=${numKvHeads} (from k); ` +
      'expected every key head to serve the same number of query heads, at least one',
  );
}

/** `sinks` of a call, checked; the kernels of a variant without softmax would ignore them. */
export function checkSinks(
  check: Checker,
  sinks: Tensor | undefined,
  { numQoHeads, variant }: { numQoHeads: number; variant: AttentionNumbers['variant'] },
  device: Device,
): void {
  if (sinks === undefined) return;
  check.tensor('sinks', sinks, [numQoHeads], { dtypes: ['float32'], device, contiguous: true });
  if (variant === undefined || variant.useSoftmax) return;
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `sinks are given with variant ${variant.name}, which has no softmax; expected one or the other; leave sinks out`,
  );
}

/** Kernels write an output while others still read the inputs. */
export function checkNoOverlap(
  functionName: string,
  output: 'out' | 'lse',
  out: Tensor | undefined,
  inputs: Readonly<Record<string, Tensor | undefined>>,
): void {
  if (out === undefined) return;
  for (const [name, input] of Object.entries(inputs)) {
    if (input === undefined || !mayOverlap(out, input)) continue;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: ${output} and ${name} overlap in memory; expected ${output} to be separate; pass another ` +
        `${output} or none`,
    );
  }
}
