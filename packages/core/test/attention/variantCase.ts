// SPDX-License-Identifier: Apache-2.0
// Runs attention with a custom variant through the public API and compares it with the float64 reference; the variants of
// the documentation and some of every hook.
import {
  type AttentionVariant,
  type AttentionVariantDefinition,
  defineAttentionVariant,
} from '../../src/attention/variant.ts';
import * as flashinfer from '../../src/index.ts';
import { findHostCompiler } from '../../src/jit/compilers/hostCompiler.ts';
import { onCuda, testDevice } from '../device.ts';
import { type AttentionReferenceOptions, alibiSlopes } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { normalArray, testSeed } from '../reference/random.ts';
import { type VariantReference, variantReference } from '../reference/variantAttention.ts';
import { deviceTensor, heldValues, hostValues, poisoned, prefillOperator } from './attentionCase.ts';
import { indptr, total } from './batchCase.ts';
import { documentedVariant } from './variantExamples.ts';

/** GPU tests fail without a compiler; those of the cpu need one that not every machine has. */
export const compiles = onCuda || findHostCompiler().compiler !== undefined;
if (!compiles) console.warn('tests of custom variants are skipped: no C++ compiler');

interface Lengths {
  readonly qoLens: readonly number[];
  readonly kvLens: readonly number[];
}
export interface VariantCase extends Lengths {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Default headDim. */
  readonly headDimVo?: number;
  readonly dtype: 'float16' | 'bfloat16' | 'float32';
  /** Default: the operator's choice. */
  readonly backend?: 'fa3';
  /** Default 7. */
  readonly pageSize?: number;
  readonly options?: Pick<AttentionReferenceOptions, 'causal' | 'windowLeft' | 'smScale' | 'vScale'>;
}

type Values = Record<string, number | bigint | boolean | flashinfer.Tensor>;

/** A variant, and what it shall do. `make` gives the params of a case and the reference that goes with them. */
export interface Example {
  readonly name: string;
  readonly variant: () => Promise<AttentionVariant> | AttentionVariant;
  readonly make: (c: VariantCase) => { params?: Values; reference: VariantReference };
}

export const defined = (definition: AttentionVariantDefinition) => () => defineAttentionVariant(definition);
const documented = (name: string) => () => documentedVariant(name);
export const onDevice = (values: Float32Array, dtype: 'float32' | 'float16' = 'float32') =>
  deviceTensor(values, [values.length], dtype);

const offsetsOf = ({ qoLens, kvLens, numQoHeads }: VariantCase): Int32Array => {
  const offsets = new Int32Array(qoLens.length + 1);
  qoLens.forEach((qoLen, r) => {
    offsets[r + 1] = offsets[r]! + qoLen * kvLens[r]! * numQoHeads;
  });
  return offsets;
};

/** As FlashInfer's own structs are written: tensors that may be absent, and a window of the params. */
const maybeStruct = defined({
  name: 'MaybeBiased',
  params: { maybe_bias: 'float32[]' },
  decl: `
struct MaybeBiased : AttentionVariantBase {
  const float* bias;
  uint32_t window_left, qo_len, kv_len;
  float scale, sm_scale_log2;

  template <typename Params>
  __device__ __host__ MaybeBiased(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    bias = params.maybe_bias;
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = (params.window_left >= 0) ? params.window_left : kv_len;
    scale = params.sm_scale;
    sm_scale_log2 = math::log2e;
  }

  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return logits * scale + (bias == nullptr ? 0.0f : bias[qo_head_idx]) * kv_idx; })
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                       { return kv_idx + qo_len + window_left >= kv_len + qo_idx; })
};`,
});

export const examples: readonly Example[] = [
  {
    name: 'FlashSigmoid',
    variant: documented('flashSigmoid'),
    make: () => ({
      params: { sigmoidBias: -0.5 },
      reference: { logits: (x) => 1 / (1 + Math.exp(-(x - 0.5))), useSoftmax: false },
    }),
  },
  {
    name: 'soft cap',
    variant: documented('softCap'),
    make: () => ({ params: { cap: 2.5 }, reference: { logits: (x) => 2.5 * Math.tanh(x / 2.5) } }),
  },
  {
    name: 'ALiBi of a tensor',
    variant: documented('alibi'),
    make: ({ numQoHeads }) => {
      const slopes = Float32Array.from(alibiSlopes(numQoHeads));
      return {
        params: { slopes: onDevice(slopes) },
        reference: {
          logits: (x, { qoHeadIdx, qoIdx, kvIdx, qoLen, kvLen }) =>
            x + slopes[qoHeadIdx]! * (kvIdx - (qoIdx + kvLen - qoLen)),
        },
      };
    },
  },
  {
    name: 'sliding window',
    variant: documented('slidingWindow'),
    make: () => ({
      params: { width: 9 },
      reference: {
        mask: ({ qoIdx, kvIdx, qoLen, kvLen }) => {
          const distance = qoIdx + kvLen - qoLen - kvIdx;
          return distance >= 0 && distance <= 9;
        },
      },
    }),
  },
  {
    name: 'bias of each request',
    variant: defined({
      name: 'ragged_bias',
      params: { bias: 'float16[]', offsets: 'int32[]' },
      logitsTransform: 'logits + to_float(bias[offsets[batchIdx] + (qoHeadIdx * qoLen + qoIdx) * kvLen + kvIdx])',
    }),
    make: (c) => {
      const offsets = offsetsOf(c);
      const bias = onDevice(normalArray(Math.max(1, offsets.at(-1)!), 5), 'float16');
      const held = heldValues(bias);
      return {
        params: { bias, offsets: flashinfer.tensor(offsets, { device: testDevice }) },
        reference: {
          logits: (x, { batchIdx, qoHeadIdx, qoIdx, kvIdx, qoLen, kvLen }) =>
            x + held[offsets[batchIdx]! + (qoHeadIdx * qoLen + qoIdx) * kvLen + kvIdx]!,
        },
      };
    },
  },
  {
    name: 'every hook',
    variant: defined({
      name: 'EveryHook',
      params: { scale: 'float64', shift: 'int64', every: 'uint32', on: 'bool', gain: 'int32' },
      queryTransform: 'dimIdx % 2 == 0 ? q : q * (qoHeadIdx % 2 == 0 ? -0.5f : 2.0f)',
      logitsMask: 'on && (kvIdx + qoIdx + kvHeadIdx) % every != 0',
      logitsTransform: 'logits * (float)scale + 0.01f * (int)shift * batchIdx',
      outputTransform: 'output * gain + (isinf(lse) ? 0.0f : 0.125f * lse) + dimIdx / (float)qoLen',
    }),
    make: () => ({
      params: { scale: 0.75, shift: 3n, every: 3, on: true, gain: -2 },
      reference: {
        query: (q, dim, { qoHeadIdx }) => (dim % 2 === 0 ? q : q * (qoHeadIdx % 2 === 0 ? -0.5 : 2)),
        mask: ({ kvIdx, qoIdx, kvHeadIdx }) => (kvIdx + qoIdx + kvHeadIdx) % 3 !== 0,
        logits: (x, { batchIdx }) => x * 0.75 + 0.03 * batchIdx,
        output: (o, lse, dim, { qoLen }) => o * -2 + (lse === -Infinity ? 0 : 0.125 * lse) + dim / qoLen,
      },
    }),
  },
  {
    name: 'masked weights without softmax',
    variant: defined({
      name: 'linear',
      logitsMask: 'kvIdx % 5 != 2',
      useSoftmax: false,
      outputTransform: 'output / (kvLen > 0 ? kvLen : 1)',
    }),
    make: () => ({
      reference: {
        mask: ({ kvIdx }) => kvIdx % 5 !== 2,
        output: (o, _, __, { kvLen }) => o / Math.max(kvLen, 1),
        useSoftmax: false,
      },
    }),
  },
  {
    name: 'a struct',
    variant: documented('cappedStruct'),
    make: () => ({ params: { cap: 2 }, reference: { logits: (x) => 2 * Math.tanh(x / 2) } }),
  },
  {
    name: 'a struct with every macro',
    variant: defined({
      name: 'Everything',
      params: { keep: 'uint8[]', gain: 'float32' },
      decl: `
struct Everything : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  const uint8_t* keep;
  uint32_t qo_len, kv_len;
  float sm_scale_log2;

  template <typename Params>
  __device__ __host__ Everything(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr)
      : keep(params.keep), qo_len(params.get_qo_len(batch_idx)), kv_len(params.get_kv_len(batch_idx)),
        sm_scale_log2(params.sm_scale * math::log2e) {}

  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return qo_idx < qo_len && kv_idx < kv_len ? logits * 0.5f : 1e30f; });
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                       { return (keep[kv_idx / 8 % 4] >> (kv_idx % 8)) & 1; })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, {
    float d_rcp = (m != -math::inf) ? math::ptx_rcp(d) : 0.f;
    return output * d_rcp * params.gain * params.num_qo_heads;
  })
};`,
    }),
    make: ({ numQoHeads }) => {
      const keep = Uint8Array.from([0xb7, 0x5a, 0xff, 0x11]);
      return {
        params: { keep: flashinfer.tensor(keep, { device: testDevice }), gain: 0.25 },
        reference: {
          logits: (x) => x * 0.5,
          mask: ({ kvIdx }) => ((keep[Math.floor(kvIdx / 8) % 4]! >> (kvIdx % 8)) & 1) === 1,
          output: (o) => o * 0.25 * numQoHeads,
        },
      };
    },
  },
  { name: 'a struct without its optional tensor', variant: maybeStruct, make: () => ({ reference: {} }) },
  {
    name: 'a struct with its optional tensor',
    variant: maybeStruct,
    make: ({ numQoHeads }) => {
      const bias = Float32Array.from({ length: numQoHeads }, (_, head) => 0.001 * head);
      return {
        params: { maybe_bias: flashinfer.tensor(bias, { device: testDevice }) },
        reference: { logits: (x, { kvIdx, qoHeadIdx }) => x + 0.001 * qoHeadIdx * kvIdx },
      };
    },
  },
];

const valueDim = (c: VariantCase): number => c.headDimVo ?? c.headDim;

export function makeInputs(c: VariantCase) {
  const make = (rows: number, heads: number, dim: number, stream: number): flashinfer.Tensor =>
    deviceTensor(normalArray(rows * heads * dim, stream), [rows, heads, dim], c.dtype);
  const keys = total(c.kvLens);
  return {
    q: make(total(c.qoLens), c.numQoHeads, c.headDim, 0),
    k: make(keys, c.numKvHeads, c.headDim, 1),
    v: make(keys, c.numKvHeads, valueDim(c), 2),
  };
}
type Inputs = ReturnType<typeof makeInputs>;

/** `run` gets the poisoned output and returns the lse where the variant has one. */
async function check(
  example: Example,
  c: VariantCase,
  run: (inputs: Inputs, variant: AttentionVariant, options: Record<string, unknown>) => flashinfer.Tensor | undefined,
): Promise<void> {
  const variant = await example.variant();
  const { params, reference } = example.make(c);
  const inputs = makeInputs(c);
  const headDimVo = valueDim(c);
  const out = poisoned([total(c.qoLens), c.numQoHeads, headDimVo], c.dtype);
  const { vScale } = c.options ?? {};
  const returnLse = variant.useSoftmax;
  const lse = run(inputs, variant, {
    out,
    returnLse,
    ...(params && { variantParams: params }),
    ...(vScale && { vScale }),
  });
  const [q, k, v] = [inputs.q, inputs.k, inputs.v].map(heldValues);
  const { numQoHeads, numKvHeads, headDim } = c;
  const got = hostValues(out);
  const gotLse = lse && hostValues(lse);
  const tolerance = attentionTolerance(c.dtype);
  let row = 0;
  let key = 0;
  c.qoLens.forEach((qoLen, batchIdx) => {
    const kvLen = c.kvLens[batchIdx]!;
    const part = (x: Float64Array, first: number, count: number, width: number): Float64Array =>
      x.subarray(first * width, (first + count) * width);
    const shape = { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim, headDimVo };
    const held = {
      q: part(q!, row, qoLen, numQoHeads * headDim),
      k: part(k!, key, kvLen, numKvHeads * headDim),
      v: part(v!, key, kvLen, numKvHeads * headDimVo),
    };
    const expected = variantReference(shape, held, reference, { ...c.options, batchIdx });
    const label = `[seed ${testSeed}] ${example.name}, request ${batchIdx}: qo ${qoLen}, kv ${kvLen}`;
    const slice = (x: ArrayLike<number>, width: number): Float64Array =>
      Float64Array.from({ length: qoLen * width }, (_, i) => x[row * width + i]!);
    if (qoLen > 0) {
      expectClose(slice(got, numQoHeads * headDimVo), expected.out, headDimVo, tolerance, `${label} out`);
      if (gotLse) expectLseClose(slice(gotLse, numQoHeads), expected.lse, tolerance, `${label} lse`);
    }
    row += qoLen;
    key += kvLen;
  });
}

/** The results of both overloads are told apart by what comes back. */
type PlainRunOptions = flashinfer.BatchRunOptions & { returnLse?: false };
type Result = flashinfer.Tensor | [flashinfer.Tensor, flashinfer.Tensor];
const lseOf = (result: Result): flashinfer.Tensor | undefined => (Array.isArray(result) ? result[1] : undefined);

export async function checkSingle(example: Example, c: VariantCase): Promise<void> {
  await check(example, c, ({ q, k, v }, variant, options) => {
    const { causal, windowLeft, smScale } = c.options ?? {};
    const all = {
      ...options,
      variant,
      ...(c.backend && { backend: c.backend }),
      ...(causal && { causal }),
      ...(windowLeft && { windowLeft }),
      ...(smScale && { smScale }),
    };
    return lseOf(prefillOperator(q, k, v, all));
  });
}

const wrapperOptions = ({ backend }: VariantCase) => ({ device: testDevice, ...(backend && { backend }) });

const planOptions = (c: VariantCase, variant: AttentionVariant) => {
  const { vScale: _, ...options } = c.options ?? {};
  const { numQoHeads, numKvHeads, headDim, dtype } = c;
  const headDims = { headDimQk: headDim, headDimVo: valueDim(c) };
  return { numQoHeads, numKvHeads, ...headDims, qDtype: dtype, kvDtype: dtype, variant, ...options };
};

export async function checkRagged(example: Example, c: VariantCase): Promise<void> {
  await check(example, c, ({ q, k, v }, variant, options) => {
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper(wrapperOptions(c));
    wrapper.plan({ ...planOptions(c, variant), qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) });
    return lseOf(wrapper.run(q, k, v, options as PlainRunOptions) as Result);
  });
}

export async function checkPaged(example: Example, c: VariantCase, kind: 'decode' | 'prefill'): Promise<void> {
  const { pageSize = 7 } = c;
  await check(example, c, ({ q, k, v }, variant, options) => {
    const counts = c.kvLens.map((length) => Math.ceil(length / pageSize));
    const pagedKvIndptr = indptr(counts);
    // From the last page to the first, so that a row number is never a place.
    const pagedKvIndices = Int32Array.from({ length: total(counts) }, (_, i) => total(counts) - 1 - i);
    const pagedKvLastPageLen = c.kvLens.map((length) => (length === 0 ? 0 : ((length - 1) % pageSize) + 1));
    const [kPages, vPages] = [k, v].map((x) => {
      const values = hostValues(x);
      const headDim = x.shape[2]!;
      const rowLength = c.numKvHeads * headDim;
      const cache = new Float32Array(total(counts) * pageSize * rowLength).fill(Number.NaN);
      let row = 0;
      c.kvLens.forEach((length, r) => {
        for (let j = 0; j < length; ++j, ++row) {
          const page = pagedKvIndices[pagedKvIndptr[r]! + Math.floor(j / pageSize)]!;
          cache.set(
            values.subarray(row * rowLength, (row + 1) * rowLength),
            (page * pageSize + (j % pageSize)) * rowLength,
          );
        }
      });
      return deviceTensor(cache, [total(counts), pageSize, c.numKvHeads, headDim], c.dtype);
    });
    const pages = { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize };
    const run = options as PlainRunOptions;
    if (kind === 'decode') {
      const wrapper = new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice });
      wrapper.plan({ ...planOptions(c, variant), ...pages });
      return lseOf(wrapper.run(q, [kPages!, vPages!], run) as Result);
    }
    const wrapper = new flashinfer.BatchPrefillWithPagedKVCacheWrapper(wrapperOptions(c));
    wrapper.plan({ ...planOptions(c, variant), ...pages, qoIndptr: indptr(c.qoLens) });
    return lseOf(wrapper.run(q, [kPages!, vPages!], run) as Result);
  });
}
