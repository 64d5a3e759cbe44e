// SPDX-License-Identifier: Apache-2.0
// Attention of one request in float64, written from the definitions alone: what every kernel is compared with.

/** Shapes of one request; `headDimVo` defaults to `headDimQk`. */
export interface AttentionShape {
  readonly qoLen: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDimQk: number;
  readonly headDimVo?: number;
}

/** The values the tensors really hold, i.e. after rounding to their dtype. */
export interface AttentionInputs {
  /** `[qoLen, numQoHeads, headDimQk]` */
  readonly q: Float64Array;
  /** `[kvLen, numKvHeads, headDimQk]` (NHD) */
  readonly k: Float64Array;
  /** `[kvLen, numKvHeads, headDimVo]` (NHD) */
  readonly v: Float64Array;
}

export interface AttentionReferenceOptions {
  /** Bottom-right aligned: row i sees keys j <= i + kvLen - qoLen. Ignored when `customMask` is given. */
  readonly causal?: boolean;
  /** `[qoLen, kvLen]`, nonzero = visible. */
  readonly customMask?: ArrayLike<number | boolean>;
  /** Keys j >= i + kvLen - qoLen - windowLeft stay visible; negative = all. */
  readonly windowLeft?: number;
  /** cap * tanh(logit / cap), after the position bias and before the mask; 0 = off. */
  readonly logitsSoftCap?: number;
  readonly posEncodingMode?: 'NONE' | 'ROPE_LLAMA' | 'ALIBI';
  /** Default 1 / sqrt(headDimQk). */
  readonly smScale?: number;
  readonly ropeScale?: number;
  readonly ropeTheta?: number;
  readonly qScale?: number;
  readonly kScale?: number;
  readonly vScale?: number;
  /** `[numQoHeads]`: a logit a head that joins every row's softmax without a value. */
  readonly sinks?: ArrayLike<number>;
  /** Query rows to compute, in this order; default all. */
  readonly rows?: readonly number[];
  /** Query heads to compute, in this order; default all. */
  readonly heads?: readonly number[];
}

export interface AttentionReference {
  /** `[rows, heads, headDimVo]` */
  readonly out: Float64Array;
  /** `[rows, heads]`, base 2; -Infinity where a row sees no key. */
  readonly lse: Float64Array;
}

/**
 * softmax(smScale q kᵀ + bias) v in float64. A row that sees no key gives out = 0 and lse = -Infinity.
 * A NaN in anything a row reads makes that row NaN.
 */
export function attentionReference(
  shape: AttentionShape,
  inputs: AttentionInputs,
  options: AttentionReferenceOptions = {},
): AttentionReference {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk } = shape;
  const headDimVo = shape.headDimVo ?? headDimQk;
  expectLength('q', inputs.q, qoLen * numQoHeads * headDimQk);
  expectLength('k', inputs.k, kvLen * numKvHeads * headDimQk);
  expectLength('v', inputs.v, kvLen * numKvHeads * headDimVo);

  const rows = options.rows ?? range(qoLen);
  const heads = options.heads ?? range(numQoHeads);
  const groupSize = numQoHeads / numKvHeads;
  const scale = (options.smScale ?? 1 / Math.sqrt(headDimQk)) * (options.qScale ?? 1) * (options.kScale ?? 1);
  const softCap = options.logitsSoftCap ?? 0;
  const vScale = options.vScale ?? 1;
  const slopes = options.posEncodingMode === 'ALIBI' ? alibiSlopes(numQoHeads) : undefined;
  const rope = options.posEncodingMode === 'ROPE_LLAMA' ? ropeRotation(headDimQk, options) : undefined;
  const k = rope ? rotateRows(inputs.k, kvLen, numKvHeads, headDimQk, (j) => j, rope) : inputs.k;

  const out = new Float64Array(rows.length * heads.length * headDimVo);
  const lse = new Float64Array(rows.length * heads.length);
  const logits = new Float64Array(kvLen);
  const visible = new Int32Array(kvLen);

  rows.forEach((i, rowIdx) => {
    const numVisible = visibleKeys(i, shape, options, visible);
    heads.forEach((head, headIdx) => {
      const kvHead = Math.floor(head / groupSize);
      const start = (i * numQoHeads + head) * headDimQk;
      let query = inputs.q.subarray(start, start + headDimQk);
      if (rope) query = rotateRows(query, 1, 1, headDimQk, () => kvLen - qoLen + i, rope);

      const sink = options.sinks?.[head] ?? -Infinity;
      let max = sink;
      for (let n = 0; n < numVisible; ++n) {
        const j = visible[n]!;
        let logit = scale * dot(query, k, (j * numKvHeads + kvHead) * headDimQk, headDimQk);
        if (slopes) logit += slopes[head]! * (j - i);
        if (softCap > 0) logit = softCap * Math.tanh(logit / softCap);
        logits[n] = logit;
        max = Math.max(max, logit); // a NaN stays
      }

      const outRow = out.subarray((rowIdx * heads.length + headIdx) * headDimVo).subarray(0, headDimVo);
      if (max === -Infinity) {
        lse[rowIdx * heads.length + headIdx] = -Infinity;
        return;
      }
      let denominator = Math.exp(sink - max);
      for (let n = 0; n < numVisible; ++n) {
        const p = Math.exp(logits[n]! - max);
        denominator += p;
        const base = (visible[n]! * numKvHeads + kvHead) * headDimVo;
        for (let d = 0; d < headDimVo; ++d) outRow[d]! += p * inputs.v[base + d]!;
      }
      for (let d = 0; d < headDimVo; ++d) outRow[d]! *= vScale / denominator;
      lse[rowIdx * heads.length + headIdx] = (max + Math.log(denominator)) * Math.LOG2E;
    });
  });
  return { out, lse };
}

/**
 * Slopes of ALiBi (Press et al., 2022): a geometric sequence for a power of two of heads; other counts take the
 * sequence of the power of two below, then every second slope of the sequence twice as long.
 */
export function alibiSlopes(numHeads: number): Float64Array {
  const base = 2 ** Math.floor(Math.log2(numHeads));
  const slopes = new Float64Array(numHeads);
  for (let h = 0; h < numHeads; ++h) {
    slopes[h] = h < base ? 2 ** ((-8 * (h + 1)) / base) : 2 ** ((-4 * (2 * (h - base) + 1)) / base);
  }
  return slopes;
}

/** Joins the results of two disjoint sets of keys: `lse` base 2, `out` as `[rows, dim]` flat. */
export function mergeReference(a: AttentionReference, b: AttentionReference): AttentionReference {
  const dim = a.out.length / a.lse.length;
  const out = new Float64Array(a.out.length);
  const lse = new Float64Array(a.lse.length);
  for (let row = 0; row < lse.length; ++row) {
    const max = Math.max(a.lse[row]!, b.lse[row]!);
    if (max === -Infinity) {
      lse[row] = -Infinity;
      continue;
    }
    const weightA = 2 ** (a.lse[row]! - max);
    const weightB = 2 ** (b.lse[row]! - max);
    lse[row] = max + Math.log2(weightA + weightB);
    for (let d = row * dim; d < (row + 1) * dim; ++d) {
      out[d] = (weightA * a.out[d]! + weightB * b.out[d]!) / (weightA + weightB);
    }
  }
  return { out, lse };
}

function visibleKeys(
  row: number,
  { qoLen, kvLen }: AttentionShape,
  options: AttentionReferenceOptions,
  visible: Int32Array,
): number {
  const diagonal = row + kvLen - qoLen;
  const windowLeft = options.windowLeft ?? -1;
  const begin = windowLeft >= 0 ? Math.max(0, diagonal - windowLeft) : 0;
  const end = options.causal && !options.customMask ? Math.min(kvLen, diagonal + 1) : kvLen;
  let count = 0;
  for (let j = begin; j < end; ++j) {
    if (!options.customMask || options.customMask[row * kvLen + j]) visible[count++] = j;
  }
  return count;
}

interface RopeRotation {
  /** Angle of dimension pair d at position 1. */
  readonly frequencies: Float64Array;
}

function ropeRotation(headDim: number, options: AttentionReferenceOptions): RopeRotation {
  const theta = options.ropeTheta ?? 1e4;
  const scale = options.ropeScale ?? 1;
  return { frequencies: Float64Array.from({ length: headDim / 2 }, (_, d) => theta ** ((-2 * d) / headDim) / scale) };
}

/** Rotates the pairs (d, d + headDim / 2) of every head of every row by its position. */
function rotateRows(
  x: Float64Array,
  numRows: number,
  numHeads: number,
  headDim: number,
  position: (row: number) => number,
  { frequencies }: RopeRotation,
): Float64Array {
  const half = headDim / 2;
  const rotated = new Float64Array(x.length);
  for (let row = 0; row < numRows; ++row) {
    for (let d = 0; d < half; ++d) {
      const angle = position(row) * frequencies[d]!;
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
      for (let head = 0; head < numHeads; ++head) {
        const low = (row * numHeads + head) * headDim + d;
        rotated[low] = x[low]! * cos - x[low + half]! * sin;
        rotated[low + half] = x[low + half]! * cos + x[low]! * sin;
      }
    }
  }
  return rotated;
}

function dot(a: Float64Array, b: Float64Array, bStart: number, length: number): number {
  let sum = 0;
  for (let d = 0; d < length; ++d) sum += a[d]! * b[bStart + d]!;
  return sum;
}

function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}

function expectLength(name: string, x: Float64Array, length: number): void {
  if (x.length !== length) throw new Error(`attentionReference: ${name} has ${x.length} elements; expected ${length}`);
}
