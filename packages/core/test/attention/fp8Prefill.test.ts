// SPDX-License-Identifier: Apache-2.0
// float8_e4m3fn queries, keys and values of one request against the float64 reference on the same, already rounded, values;
// what does not fit, in batches too. Batches: fp8Batch.test.ts.
import { describe, expect, it } from 'vitest';
import { hopperFp8SharedBytes, hopperFp8Tile } from '../../src/attention/hopperFp8Kernel.ts';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { attentionReference } from '../reference/attention.ts';
import { expectFloat8Close } from '../reference/compare.ts';
import { normalArray, testSeed } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import {
  deviceTensor,
  heldValues,
  hostValues,
  poisoned,
  prefillOperator,
  servesFloat8Queries,
} from './attentionCase.ts';
import { kept } from './batchCase.ts';

/** On a GPU weights are rounded to e4m3 too: 3 bits of mantissa, errors of up to 2^-4 that partly cancel. */
const tolerance = onCuda ? 4e-2 : 5e-3;

interface Fp8Case {
  readonly qoLen: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly outDtype?: 'float16' | 'bfloat16';
  readonly options?: Record<string, unknown>;
  readonly scales?: 'number' | 'head';
  readonly kvLayout?: 'NHD' | 'HND';
  /** Keys are the longer the earlier they stand: going back, every tile has a new greatest logit. */
  readonly grows?: boolean;
}

const e4m3 = 'float8_e4m3fn';

/** Positive factors, one a head. */
function headScales(count: number, seed: number): Float32Array {
  return normalArray(count, seed).map((x) => 0.5 + Math.abs(x));
}

/** Rows [n, heads, dim] times their head's factor. */
function times(values: Float64Array, factors: Float32Array, dim: number): Float64Array {
  return values.map((x, n) => x * factors[Math.floor(n / dim) % factors.length]!);
}

function runFp8(c: Fp8Case): void {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDim, kvLayout = 'NHD' } = c;
  const q = deviceTensor(normalArray(qoLen * numQoHeads * headDim, 0), [qoLen, numQoHeads, headDim], e4m3);
  const growth = (n: number): number => (c.grows ? 4 - (3 * n) / (kvLen * numKvHeads * headDim) : 1);
  const keys = normalArray(kvLen * numKvHeads * headDim, 1).map((x, n) => x * growth(n));
  const [k, v] = [keys, normalArray(kvLen * numKvHeads * headDim, 2)].map((values) =>
    deviceTensor(values, [kvLen, numKvHeads, headDim], e4m3),
  ) as [flashinfer.Tensor, flashinfer.Tensor];
  const inputs = { q: heldValues(q), k: heldValues(k), v: heldValues(v) };
  const options: Record<string, unknown> = { ...c.options, kvLayout };
  let reference = c.options ?? {};
  if (c.scales === 'number') {
    reference = { ...reference, qScale: 0.5, kScale: 1.5, vScale: 0.25 };
    Object.assign(options, { qScale: 0.5, kScale: 1.5, vScale: 0.25 });
  }
  if (c.scales === 'head') {
    const factors = { q: headScales(numQoHeads, 5), k: headScales(numKvHeads, 6), v: headScales(numKvHeads, 7) };
    for (const name of ['q', 'k', 'v'] as const) {
      inputs[name] = times(inputs[name], factors[name], headDim);
      options[`${name}Scale`] = deviceTensor(factors[name], [factors[name].length], 'float32');
    }
  }
  const shape = { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim, headDimVo: headDim };
  const wanted = attentionReference(shape, inputs, reference);
  const out = poisoned([qoLen, numQoHeads, headDim], c.outDtype ?? 'bfloat16');
  const hnd = (x: flashinfer.Tensor): flashinfer.Tensor => (kvLayout === 'HND' ? x.transpose(0, 1).contiguous() : x);
  const [result, lse] = prefillOperator(q, hnd(k), hnd(v), { ...options, out, returnLse: true }) as flashinfer.Tensor[];
  expect(result).toBe(out);
  expectFloat8Close(hostValues(out), hostValues(lse!), wanted, tolerance, `seed ${testSeed}`);
}

const heads = { numQoHeads: 8, numKvHeads: 2 };

describe.skipIf(!servesFloat8Queries)('prefill of float8_e4m3fn', () => {
  it.each([
    [1, 1],
    [1, 500],
    [64, 64],
    [127, 129],
    [300, 20],
    [200, 777],
  ])('%i rows over %i keys', (qoLen, kvLen) => {
    for (const headDim of [128, 256]) {
      for (const causal of [false, true]) runFp8({ qoLen, kvLen, ...heads, headDim, options: { causal } });
    }
  });

  it.each([1, 2, 3, 5, 12, 64])('a group of %i heads, with scales', (group) => {
    const shape = { qoLen: 50, kvLen: 300, numQoHeads: 2 * group, numKvHeads: 2, headDim: 128 } as const;
    runFp8({ ...shape, scales: 'head', options: { causal: true } });
    runFp8({ ...shape, scales: 'number', outDtype: 'float16', kvLayout: 'HND' });
  });

  it('greatest logits that rise from tile to tile', () => {
    const shape = { qoLen: 70, kvLen: 1000, ...heads, grows: true } as const;
    runFp8({ ...shape, headDim: 128 });
    runFp8({ ...shape, headDim: 256, options: { causal: true } });
  });

  it('windows, soft caps and ALiBi', () => {
    const shape = { qoLen: 150, kvLen: 500, ...heads, headDim: 128, scales: 'head' } as const;
    runFp8({ ...shape, options: { causal: true, windowLeft: 77 } });
    runFp8({ ...shape, options: { windowLeft: 300, logitsSoftCap: 20 } });
    runFp8({ ...shape, options: { causal: true, posEncodingMode: 'ALIBI' } });
  });

  it('a new output is float16, or what outDtype says', () => {
    const q = flashinfer.zeros([3, 2, 128], { dtype: e4m3, device: testDevice });
    expect(flashinfer.singlePrefillWithKVCache(q, q, q).dtype).toBe('float16');
    expect(flashinfer.singlePrefillWithKVCache(q, q, q, { outDtype: 'bfloat16' }).dtype).toBe('bfloat16');
  });

  it('keeps what lies behind the last key out', () => {
    const all = flashinfer.full([300, 2, 128], Number.NaN, { dtype: e4m3, device: testDevice });
    const kv = all.slice(0, 0, 210);
    kv.copy_(flashinfer.ones([210, 2, 128], { dtype: e4m3, device: testDevice }));
    const q = flashinfer.ones([130, 2, 128], { dtype: e4m3, device: testDevice });
    expect(new Set(hostValues(flashinfer.singlePrefillWithKVCache(q, kv, kv)))).toEqual(new Set([1]));
  });
});

describe('errors of float8 prefill', () => {
  const q = flashinfer.zeros([4, 2, 128], { dtype: e4m3, device: testDevice });
  const half = flashinfer.zeros([4, 2, 128], { dtype: 'float16', device: testDevice });
  const scale = flashinfer.ones([2], { dtype: 'float32', device: testDevice });

  it('names what does not fit', () => {
    expectThrows(() => prefillOperator(q, half, half), 'ERR_FLASHINFER_INVALID_DTYPE', 'float16', e4m3);
    expectThrows(
      () => prefillOperator(half, half, half, { qScale: scale }),
      'ERR_FLASHINFER_INVALID_SCALE',
      'qScale',
      'number',
    );
    expectThrows(
      () => prefillOperator(half, half, half, { outDtype: 'bfloat16' }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'outDtype',
    );
    const three = flashinfer.ones([3], { dtype: 'float32', device: testDevice });
    expectThrows(() => prefillOperator(q, q, q, { kScale: three }), 'ERR_FLASHINFER_INVALID_SHAPE', 'kScale', '3');
  });

  it('names what does not fit in batches', () => {
    const plan = { qoIndptr: [0, 4], kvIndptr: [0, 4], numQoHeads: 2, numKvHeads: 2, headDimQk: 128 };
    const ragged = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice }));
    const dtypeCode = 'ERR_FLASHINFER_INVALID_DTYPE';
    expectThrows(() => ragged.plan({ ...plan, qDtype: e4m3, kvDtype: 'float16' }), dtypeCode, 'kvDtype', 'float16');
    expectThrows(() => ragged.plan({ ...plan, outDtype: 'bfloat16' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'outDtype');
    ragged.plan(plan);
    expectThrows(() => ragged.run(half, half, half, { kScale: scale }), 'ERR_FLASHINFER_INVALID_SCALE', 'kScale');
    const decode = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
    const pages = { pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [1], pageSize: 4 };
    const { qoIndptr: _, kvIndptr: __, ...heads } = plan;
    expectThrows(() => decode.plan({ ...heads, ...pages, qDtype: e4m3 }), dtypeCode, 'qDtype', e4m3);
  });

  it.skipIf(!servesFloat8Queries)('batches write to the workspace that the caller gives', () => {
    const plan = {
      qoIndptr: [0, 4],
      kvIndptr: [0, 4],
      numQoHeads: 2,
      numKvHeads: 2,
      headDimQk: 128,
      qDtype: e4m3,
    } as const;
    const own = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice }));
    own.plan(plan);
    const bytes = own.workspaceSize();
    expect(bytes > 0).toBe(onCuda);
    const workspace = flashinfer.zeros([Math.max(1, bytes)], { dtype: 'uint8', device: testDevice });
    const given = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice, workspace }));
    given.plan(plan);
    const x = flashinfer.randn([4, 2, 128], { dtype: e4m3, device: testDevice, seed: 1 });
    expect(given.run(x, x, x).toArraySync()).toEqual(own.run(x, x, x).toArraySync());
    if (!onCuda) return;
    expect((workspace.toArraySync() as Uint8Array).some((byte) => byte !== 0)).toBe(true);
    const small = flashinfer.zeros([bytes - 1], { dtype: 'uint8', device: testDevice });
    const tight = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice, workspace: small }));
    expectThrows(() => tight.plan(plan), 'ERR_FLASHINFER_INVALID_SHAPE', 'workspace', String(bytes));
  });

  it.skipIf(!onCuda)('refuses what has no kernel', () => {
    const narrow = flashinfer.zeros([4, 2, 64], { dtype: e4m3, device: testDevice });
    expectThrows(() => prefillOperator(narrow, narrow, narrow), 'ERR_FLASHINFER_UNSUPPORTED', "q.to('float16')");
    expectThrows(() => prefillOperator(q, q, q, { backend: 'fa2' }), 'ERR_FLASHINFER_UNSUPPORTED', 'fa2');
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice }));
    const plan = { qoIndptr: [0, 4], kvIndptr: [0, 4], numQoHeads: 2, numKvHeads: 2, headDimQk: 64 };
    expectThrows(() => wrapper.plan({ ...plan, qDtype: e4m3 }), 'ERR_FLASHINFER_UNSUPPORTED', 'headDim 64', 'float16');
  });
});

it.each([128, 256])('tiles of headDim %i fit in shared memory', (headDim) => {
  expect(hopperFp8SharedBytes(headDim, hopperFp8Tile(headDim))).toBeLessThanOrEqual(232_448);
});
