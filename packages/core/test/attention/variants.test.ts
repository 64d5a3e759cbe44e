// SPDX-License-Identifier: Apache-2.0
// Custom variants against the float64 reference: the documented ones and some of every hook, single and in batches.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AttentionVariant,
  type AttentionVariantDefinition,
  defineAttentionVariant,
} from '../../src/attention/variant.ts';
import * as flashinfer from '../../src/index.ts';
import { findHostCompiler } from '../../src/jit/compilers/hostCompiler.ts';
import { native } from '../../src/native/load.ts';
import { onCuda, testDevice } from '../device.ts';
import { type AttentionReferenceOptions, alibiSlopes, attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { type VariantReference, variantReference } from '../reference/variantAttention.ts';
import { deviceTensor, heldValues, hostValues, poisoned, prefillOperator } from './attentionCase.ts';
import { documentedBlocks, documentedVariant, importBlock } from './variantExamples.ts';

/** GPU tests fail without a compiler; those of the cpu need one that not every machine has. */
const compiles = onCuda || findHostCompiler().compiler !== undefined;
if (!compiles) console.warn('tests of custom variants are skipped: no C++ compiler');

interface Lengths {
  readonly qoLens: readonly number[];
  readonly kvLens: readonly number[];
}
interface VariantCase extends Lengths {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: 'float16' | 'bfloat16' | 'float32';
  readonly options?: Pick<AttentionReferenceOptions, 'causal' | 'windowLeft' | 'smScale' | 'vScale'>;
}

type Values = Record<string, number | bigint | boolean | flashinfer.Tensor>;

/** A variant, and what it shall do. `make` gives the params of a case and the reference that goes with them. */
interface Example {
  readonly name: string;
  readonly variant: () => Promise<AttentionVariant> | AttentionVariant;
  readonly make: (c: VariantCase) => { params?: Values; reference: VariantReference };
}

const defined = (definition: AttentionVariantDefinition) => () => defineAttentionVariant(definition);
const documented = (name: string) => () => documentedVariant(name);
const onDevice = (values: Float32Array, dtype: 'float32' | 'float16' = 'float32') =>
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

const examples: readonly Example[] = [
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

const indptr = (lengths: readonly number[]): Int32Array => {
  const result = new Int32Array(lengths.length + 1);
  lengths.forEach((length, i) => {
    result[i + 1] = result[i]! + length;
  });
  return result;
};
const total = (lengths: readonly number[]): number => lengths.reduce((a, b) => a + b, 0);

function makeInputs(c: VariantCase) {
  const { numQoHeads, numKvHeads, headDim, dtype } = c;
  const q = deviceTensor(
    normalArray(total(c.qoLens) * numQoHeads * headDim, 0),
    [total(c.qoLens), numQoHeads, headDim],
    dtype,
  );
  const kvShape = [total(c.kvLens), numKvHeads, headDim];
  const [k, v] = [1, 2].map((n) =>
    deviceTensor(normalArray(total(c.kvLens) * numKvHeads * headDim, n), kvShape, dtype),
  );
  return { q, k: k!, v: v! };
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
  const out = poisoned(inputs.q.shape, c.dtype);
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
    const part = (x: Float64Array, first: number, count: number, heads: number): Float64Array =>
      x.subarray(first * heads * headDim, (first + count) * heads * headDim);
    const shape = { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim };
    const held = {
      q: part(q!, row, qoLen, numQoHeads),
      k: part(k!, key, kvLen, numKvHeads),
      v: part(v!, key, kvLen, numKvHeads),
    };
    const expected = variantReference(shape, held, reference, { ...c.options, batchIdx });
    const label = `[seed ${testSeed}] ${example.name}, request ${batchIdx}: qo ${qoLen}, kv ${kvLen}`;
    const slice = (x: ArrayLike<number>, width: number): Float64Array =>
      Float64Array.from({ length: qoLen * width }, (_, i) => x[row * width + i]!);
    if (qoLen > 0) {
      expectClose(slice(got, numQoHeads * headDim), expected.out, headDim, tolerance, `${label} out`);
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

async function checkSingle(example: Example, c: VariantCase): Promise<void> {
  await check(example, c, ({ q, k, v }, variant, options) => {
    const { causal, windowLeft, smScale } = c.options ?? {};
    const all = {
      ...options,
      variant,
      ...(causal && { causal }),
      ...(windowLeft && { windowLeft }),
      ...(smScale && { smScale }),
    };
    return lseOf(prefillOperator(q, k, v, all));
  });
}

const planOptions = (c: VariantCase, variant: AttentionVariant) => {
  const { vScale: _, ...options } = c.options ?? {};
  const { numQoHeads, numKvHeads, headDim, dtype } = c;
  return { numQoHeads, numKvHeads, headDimQk: headDim, qDtype: dtype, kvDtype: dtype, variant, ...options };
};

async function checkRagged(example: Example, c: VariantCase): Promise<void> {
  await check(example, c, ({ q, k, v }, variant, options) => {
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    wrapper.plan({ ...planOptions(c, variant), qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) });
    return lseOf(wrapper.run(q, k, v, options as PlainRunOptions) as Result);
  });
}

const pageSize = 7;

async function checkPaged(example: Example, c: VariantCase, kind: 'decode' | 'prefill'): Promise<void> {
  await check(example, c, ({ q, k, v }, variant, options) => {
    const counts = c.kvLens.map((length) => Math.ceil(length / pageSize));
    const pagedKvIndptr = indptr(counts);
    // From the last page to the first, so that a row number is never a place.
    const pagedKvIndices = Int32Array.from({ length: total(counts) }, (_, i) => total(counts) - 1 - i);
    const pagedKvLastPageLen = c.kvLens.map((length) => (length === 0 ? 0 : ((length - 1) % pageSize) + 1));
    const rowLength = c.numKvHeads * c.headDim;
    const [kPages, vPages] = [k, v].map((x) => {
      const values = hostValues(x);
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
      return deviceTensor(cache, [total(counts), pageSize, c.numKvHeads, c.headDim], c.dtype);
    });
    const pages = { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize };
    const run = options as PlainRunOptions;
    if (kind === 'decode') {
      const wrapper = new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice });
      wrapper.plan({ ...planOptions(c, variant), ...pages });
      return lseOf(wrapper.run(q, [kPages!, vPages!], run) as Result);
    }
    const wrapper = new flashinfer.BatchPrefillWithPagedKVCacheWrapper({ device: testDevice });
    wrapper.plan({ ...planOptions(c, variant), ...pages, qoIndptr: indptr(c.qoLens) });
    return lseOf(wrapper.run(q, [kPages!, vPages!], run) as Result);
  });
}

const base = { numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;
const uniform = uniformSource(21);
const length = (most: number): number => 1 + Math.floor(uniform() * most);

describe.runIf(compiles).each(examples)('$name', (example) => {
  const singles: [string, VariantCase][] = [
    ['one query row', { ...base, qoLens: [1], kvLens: [length(200)] }],
    ['one query row, split keys', { ...base, headDim: 128, qoLens: [1], kvLens: [2500] }],
    ['few rows, bf16', { ...base, dtype: 'bfloat16', qoLens: [5], kvLens: [length(300)] }],
    ['many rows, causal', { ...base, qoLens: [70], kvLens: [70 + length(100)], options: { causal: true } }],
    ['split keys', { ...base, numQoHeads: 6, qoLens: [20], kvLens: [1500], options: { vScale: 0.5 } }],
    [
      'more rows than keys, d128',
      { ...base, headDim: 128, numKvHeads: 4, qoLens: [90], kvLens: [33], options: { causal: true, smScale: 0.2 } },
    ],
    ['window', { ...base, dtype: 'bfloat16', qoLens: [40], kvLens: [150], options: { windowLeft: 30 } }],
  ];
  it.each(singles)('single: %s', async (_, c) => checkSingle(example, c));

  const ones = [1, 1, 1, 1, 1];
  it('batch decode, paged', async () =>
    checkPaged(
      example,
      { ...base, headDim: 128, qoLens: ones, kvLens: [length(50), 1400, 1, 0, length(200)] },
      'decode',
    ));
  it('batch prefill, paged', async () =>
    checkPaged(
      example,
      {
        ...base,
        dtype: 'bfloat16',
        qoLens: [3, 40, 0, 9],
        kvLens: [30, length(90), 5, 700],
        options: { causal: true },
      },
      'prefill',
    ));
  it('batch prefill, ragged', async () =>
    checkRagged(example, { ...base, qoLens: [50, 1, 17], kvLens: [20 + length(90), 64, 1100] }));
});

describe.runIf(compiles)('the example of docs/attention-variants.md', () => {
  it.each([...documentedBlocks])('%s runs', async (name, code) => {
    const defaultDevice = flashinfer.defaultDevice();
    flashinfer.setDefaultDevice(testDevice);
    try {
      await importBlock(name, code);
      await flashinfer.cuda.synchronize();
    } finally {
      flashinfer.setDefaultDevice(defaultDevice);
    }
  });
});

describe.runIf(compiles)('a variant that writes', () => {
  it('dumps the logits of visible keys and nothing else', async () => {
    const c: VariantCase = { ...base, qoLens: [33], kvLens: [50] };
    const { q, k, v } = makeInputs(c);
    const dump = poisoned([4, 33, 50], 'float32');
    const variant = await documentedVariant('dumpLogits');
    flashinfer.singlePrefillWithKVCache(q, k, v, { causal: true, variant, variantParams: { dump } });
    const logits: number[] = new Array(4 * 33 * 50).fill(Number.NaN);
    variantReference(
      { qoLen: 33, kvLen: 50, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 },
      { q: heldValues(q), k: heldValues(k), v: heldValues(v) },
      {
        logits: (x, { qoHeadIdx, qoIdx, kvIdx }) => {
          logits[(qoHeadIdx * 33 + qoIdx) * 50 + kvIdx] = x;
          return x;
        },
      },
      { causal: true },
    );
    const written = hostValues(dump);
    logits.forEach((logit, n) => {
      if (Number.isNaN(logit)) expect(written[n]).toBeNaN();
      else expect(Math.abs(written[n]! - logit)).toBeLessThan(1e-4 * Math.max(1, Math.abs(logit)));
    });
  });
});

const logits = (x: number) => 3 * Math.tanh(x / 3);

describe.runIf(compiles)('a variant together with other options', () => {
  it('obeys custom masks and rotary embedding', async () => {
    const variant = await documentedVariant('softCap');
    const shape = { qoLen: 19, kvLen: 70, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
    const { q, k, v } = makeInputs({ ...base, qoLens: [19], kvLens: [70] });
    const mask = Uint8Array.from({ length: 19 * 70 }, () => Math.round(uniform()));
    const options = { logitsSoftCap: 3, posEncodingMode: 'ROPE_LLAMA', customMask: mask } as const;
    const inputs = { q: heldValues(q), k: heldValues(k), v: heldValues(v) };
    const expected = attentionReference(shape, inputs, options);
    const got = flashinfer.singlePrefillWithKVCache(q, k, v, {
      posEncodingMode: 'ROPE_LLAMA',
      customMask: flashinfer.tensor(mask, { shape: [19, 70], dtype: 'bool', device: testDevice }),
      variant,
      variantParams: { cap: 3 },
    });
    const tolerance = attentionTolerance('float16', { maxRopePosition: 70 });
    expectClose(Float64Array.from(hostValues(got)), expected.out, 64, tolerance, `[seed ${testSeed}]`);
  });

  it('reads float8 keys', async () => {
    const variant = await documentedVariant('softCap');
    const { q, k, v } = makeInputs({ ...base, qoLens: [40], kvLens: [90] });
    const [k8, v8] = [k, v].map((x) => x.to('float8_e4m3fn'));
    const shape = { qoLen: 40, kvLen: 90, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
    const inputs = { q: heldValues(q), k: heldValues(k8!), v: heldValues(v8!) };
    const expected = variantReference(shape, inputs, { logits });
    const got = flashinfer.singlePrefillWithKVCache(q, k8!, v8!, { variant, variantParams: { cap: 3 } });
    expectClose(Float64Array.from(hostValues(got)), expected.out, 64, attentionTolerance('float16'), 'float8');
  });

  it.skipIf(onCuda)('takes float32 on the cpu', async () => {
    const example = examples.find(({ name }) => name === 'every hook')!;
    await checkSingle(example, { ...base, dtype: 'float32', qoLens: [1], kvLens: [77] });
    await checkSingle(example, { ...base, dtype: 'float32', headDim: 128, qoLens: [30], kvLens: [77] });
  });
});

describe.runIf(compiles)('the functions of hooks', () => {
  const inputs = [
    -Infinity,
    -300,
    -140,
    -125.5,
    -20.3,
    -1,
    -0.25,
    0,
    0.5,
    1.75,
    33.3,
    127.9,
    200,
    Infinity,
    Number.NaN,
  ];
  it.each([
    ['exp2_approx', (x: number) => 2 ** x],
    ['tanh_precise', Math.tanh],
    ['reciprocal_approx', (x: number) => 1 / x],
    ['log2_approx', Math.log2],
  ])('%s', (name, expected) => {
    const variant = defineAttentionVariant({
      name: 'functions',
      params: { x: 'float32[]', y: 'float32[]' },
      logitsTransform: `y[kvIdx] = ${name}(x[kvIdx]), logits`,
    });
    const x = Float32Array.from(inputs);
    const y = poisoned([x.length], 'float32');
    const { q, k, v } = makeInputs({ ...base, numQoHeads: 2, qoLens: [1], kvLens: [x.length] });
    flashinfer.singlePrefillWithKVCache(q, k, v, { variant, variantParams: { x: onDevice(x), y } });
    hostValues(y).forEach((value, n) => {
      const exact = Math.fround(expected(x[n]!));
      const label = `${name}(${x[n]})`;
      if (!Number.isFinite(exact)) expect(value, label).toBe(exact);
      // Subnormal results may be flushed.
      else expect(Math.abs(value - exact), label).toBeLessThanOrEqual(1e-6 * Math.abs(exact) + 2 ** -23);
    });
  });
});

describe.runIf(compiles)('a variant in batches', () => {
  const indptrs = { qoIndptr: indptr([9, 30]), kvIndptr: indptr([40, 55]) };
  const plan = { ...indptrs, numQoHeads: 4, numKvHeads: 2, qDtype: 'float16', kvDtype: 'float16' } as const;
  const part = (x: Float64Array, first: number, count: number, width: number): Float64Array =>
    x.subarray(first * width, (first + count) * width);

  it('obeys a custom mask and joins sinks', async () => {
    const variant = await documentedVariant('softCap');
    const { q, k, v } = makeInputs({ ...base, qoLens: [9, 30], kvLens: [40, 55] });
    const mask = Uint8Array.from({ length: 9 * 40 + 30 * 55 }, () => (uniform() < 0.6 ? 1 : 0));
    const sinks = Float32Array.from([0.5, -1, 2, 0]);
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    const customMask = flashinfer.tensor(mask, { shape: [mask.length], dtype: 'bool', device: testDevice });
    wrapper.plan({ ...plan, headDimQk: 64, variant, customMask });
    const variantParams = { cap: 3 };
    const got = hostValues(wrapper.run(q, k, v, { variantParams, sinks: onDevice(sinks) }));
    const held = [q, k, v].map(heldValues);
    let [row, key, bit] = [0, 0, 0];
    for (const [qoLen, kvLen] of [
      [9, 40],
      [30, 55],
    ] as const) {
      const inputs = {
        q: part(held[0]!, row, qoLen, 256),
        k: part(held[1]!, key, kvLen, 128),
        v: part(held[2]!, key, kvLen, 128),
      };
      const first = bit;
      const expected = variantReference({ qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 }, inputs, {
        mask: ({ qoIdx, kvIdx }) => mask[first + qoIdx * kvLen + kvIdx] === 1,
        logits,
        output: (o, lse, _, { qoHeadIdx }) => o / (1 + Math.exp(sinks[qoHeadIdx]! - lse * Math.LN2)),
      });
      const rows = Float64Array.from({ length: qoLen * 256 }, (_, i) => got[row * 256 + i]!);
      expectClose(rows, expected.out, 64, attentionTolerance('float16'), `[seed ${testSeed}] mask and sinks`);
      row += qoLen;
      key += kvLen;
      bit += qoLen * kvLen;
    }
  });

  it('serves head dimensions 192 and 128, with every hook', async () => {
    const example = examples.find(({ name }) => name === 'every hook')!;
    const variant = await example.variant();
    const { params, reference } = example.make({ ...base, qoLens: [9, 30], kvLens: [40, 55] });
    const make = (rows: number, heads: number, dim: number, stream: number) =>
      deviceTensor(normalArray(rows * heads * dim, stream), [rows, heads, dim], 'float16');
    const [q, k, v] = [make(39, 4, 192, 0), make(95, 2, 192, 1), make(95, 2, 128, 2)];
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    wrapper.plan({ ...plan, headDimQk: 192, headDimVo: 128, causal: true, variant });
    const got = hostValues(wrapper.run(q, k, v, { variantParams: params! }));
    const held = [q, k, v].map(heldValues);
    const inputs = {
      q: part(held[0]!, 9, 30, 4 * 192),
      k: part(held[1]!, 40, 55, 2 * 192),
      v: part(held[2]!, 40, 55, 2 * 128),
    };
    const shape = { qoLen: 30, kvLen: 55, numQoHeads: 4, numKvHeads: 2, headDimQk: 192, headDimVo: 128 };
    const expected = variantReference(shape, inputs, reference, { causal: true, batchIdx: 1 });
    const rows = Float64Array.from({ length: 30 * 512 }, (_, i) => got[9 * 512 + i]!);
    expectClose(rows, expected.out, 128, attentionTolerance('float16'), `[seed ${testSeed}] 192/128`);
  });

  it.skipIf(!onCuda)('replays in a CUDA graph after new plans', async () => {
    const variant = await documentedVariant('alibi');
    const slopes = Float32Array.from([0.5, 0.1, 0.02, 0.3]);
    const wrapper = new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
      useCudaGraph: true,
      maxBatchSize: 3,
      maxNumPages: 300,
      device: testDevice,
    });
    const numPages = 300;
    const cache = deviceTensor(normalArray(numPages * 2 * 16 * 2 * 64, 3), [numPages, 2, 16, 2, 64], 'float16');
    const q = deviceTensor(normalArray(3 * 4 * 64, 0), [3, 4, 64], 'float16');
    const out = poisoned(q.shape, 'float16');
    const options = { out, variantParams: { slopes: onDevice(slopes) } };
    const planFor = (kvLens: readonly number[]): Int32Array => {
      const pagedKvIndptr = indptr(kvLens.map((kvLen) => Math.ceil(kvLen / 16)));
      const pagedKvIndices = Int32Array.from({ length: pagedKvIndptr[3]! }, (_, i) => numPages - 1 - i);
      const pagedKvLastPageLen = kvLens.map((kvLen) => ((kvLen - 1) % 16) + 1);
      const table = { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize: 16 };
      wrapper.plan({ ...table, numQoHeads: 4, numKvHeads: 2, headDimQk: 64, variant });
      return pagedKvIndptr;
    };
    planFor([5, 9, 100]);
    wrapper.run(q, cache, options); // compiles, which a capture cannot
    flashinfer.cuda.synchronizeSync();
    const stream = new flashinfer.cuda.Stream();
    const graph = flashinfer.cuda.capture(stream, () => void wrapper.run(q, cache, options));
    const held = heldValues(cache);
    for (const kvLens of [
      [30, 1, 2100],
      [700, 650, 64],
    ]) {
      const starts = planFor(kvLens);
      out.copy_(poisoned(q.shape, 'float16'));
      graph.launch();
      const got = hostValues(out);
      kvLens.forEach((kvLen, r) => {
        const rows = (half: number): Float64Array => {
          const values = new Float64Array(kvLen * 128);
          for (let j = 0; j < kvLen; ++j) {
            const page = numPages - 1 - (starts[r]! + Math.floor(j / 16));
            const from = ((page * 2 + half) * 16 + (j % 16)) * 128;
            values.set(held.subarray(from, from + 128), j * 128);
          }
          return values;
        };
        const expected = variantReference(
          { qoLen: 1, kvLen, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 },
          { q: heldValues(q).subarray(r * 256, (r + 1) * 256), k: rows(0), v: rows(1) },
          { logits: (x, { qoHeadIdx, kvIdx }) => x + slopes[qoHeadIdx]! * (kvIdx - (kvLen - 1)) },
        );
        const row = Float64Array.from(got.subarray(r * 256, (r + 1) * 256));
        expectClose(row, expected.out, 64, attentionTolerance('float16'), `[seed ${testSeed}] graph, kv ${kvLen}`);
      });
    }
    for (const each of [graph, stream, wrapper]) each.dispose();
  });
});

describe.runIf(compiles && !onCuda)('on each instruction set', () => {
  const some = ['FlashSigmoid', 'every hook', 'a struct with every macro'];
  describe.each(native().cpu.info().availableIsas)('%s', (isa) => {
    beforeAll(() => native().cpu.setIsa(isa));
    afterAll(() => native().cpu.setIsa('auto'));
    it.each(examples.filter(({ name }) => some.includes(name)))('$name', async (example) => {
      const lengths = { qoLens: [1, 3, 60], kvLens: [700, 50, 130] };
      await checkRagged(example, { ...base, ...lengths, options: { causal: true } });
      await checkRagged(example, { ...base, ...lengths, dtype: 'bfloat16', numKvHeads: 4 });
    });
  });
});

describe('the reference', () => {
  it('without hooks is plain attention', () => {
    const shape = { qoLen: 7, kvLen: 23, numQoHeads: 4, numKvHeads: 2, headDimQk: 16 };
    const random = (n: number, stream: number) => Float64Array.from(normalArray(n, stream));
    const inputs = { q: random(7 * 4 * 16, 0), k: random(23 * 2 * 16, 1), v: random(23 * 2 * 16, 2) };
    const options = { causal: true, windowLeft: 6, vScale: 2 };
    const plain = attentionReference(shape, inputs, options);
    const hooked = variantReference(shape, inputs, {}, options);
    expectClose(hooked.out, plain.out, 16, attentionTolerance('float32'), 'out');
    expectLseClose(hooked.lse, plain.lse, attentionTolerance('float32'), 'lse');
  });
});
