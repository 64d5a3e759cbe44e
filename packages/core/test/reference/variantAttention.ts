// SPDX-License-Identifier: Apache-2.0
// Attention of one request with a custom variant, in float64 and from the definition of the hooks alone.
import type { AttentionInputs, AttentionReference, AttentionShape } from './attention.ts';

/** Where a hook of the reference is called. */
export interface HookPlace {
  readonly batchIdx: number;
  readonly qoIdx: number;
  readonly kvIdx: number;
  readonly qoHeadIdx: number;
  readonly kvHeadIdx: number;
  readonly qoLen: number;
  readonly kvLen: number;
}

export interface VariantReference {
  readonly query?: (q: number, dimIdx: number, place: HookPlace) => number;
  readonly mask?: (place: HookPlace) => boolean;
  readonly logits?: (logits: number, place: HookPlace) => number;
  /** `lse` is base 2. */
  readonly output?: (output: number, lse: number, dimIdx: number, place: HookPlace) => number;
  /** Default true. */
  readonly useSoftmax?: boolean;
}

export interface VariantReferenceOptions {
  readonly batchIdx?: number;
  readonly causal?: boolean;
  readonly windowLeft?: number;
  readonly smScale?: number;
  readonly vScale?: number;
}

/** With softmax: Σ exp(l) v / Σ exp(l) over visible keys, 0 where there is none; without: Σ l v. */
export function variantReference(
  shape: AttentionShape,
  inputs: AttentionInputs,
  hooks: VariantReference,
  options: VariantReferenceOptions = {},
): AttentionReference {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: dim } = shape;
  const dimVo = shape.headDimVo ?? dim;
  const smScale = options.smScale ?? 1 / Math.sqrt(dim);
  const out = new Float64Array(qoLen * numQoHeads * dimVo);
  const lse = new Float64Array(qoLen * numQoHeads).fill(-Infinity);
  for (let qoIdx = 0; qoIdx < qoLen; ++qoIdx) {
    for (let qoHeadIdx = 0; qoHeadIdx < numQoHeads; ++qoHeadIdx) {
      const kvHeadIdx = Math.floor((qoHeadIdx * numKvHeads) / numQoHeads);
      const at = { batchIdx: options.batchIdx ?? 0, qoIdx, qoHeadIdx, kvHeadIdx, qoLen, kvLen };
      const row = qoIdx * numQoHeads + qoHeadIdx;
      const query = inputs.q
        .slice(row * dim, (row + 1) * dim)
        .map((q, d) => hooks.query?.(q, d, { ...at, kvIdx: 0 }) ?? q);
      const keys: number[] = [];
      const logits: number[] = [];
      for (let kvIdx = 0; kvIdx < kvLen; ++kvIdx) {
        const distance = qoIdx + kvLen - qoLen - kvIdx;
        if (options.causal && distance < 0) continue;
        if ((options.windowLeft ?? -1) >= 0 && distance > options.windowLeft!) continue;
        const place = { ...at, kvIdx };
        if (hooks.mask && !hooks.mask(place)) continue;
        let product = 0;
        for (let d = 0; d < dim; ++d) product += query[d]! * inputs.k[(kvIdx * numKvHeads + kvHeadIdx) * dim + d]!;
        keys.push(kvIdx);
        logits.push(hooks.logits ? hooks.logits(product * smScale, place) : product * smScale);
      }
      const max = Math.max(...logits);
      const softmax = hooks.useSoftmax ?? true;
      const weights = softmax ? logits.map((logit) => Math.exp(logit - max)) : logits;
      const sum = softmax ? weights.reduce((a, b) => a + b, 0) : 1;
      if (softmax && keys.length > 0) lse[row] = (max + Math.log(sum)) * Math.LOG2E;
      for (let d = 0; d < dimVo; ++d) {
        let value = 0;
        keys.forEach((kvIdx, n) => {
          value += weights[n]! * inputs.v[(kvIdx * numKvHeads + kvHeadIdx) * dimVo + d]!;
        });
        value = keys.length === 0 ? 0 : (value / sum) * (options.vScale ?? 1);
        out[row * dimVo + d] = hooks.output ? hooks.output(value, lse[row]!, d, { ...at, kvIdx: 0 }) : value;
      }
    }
  }
  return { out, lse };
}
