// SPDX-License-Identifier: Apache-2.0
// Runs one attention case through the public API and compares it with the float64 reference.
import { expect } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { smArch } from '../../src/runtime/device.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { backendOption, onCuda, testDevice } from '../device.ts';
import {
  type AttentionInputs,
  type AttentionReference,
  type AttentionReferenceOptions,
  type AttentionShape,
  attentionReference,
} from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose, largestLogit } from '../reference/compare.ts';
import { maskArray, normalArray, testSeed, uniformSource } from '../reference/random.ts';

/** What the fa3 template is for. */
export const onHopper = onCuda && smArch(0) === 90;
/** Float8 queries are for it and the cpu device. */
export const servesFloat8Queries = !onCuda || onHopper;

export type FloatDType = 'float16' | 'bfloat16' | 'float32';
export type KvDType = FloatDType | 'float8_e4m3fn' | 'float8_e5m2';

export interface AttentionCase {
  /** Absent: decode. */
  readonly qoLen?: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Default headDim. */
  readonly headDimVo?: number;
  readonly dtype: FloatDType;
  readonly kvDtype?: KvDType;
  readonly kvLayout?: 'NHD' | 'HND';
  /** Mean density of a random custom mask. */
  readonly maskDensity?: number;
  /** Pass the mask as packed bits. */
  readonly packedMask?: boolean;
  /** Options of both the operator and the reference. */
  readonly options?: Omit<AttentionReferenceOptions, 'rows' | 'heads' | 'customMask'>;
  /** Options of the operator alone. */
  readonly operatorOptions?: Record<string, unknown>;
  /** Overwrites random inputs, each `[length, heads, headDim]` (NHD). */
  readonly prepare?: (inputs: { q: Float32Array; k: Float32Array; v: Float32Array }) => void;
}

/** What the device can take: float32 attention is the cpu device's alone. */
export const deviceDtypes: readonly FloatDType[] = onCuda
  ? ['float16', 'bfloat16']
  : ['float16', 'bfloat16', 'float32'];

/** Multiply-adds of float64 the reference may spend on one case; rows are sampled beyond that. */
const referenceBudget = 3e7;

export function caseLabel(c: AttentionCase): string {
  const { numQoHeads, numKvHeads, dtype, kvDtype, kvLayout = 'NHD' } = c;
  const lengths = c.qoLen === undefined ? `kv${c.kvLen}` : `q${c.qoLen} kv${c.kvLen}`;
  const mask = c.maskDensity === undefined ? '' : ` mask${c.packedMask ? ' packed' : ''}`;
  const options = JSON.stringify({ ...c.options, ...c.operatorOptions });
  const dtypes = kvDtype && kvDtype !== dtype ? `${dtype}/${kvDtype}` : dtype;
  return `${lengths} h${numQoHeads}/${numKvHeads} d${c.headDim}${c.headDimVo ? `/${c.headDimVo}` : ''} ${dtypes} ${kvLayout}${mask} ${options}`;
}

export interface PreparedCase {
  readonly shape: AttentionShape;
  readonly q: flashinfer.Tensor;
  readonly k: flashinfer.Tensor;
  readonly v: flashinfer.Tensor;
  /** Options for the operator: those of the case, the layout and the mask. */
  readonly options: Record<string, unknown>;
  readonly inputs: AttentionInputs;
  readonly reference: AttentionReferenceOptions;
}

/** Makes the tensors; `inputs` holds what they contain after rounding. */
export function prepareCase(c: AttentionCase): PreparedCase {
  const { kvLen, numQoHeads, numKvHeads, headDim, headDimVo = headDim, kvLayout = 'NHD' } = c;
  const qoLen = c.qoLen ?? 1;
  const values = {
    q: normalArray(qoLen * numQoHeads * headDim, 0),
    k: normalArray(kvLen * numKvHeads * headDim, 1),
    v: normalArray(kvLen * numKvHeads * headDimVo, 2),
  };
  c.prepare?.(values);
  const qShape = c.qoLen === undefined ? [numQoHeads, headDim] : [qoLen, numQoHeads, headDim];
  const kvDtype = c.kvDtype ?? c.dtype;
  const q = deviceTensor(values.q, qShape, c.dtype);
  const kNhd = deviceTensor(values.k, [kvLen, numKvHeads, headDim], kvDtype);
  const vNhd = deviceTensor(values.v, [kvLen, numKvHeads, headDimVo], kvDtype);
  const mask = c.maskDensity === undefined ? undefined : maskArray(qoLen * kvLen, 3, c.maskDensity);
  return {
    shape: { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim, headDimVo },
    q,
    k: kvLayout === 'NHD' ? kNhd : kNhd.transpose(0, 1).contiguous(),
    v: kvLayout === 'NHD' ? vNhd : vNhd.transpose(0, 1).contiguous(),
    options: {
      ...(c.kvLayout && { kvLayout }),
      ...(mask && maskOption(mask, qoLen, kvLen, c.packedMask ?? false)),
      ...c.options,
      ...backendOption(c),
      ...c.operatorOptions,
    },
    inputs: { q: heldValues(q), k: heldValues(kNhd), v: heldValues(vNhd) },
    reference: { ...c.options, ...(mask && { customMask: mask }) },
  };
}

/** Either operator, with options that its types need not allow. */
export type AttentionOperator = (
  q: flashinfer.Tensor,
  k: flashinfer.Tensor,
  v: flashinfer.Tensor,
  options?: Record<string, unknown>,
) => flashinfer.Tensor | [flashinfer.Tensor, flashinfer.Tensor];

export const decodeOperator = flashinfer.singleDecodeWithKVCache as AttentionOperator;
export const prefillOperator = flashinfer.singlePrefillWithKVCache as AttentionOperator;

/** Calls the operator that fits q's rank; `lse` is what `returnLse` asked for. */
export function callAttention(
  prepared: Pick<PreparedCase, 'q' | 'k' | 'v'>,
  options: Record<string, unknown>,
): { out: flashinfer.Tensor; lse: flashinfer.Tensor | undefined } {
  const operator = prepared.q.rank === 2 ? decodeOperator : prefillOperator;
  const result = operator(prepared.q, prepared.k, prepared.v, options);
  return Array.isArray(result) ? { out: result[0], lse: result[1] } : { out: result, lse: undefined };
}

/** The reference over all rows, or over sampled ones where all would take too long. */
export function referenceOf(prepared: PreparedCase): AttentionReference & { rows: number[] } {
  const { shape } = prepared;
  const rowCost = Math.max(1, shape.numQoHeads * shape.kvLen * shape.headDimQk * 2);
  const rows = sampleRows(shape.qoLen, Math.max(3, Math.floor(referenceBudget / rowCost)));
  return { rows, ...attentionReference(shape, prepared.inputs, { ...prepared.reference, rows }) };
}

/** Runs the case with a poisoned `out` and with lse, and checks values, shapes, dtypes and that all rows were written. */
export function runCase(c: AttentionCase): void {
  const prepared = prepareCase(c);
  const out = poisoned([...prepared.q.shape.slice(0, -1), c.headDimVo ?? c.headDim], c.dtype);
  const result = callAttention(prepared, { ...prepared.options, out, returnLse: true });
  expect(result.out).toBe(out);
  const lse = result.lse!;
  expect([lse.dtype, lse.device, [...lse.shape]]).toEqual(['float32', testDevice, prepared.q.shape.slice(0, -1)]);
  expectMatches(prepared, referenceOf(prepared), hostValues(out), hostValues(lse), c);
}

/** Compares the sampled rows with the reference, and that no row at all kept a NaN. */
export function expectMatches(
  { shape }: PreparedCase,
  reference: AttentionReference & { rows: readonly number[] },
  out: ArrayLike<number>,
  lse: ArrayLike<number>,
  c: AttentionCase,
): void {
  const ropePosition = c.options?.posEncodingMode === 'ROPE_LLAMA' ? Math.max(shape.kvLen, shape.qoLen) : 0;
  const maxLogit = largestLogit(reference.lse);
  const tolerance = attentionTolerance(c.dtype, { maxRopePosition: ropePosition, maxLogit });
  const label = `[seed ${testSeed}] ${caseLabel(c)}`;
  const { headDimVo = shape.headDimQk } = shape;
  const rowValues = shape.numQoHeads * headDimVo;
  expectClose(takeRows(out, reference.rows, rowValues), reference.out, headDimVo, tolerance, `${label} out`);
  expectLseClose(takeRows(lse, reference.rows, shape.numQoHeads), reference.lse, tolerance, `${label} lse`);
  for (let n = 0; n < out.length; ++n) {
    if (!Number.isFinite(out[n]!)) throw new Error(`${label} out: ${out[n]} at ${n}`);
  }
}

/** A tensor on the tested device. */
export function deviceTensor(values: Float32Array, shape: readonly number[], dtype: DType): flashinfer.Tensor {
  return flashinfer.tensor(values, { shape, dtype, device: testDevice });
}

/** An output that a kernel must overwrite completely. */
export function poisoned(shape: readonly number[], dtype: DType): flashinfer.Tensor {
  return flashinfer.full(shape, Number.NaN, { dtype, device: testDevice });
}

/** Values of a floating-point tensor. */
export function hostValues(x: flashinfer.Tensor): Float32Array {
  return x.toArraySync() as Float32Array;
}

/** What the tensor holds, exactly, for the reference. */
export function heldValues(x: flashinfer.Tensor): Float64Array {
  return Float64Array.from(hostValues(x));
}

/** Little-endian bits of a flat mask, as FlashInfer's packbits(bitorder="little"). */
export function packMask(mask: Uint8Array): Uint8Array {
  const packed = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((bit, n) => {
    packed[n >> 3]! |= bit << (n & 7);
  });
  return packed;
}

function maskOption(mask: Uint8Array, qoLen: number, kvLen: number, packed: boolean): Record<string, unknown> {
  if (packed) {
    const bits = packMask(mask);
    return { packedCustomMask: flashinfer.tensor(bits, { shape: [bits.length], dtype: 'uint8', device: testDevice }) };
  }
  return { customMask: flashinfer.tensor(mask, { shape: [qoLen, kvLen], dtype: 'bool', device: testDevice }) };
}

/** First and last rows and random ones between, ascending. */
function sampleRows(qoLen: number, count: number): number[] {
  if (count >= qoLen) return Array.from({ length: qoLen }, (_, i) => i);
  const uniform = uniformSource(7);
  const rows = new Set([0, qoLen - 1]);
  while (rows.size < count) rows.add(Math.floor(uniform() * qoLen));
  return [...rows].sort((a, b) => a - b);
}

function takeRows(x: ArrayLike<number>, rows: readonly number[], rowLength: number): Float64Array {
  const taken = new Float64Array(rows.length * rowLength);
  rows.forEach((row, n) => {
    for (let d = 0; d < rowLength; ++d) taken[n * rowLength + d] = x[row * rowLength + d]!;
  });
  return taken;
}
