// SPDX-License-Identifier: Apache-2.0
// `cpu.attention` on every instruction set of this machine, against the float64 reference. Inputs and outputs sit in
// buffers of NaN and poison with odd strides, so that reading or writing beside a row shows.
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import type { CpuAttentionArgs, CpuIsa } from '../../src/native/binding.ts';
import { addonCandidates, native } from '../../src/native/load.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { type DType, dtypes } from '../../src/tensor/dtype.ts';
import { type AttentionReferenceOptions, alibiSlopes, attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { maskArray, normalArray, testSeed, uniformSource } from '../reference/random.ts';

const { cpu, host } = native();
const isas = cpu.info().availableIsas;

type Floating = 'float32' | 'float16' | 'bfloat16' | 'float8_e4m3fn' | 'float8_e5m2';

/** Exponent and mantissa bits, and the largest finite value. */
const formats = {
  float16: { exponent: 5, mantissa: 10, max: 65504 },
  bfloat16: { exponent: 8, mantissa: 7, max: 3.3895313892515355e38 },
  float8_e4m3fn: { exponent: 4, mantissa: 3, max: 448 },
  float8_e5m2: { exponent: 5, mantissa: 2, max: 57344 },
} as const;

/** Bits of x, cut (not rounded) to the format, and the value they stand for; written from the formats' definitions. */
function narrow(x: number, dtype: keyof typeof formats): { bits: number; value: number } {
  const { exponent, mantissa, max } = formats[dtype];
  const sign = x < 0 || Object.is(x, -0) ? 1 << (exponent + mantissa) : 0;
  const top = ((1 << exponent) - 1) << mantissa;
  if (Number.isNaN(x)) return { bits: dtype === 'float8_e4m3fn' ? 0x7f : top | 1, value: NaN };
  if (!Number.isFinite(x)) return { bits: sign | top, value: x };
  const bias = 2 ** (exponent - 1) - 1;
  const magnitude = Math.min(Math.abs(x), max);
  const e = Math.max(1 - bias, magnitude > 0 ? Math.floor(Math.log2(magnitude)) : 1 - bias);
  const units = Math.floor(magnitude / 2 ** (e - mantissa));
  const value = units * 2 ** (e - mantissa);
  return { bits: sign | (((e + bias - 1) << mantissa) + units), value: x < 0 ? -value : value };
}

interface Case {
  qoLen: number;
  kvLen: number;
  numQoHeads: number;
  numKvHeads: number;
  headDim: number;
  headDimVo?: number;
  qDtype?: Floating;
  kvDtype?: Floating;
  outDtype?: Floating;
  layout?: 'NHD' | 'HND';
  /** Elements of padding behind every row and head. */
  padding?: number;
  options?: AttentionReferenceOptions;
  /** Changes the random inputs, `[rows, heads, dim]` flat. */
  edit?: (inputs: { q: Float32Array; k: Float32Array; v: Float32Array }) => void;
  lseFactor?: number;
  /** Spreads the keys over a paged cache of this page size, in random pages. */
  pageSize?: number;
}

const blocks: number[] = [];
afterEach(() => {
  for (const block of blocks.splice(0)) host.free(block);
});
afterAll(() => cpu.setIsa('auto'));

function alloc(bytes: Uint8Array): number {
  const block = host.alloc(bytes.length);
  blocks.push(block);
  host.write(block, bytes);
  return block;
}

/** A `[rows, heads, dim]` tensor in native memory; the gaps hold NaN (or poison for an output). */
function place(values: Float32Array, rows: number, heads: number, dim: number, dtype: Floating, c: Case, fill = 0xff) {
  const padding = c.padding ?? 0;
  const nhd = (c.layout ?? 'NHD') === 'NHD';
  const strideH = nhd ? dim + padding : rows * (dim + padding) + padding;
  const strideN = nhd ? heads * (dim + padding) + padding : dim + padding;
  const size = Math.max(1, rows * heads * (dim + 2 * padding) + rows * padding + heads * padding);
  const bytes = new Uint8Array(size * dtypes[dtype].bytes).fill(fill);
  const held = new Float64Array(rows * heads * dim);
  const view = new DataView(bytes.buffer);
  const offset = (i: number, h: number, d: number) => i * strideN + h * strideH + d;
  for (let i = 0; i < rows && fill === 0xff; ++i) {
    for (let h = 0; h < heads; ++h) {
      for (let d = 0; d < dim; ++d) {
        const n = (i * heads + h) * dim + d;
        const x = values[n]!;
        if (dtype === 'float32') {
          view.setFloat32(offset(i, h, d) * 4, x, true);
          held[n] = x;
        } else {
          const { bits, value } = narrow(x, dtype);
          if (dtypes[dtype].bytes === 2) view.setUint16(offset(i, h, d) * 2, bits, true);
          else view.setUint8(offset(i, h, d), bits);
          held[n] = value;
        }
      }
    }
  }
  return { ptr: alloc(bytes), held, strideN, strideH, size, offset, bytes };
}

function widen16(bits: number, dtype: 'float16' | 'bfloat16'): number {
  if (dtype === 'bfloat16') return new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!;
  const magnitude = bits & 0x7fff;
  const e = magnitude >> 10;
  const value =
    e === 31
      ? (magnitude & 1023) === 0
        ? Infinity
        : NaN
      : (e === 0 ? magnitude : (magnitude & 1023) | 1024) * 2 ** (Math.max(e, 1) - 25);
  return bits & 0x8000 ? -value : value;
}

type Placed = ReturnType<typeof place>;

let stream = 0;

/** Moves the rows of K and V, placed by {@link place}, into the pages of one cache `[pages, 2, pageSize, heads, dim]`. */
function paginate(c: Case, pageSize: number, kvDtype: Floating, k: Placed, v: Placed): Partial<CpuAttentionArgs> {
  const width = dtypes[kvDtype].bytes;
  const heads = c.numKvHeads;
  const rowBytes = (c.headDimVo ?? c.headDim) * width;
  const slot = heads * rowBytes;
  const used = Math.ceil(c.kvLen / pageSize);
  const random = uniformSource(++stream);
  const shuffled = Array.from({ length: used + 3 }, (_, id) => ({ id, key: random() })).sort((a, b) => a.key - b.key);
  const pages = Int32Array.from(shuffled, ({ id }) => id);
  const cache = new Uint8Array((used + 3) * 2 * pageSize * slot).fill(0xff);
  for (let j = 0; j < c.kvLen; ++j) {
    for (let h = 0; h < heads; ++h) {
      [k, v].forEach((rows, which) => {
        const from = rows.offset(j, h, 0) * width;
        const to = ((pages[Math.floor(j / pageSize)]! * 2 + which) * pageSize + (j % pageSize)) * slot + h * rowBytes;
        cache.set(rows.bytes.subarray(from, from + rowBytes), to);
      });
    }
  }
  const ptr = alloc(cache);
  return {
    k: ptr,
    v: ptr + pageSize * slot,
    kStrideN: slot / width,
    vStrideN: slot / width,
    kStrideH: rowBytes / width,
    vStrideH: rowBytes / width,
    pageIndices: alloc(new Uint8Array(pages.buffer)),
    pageSize,
    kStridePage: (2 * pageSize * slot) / width,
    vStridePage: (2 * pageSize * slot) / width,
  };
}

function run(c: Case) {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDim } = c;
  const headDimVo = c.headDimVo ?? headDim;
  const qDtype = c.qDtype ?? 'float32';
  const kvDtype = c.kvDtype ?? 'float32';
  const outDtype = c.outDtype ?? qDtype;
  const options = c.options ?? {};
  const inputs = {
    q: normalArray(qoLen * numQoHeads * headDim, ++stream),
    k: normalArray(kvLen * numKvHeads * headDim, ++stream),
    v: normalArray(kvLen * numKvHeads * headDimVo, ++stream),
  };
  c.edit?.(inputs);
  const q = place(inputs.q, qoLen, numQoHeads, headDim, qDtype, c);
  const k = place(inputs.k, kvLen, numKvHeads, headDim, kvDtype, c);
  const v = place(inputs.v, kvLen, numKvHeads, headDimVo, kvDtype, c);
  const out = place(new Float32Array(0), qoLen, numQoHeads, headDimVo, outDtype, c, 0xcd);
  const lse = alloc(new Uint8Array(Math.max(4, qoLen * numQoHeads * 4)).fill(0xcd));

  const packed = new Uint8Array(Math.max(1, Math.ceil((qoLen * kvLen) / 8)));
  const mask = options.customMask;
  if (mask) for (let n = 0; n < mask.length; ++n) if (mask[n]) packed[n >> 3]! |= 1 << (n & 7);
  const slopes = Float32Array.from(alibiSlopes(numQoHeads));
  const mode = options.posEncodingMode ?? 'NONE';
  const args: CpuAttentionArgs = {
    q: q.ptr,
    k: k.ptr,
    v: v.ptr,
    out: out.ptr,
    lse,
    qDtype: dtypes[qDtype].code,
    kvDtype: dtypes[kvDtype].code,
    outDtype: dtypes[outDtype].code,
    qoLen,
    kvLen,
    numQoHeads,
    numKvHeads,
    headDimQk: headDim,
    headDimVo,
    qStrideN: q.strideN,
    qStrideH: q.strideH,
    kStrideN: k.strideN,
    kStrideH: k.strideH,
    vStrideN: v.strideN,
    vStrideH: v.strideH,
    outStrideN: out.strideN,
    outStrideH: out.strideH,
    maskMode: mask ? 2 : options.causal ? 1 : 0,
    customMask: mask ? alloc(packed) : 0,
    posEncodingMode: mode === 'ROPE_LLAMA' ? 1 : mode === 'ALIBI' ? 2 : 0,
    alibiSlopes: mode === 'ALIBI' ? alloc(new Uint8Array(slopes.buffer)) : 0,
    sinks: 0,
    windowLeft: options.windowLeft ?? -1,
    logitsSoftCap: options.logitsSoftCap ?? 0,
    smScale: options.smScale ?? 1 / Math.sqrt(headDim),
    ropeScale: options.ropeScale ?? 1,
    ropeTheta: options.ropeTheta ?? 1e4,
    vScale: options.vScale ?? 1,
    lseFactor: c.lseFactor ?? 1,
    ...(c.pageSize ? paginate(c, c.pageSize, kvDtype, k, v) : {}),
  };
  const compute = () => {
    cpu.attention(args);
    const bytes = new Uint8Array(out.size * dtypes[outDtype].bytes);
    host.read(out.ptr, bytes);
    const view = new DataView(bytes.buffer);
    const values = new Float64Array(qoLen * numQoHeads * headDimVo);
    const untouched = bytes.slice();
    for (let i = 0; i < qoLen; ++i) {
      for (let h = 0; h < numQoHeads; ++h) {
        for (let d = 0; d < headDimVo; ++d) {
          const at = out.offset(i, h, d) * dtypes[outDtype].bytes;
          values[(i * numQoHeads + h) * headDimVo + d] =
            outDtype === 'float32'
              ? view.getFloat32(at, true)
              : widen16(view.getUint16(at, true), outDtype as 'float16' | 'bfloat16');
        }
        const at = out.offset(i, h, 0) * dtypes[outDtype].bytes;
        untouched.fill(0xcd, at, at + headDimVo * dtypes[outDtype].bytes);
      }
    }
    expect(
      untouched.every((byte) => byte === 0xcd),
      'bytes beside the output rows',
    ).toBe(true);
    const lseBytes = new Uint8Array(qoLen * numQoHeads * 4);
    host.read(lse, lseBytes);
    return { out: values, lse: new Float32Array(lseBytes.buffer), bytes };
  };
  const shape = { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim, headDimVo };
  return {
    args,
    compute,
    reference: () => attentionReference(shape, { q: q.held, k: k.held, v: v.held }, options),
    headDimVo,
  };
}

/** bfloat16 products round the weights too; float32 keeps them. */
function toleranceOf(c: Case, isa: CpuIsa) {
  const bf16Products = isa === 'avx512bf16' && c.qDtype === 'bfloat16' && c.kvDtype === 'bfloat16';
  return attentionTolerance(bf16Products ? 'bfloat16' : ((c.outDtype ?? c.qDtype ?? 'float32') as DType));
}

function check(c: Case): void {
  const { compute, reference, headDimVo } = run(c);
  const expected = reference();
  for (let n = 0; n < expected.lse.length; ++n) expected.lse[n]! *= c.lseFactor ?? 1;
  for (const isa of isas) {
    cpu.setIsa(isa);
    const label = `${isa} ${JSON.stringify(c, (key, value) => (key === 'customMask' ? 'mask' : value))} seed ${testSeed}`;
    const actual = compute();
    expectClose(actual.out, expected.out, headDimVo, toleranceOf(c, isa), `out ${label}`);
    expectLseClose(actual.lse, expected.lse, toleranceOf(c, isa), `lse ${label}`);
  }
}

const lengths = [1, 2, 17, 127, 513];

describe('shapes', () => {
  it.each([8, 40, 64, 72, 128, 256, 512])('head dimension %i', (headDim) => {
    for (const [qoLen, kvLen] of [
      [1, 127],
      [5, 17],
      [33, 127],
      [130, 70],
    ] as const) {
      check({ qoLen, kvLen, numQoHeads: 2, numKvHeads: 2, headDim, padding: 3, options: { causal: true } });
    }
  });

  it('value rows of another length than key rows', () => {
    for (const [headDim, headDimVo] of [
      [192, 128],
      [64, 256],
      [24, 136],
    ] as const) {
      for (const qoLen of [1, 40]) {
        check({ qoLen, kvLen: 90, numQoHeads: 3, numKvHeads: 1, headDim, headDimVo, options: { causal: true } });
        check({
          qoLen,
          kvLen: 90,
          numQoHeads: 3,
          numKvHeads: 1,
          headDim,
          headDimVo,
          qDtype: 'bfloat16',
          kvDtype: 'bfloat16',
        });
      }
    }
  });

  it.each([1, 3, 4, 7, 8, 13])('group size %i', (groupSize) => {
    for (const qoLen of [1, 2, 17, 66]) {
      check({
        qoLen,
        kvLen: 127,
        numQoHeads: 2 * groupSize,
        numKvHeads: 2,
        headDim: 64,
        padding: 1,
        options: { causal: true },
      });
    }
  });

  it('every pair of lengths, causal and not, NHD and HND', () => {
    for (const qoLen of lengths) {
      for (const kvLen of lengths) {
        const causal = uniformSource(++stream)() < 0.5;
        const layout = qoLen % 2 === kvLen % 4 ? 'NHD' : 'HND';
        check({ qoLen, kvLen, numQoHeads: 2, numKvHeads: 1, headDim: 64, padding: 5, layout, options: { causal } });
        check({
          qoLen,
          kvLen,
          numQoHeads: 2,
          numKvHeads: 1,
          headDim: 64,
          padding: 5,
          layout,
          options: { causal: !causal },
        });
      }
    }
  });

  it('decoding over uneven groups of interleaved kv heads, keys split or not', () => {
    for (const kvLen of [9, 90, 700]) {
      for (const [numKvHeads, groupSize] of [
        [11, 1],
        [9, 3],
      ] as const) {
        const numQoHeads = numKvHeads * groupSize;
        check({ qoLen: 2, kvLen, numQoHeads, numKvHeads, headDim: 128, padding: 1, options: { causal: true } });
      }
    }
  });

  it('no keys gives zeros and -Infinity; no rows is no work', () => {
    for (const qoLen of [0, 1, 20]) {
      check({ qoLen, kvLen: 0, numQoHeads: 4, numKvHeads: 2, headDim: 64, options: { causal: true } });
    }
    check({ qoLen: 0, kvLen: 20, numQoHeads: 4, numKvHeads: 2, headDim: 64 });
  });
});

describe('dtypes', () => {
  const kvDtypes = ['float32', 'float16', 'bfloat16', 'float8_e4m3fn', 'float8_e5m2'] as const;
  const qDtypes = ['float32', 'float16', 'bfloat16'] as const;
  it.each(kvDtypes.flatMap((kvDtype) => qDtypes.map((qDtype) => ({ qDtype, kvDtype }))))(
    'q $qDtype, kv $kvDtype',
    ({ qDtype, kvDtype }) => {
      for (const [qoLen, kvLen, headDim] of [
        [1, 127, 128],
        [2, 17, 72],
        [70, 127, 64],
        [17, 90, 40],
      ] as const) {
        for (const outDtype of [qDtype, 'float32'] as const) {
          check({ qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDim, qDtype, kvDtype, outDtype, padding: 1 });
        }
      }
    },
  );

  it('every float8 value, subnormals and NaN included, is read exactly', () => {
    for (const kvDtype of ['float8_e4m3fn', 'float8_e5m2'] as const) {
      const { exponent, mantissa } = formats[kvDtype];
      const bias = 2 ** (exponent - 1) - 1;
      const value = (bits: number) => {
        const e = (bits & 0x7f) >> mantissa;
        const m = bits & ((1 << mantissa) - 1);
        const magnitude = (e === 0 ? m : m + 2 ** mantissa) * 2 ** (Math.max(e, 1) - bias - mantissa);
        if (kvDtype === 'float8_e4m3fn' && (bits & 0x7f) === 0x7f) return NaN;
        if (kvDtype === 'float8_e5m2' && e === 31) return m === 0 ? (bits & 0x80 ? -Infinity : Infinity) : NaN;
        return bits & 0x80 ? -magnitude : magnitude;
      };
      // One key has all the weight, so that the output is its row of V.
      for (const qoLen of [1, 20]) {
        const edit = ({ v }: { v: Float32Array }) => {
          for (let bits = 0; bits < 256; ++bits) v[bits] = value(bits);
        };
        const c: Case = { qoLen, kvLen: 1, numQoHeads: 1, numKvHeads: 1, headDim: 8, headDimVo: 256, kvDtype, edit };
        const { compute } = run(c);
        for (const isa of isas) {
          cpu.setIsa(isa);
          const { out } = compute();
          for (let bits = 0; bits < 256; ++bits) {
            expect(
              Object.is(out[bits], value(bits)) || out[bits] === value(bits),
              `${isa} ${kvDtype} ${bits}: ${out[bits]}`,
            ).toBe(true);
          }
        }
      }
    }
  });
});

describe('masks', () => {
  it.each([0, 1, 30, 100])('window %i', (windowLeft) => {
    for (const [qoLen, kvLen] of [
      [1, 513],
      [3, 200],
      [127, 127],
      [200, 300],
      [20, 10],
    ] as const) {
      check({ qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDim: 64, options: { windowLeft, causal: true } });
      check({ qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDim: 64, options: { windowLeft } });
    }
  });

  it('rows above the diagonal see nothing', () => {
    check({ qoLen: 127, kvLen: 17, numQoHeads: 2, numKvHeads: 2, headDim: 64, options: { causal: true } });
    check({ qoLen: 7, kvLen: 3, numQoHeads: 1, numKvHeads: 1, headDim: 64, options: { causal: true } });
  });

  it.each([0.02, 0.5, 0.98])('custom mask of density %d, replacing causal', (density) => {
    for (const [qoLen, kvLen] of [
      [1, 77],
      [3, 131],
      [33, 67],
      [70, 513],
    ] as const) {
      const customMask = maskArray(qoLen * kvLen, ++stream, density);
      check({ qoLen, kvLen, numQoHeads: 6, numKvHeads: 2, headDim: 64, options: { customMask, causal: true } });
      check({ qoLen, kvLen, numQoHeads: 6, numKvHeads: 2, headDim: 64, options: { customMask, windowLeft: 40 } });
    }
  });
});

describe('logits', () => {
  const shapes = [
    { qoLen: 1, kvLen: 300 },
    { qoLen: 4, kvLen: 65 },
    { qoLen: 80, kvLen: 127 },
  ];
  it('soft cap, from nearly linear to saturated', () => {
    for (const shape of shapes) {
      for (const logitsSoftCap of [0.5, 8, 50]) {
        for (const smScale of [0.02, 0.125, 2]) {
          check({
            ...shape,
            numQoHeads: 4,
            numKvHeads: 2,
            headDim: 64,
            options: { logitsSoftCap, smScale, causal: true },
          });
        }
      }
    }
  });

  it('ALiBi, with and without a soft cap', () => {
    for (const shape of shapes) {
      const options = { posEncodingMode: 'ALIBI', causal: true } as const;
      check({ ...shape, numQoHeads: 6, numKvHeads: 2, headDim: 64, options });
      check({ ...shape, numQoHeads: 6, numKvHeads: 2, headDim: 64, options: { ...options, logitsSoftCap: 20 } });
      check({ ...shape, numQoHeads: 8, numKvHeads: 8, headDim: 64, qDtype: 'bfloat16', kvDtype: 'bfloat16', options });
    }
  });

  it('RoPE, with scale and theta, also where rows outnumber keys', () => {
    for (const shape of [...shapes, { qoLen: 40, kvLen: 20 }]) {
      for (const [ropeScale, ropeTheta] of [
        [1, 1e4],
        [8, 5e5],
        [0.25, 100],
      ] as const) {
        const options = { posEncodingMode: 'ROPE_LLAMA', ropeScale, ropeTheta, causal: true } as const;
        check({ ...shape, numQoHeads: 4, numKvHeads: 2, headDim: 72, options });
        check({ ...shape, numQoHeads: 4, numKvHeads: 2, headDim: 64, kvDtype: 'float8_e4m3fn', options });
      }
    }
  });

  it('RoPE is exact to float32 at position 100000', () => {
    // A scale below 1 stretches the positions, so that few keys reach angles of 1e5.
    const options = { posEncodingMode: 'ROPE_LLAMA', ropeScale: 1 / 1000 } as const;
    check({ qoLen: 1, kvLen: 130, numQoHeads: 2, numKvHeads: 2, headDim: 128, options });
    check({ qoLen: 20, kvLen: 130, numQoHeads: 2, numKvHeads: 2, headDim: 128, options });
  });

  it('vScale, and smScale of either sign', () => {
    for (const shape of shapes) {
      for (const smScale of [-0.3, 0, 1.5]) {
        check({
          ...shape,
          numQoHeads: 2,
          numKvHeads: 1,
          headDim: 64,
          lseFactor: Math.LN2,
          options: { smScale, vScale: -2.5 },
        });
      }
    }
  });

  it('logits of 1e5 and sums that would overflow', () => {
    for (const shape of shapes) {
      const edit = ({ q, v }: { q: Float32Array; v: Float32Array }) => {
        for (let n = 0; n < q.length; ++n) q[n] = q[n]! > 0 ? 16384 : -16384;
        for (let n = 0; n < v.length; ++n) v[n] = 1e30 * v[n]!;
      };
      const integers = (inputs: { q: Float32Array; k: Float32Array; v: Float32Array }) => {
        edit(inputs);
        for (let n = 0; n < inputs.k.length; ++n) inputs.k[n] = Math.round(4 * inputs.k[n]!);
      };
      // Powers of two and integers: the dot products are exact, however large.
      check({ ...shape, numQoHeads: 2, numKvHeads: 2, headDim: 64, edit: integers, options: { smScale: 0.125 } });
    }
  });
});

describe('values that are not finite', () => {
  const shapes = [
    { qoLen: 1, kvLen: 100 },
    { qoLen: 6, kvLen: 100 },
    { qoLen: 70, kvLen: 100 },
  ];
  const heads = { numQoHeads: 2, numKvHeads: 2, headDim: 64 };

  it('logits of -Infinity weigh nothing; a row of them is as masked', () => {
    for (const shape of shapes) {
      for (const kvDtype of ['float32', 'bfloat16'] as const) {
        for (const every of [1, 3]) {
          const edit = ({ q, k }: { q: Float32Array; k: Float32Array }) => {
            for (let n = 0; n < q.length; n += 64) q[n] = 1;
            for (let j = 0; j < 200; j += every) k[j * 64] = -Infinity;
          };
          check({ ...shape, ...heads, qDtype: kvDtype, kvDtype, edit });
        }
      }
    }
  });

  it('a NaN in q, k or v makes exactly the rows that read it NaN', () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      for (const where of ['q', 'k', 'v'] as const) {
        for (const shape of shapes) {
          const at = where === 'q' ? shape.qoLen - 1 : 99;
          const edit = (inputs: { q: Float32Array; k: Float32Array; v: Float32Array }) => {
            inputs[where][at * 128 + 5] = NaN; // head 0, dimension 5
          };
          const c: Case = { ...shape, ...heads, qDtype: dtype, kvDtype: dtype, edit, options: { causal: true } };
          const { compute, reference } = run(c);
          const expected = reference();
          for (const isa of isas) {
            cpu.setIsa(isa);
            const actual = compute();
            expect(Array.from(actual.out, Number.isNaN), `${isa} ${where} ${dtype}`).toEqual(
              Array.from(expected.out, Number.isNaN),
            );
            expect(Array.from(expected.out).some(Number.isNaN)).toBe(true);
            expect(Array.from(actual.lse, Number.isNaN)).toEqual(Array.from(expected.lse, Number.isNaN));
          }
        }
      }
    }
  });

  it('a NaN or infinity behind a custom mask reaches no row', () => {
    for (const shape of shapes) {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const customMask = new Uint8Array(shape.qoLen * 100).fill(1);
        for (let i = 0; i < shape.qoLen; ++i) customMask[i * 100 + 41] = 0;
        const edit = ({ k, v }: { k: Float32Array; v: Float32Array }) => {
          k.fill(NaN, 41 * 128, 42 * 128);
          v.fill(Infinity, 41 * 128, 41 * 128 + 64);
          v.fill(NaN, 41 * 128 + 64, 42 * 128);
        };
        check({ ...shape, ...heads, qDtype: dtype, kvDtype: dtype, edit, options: { customMask } });
      }
    }
  });
});

describe('paged keys', () => {
  it.each([1, 3, 16, 200])('page size %i', (pageSize) => {
    for (const kvDtype of ['float32', 'bfloat16', 'float8_e5m2'] as const) {
      for (const [qoLen, kvLen] of [
        [1, 700],
        [5, 65],
        [70, 131],
      ] as const) {
        const qDtype = kvDtype === 'bfloat16' ? 'bfloat16' : 'float32';
        const c: Case = { qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDim: 64, qDtype, kvDtype, pageSize };
        check({ ...c, options: { causal: true } });
        check({ ...c, options: { windowLeft: 40, posEncodingMode: 'ROPE_LLAMA' } });
      }
    }
  });
});

describe('split keys', () => {
  it('long contexts with few heads', () => {
    for (const c of [
      { qoLen: 1, kvLen: 5000, numQoHeads: 4, numKvHeads: 1, headDim: 64 },
      { qoLen: 3, kvLen: 3001, numQoHeads: 1, numKvHeads: 1, headDim: 64, options: { causal: true } },
      { qoLen: 1, kvLen: 4097, numQoHeads: 16, numKvHeads: 1, headDim: 64 },
      {
        qoLen: 20,
        kvLen: 2500,
        numQoHeads: 1,
        numKvHeads: 1,
        headDim: 64,
        options: { causal: true, windowLeft: 1500 },
      },
      { qoLen: 1, kvLen: 3000, numQoHeads: 1, numKvHeads: 1, headDim: 64, qDtype: 'bfloat16', kvDtype: 'bfloat16' },
    ] satisfies Case[]) {
      check(c);
    }
  });

  it('parts that see no key', () => {
    const customMask = new Uint8Array(2000);
    customMask[1999] = 1;
    check({ qoLen: 1, kvLen: 2000, numQoHeads: 2, numKvHeads: 1, headDim: 64, options: { customMask } });
    check({
      qoLen: 1,
      kvLen: 2000,
      numQoHeads: 2,
      numKvHeads: 1,
      headDim: 64,
      options: { customMask: new Uint8Array(2000) },
    });
  });
});

describe('threads', () => {
  it('results are the same bits with any number of threads', () => {
    const { maxThreads, numThreads } = cpu.info();
    try {
      for (const c of [
        { qoLen: 1, kvLen: 5000, numQoHeads: 8, numKvHeads: 2, headDim: 128 },
        { qoLen: 300, kvLen: 700, numQoHeads: 4, numKvHeads: 2, headDim: 64, options: { causal: true } },
      ] satisfies Case[]) {
        const { compute } = run(c);
        const results = [1, 2, 3, maxThreads + 2].map((n) => {
          cpu.setNumThreads(n);
          expect(cpu.info().numThreads).toBe(n);
          return compute().bytes;
        });
        for (const result of results) expect(Buffer.compare(result, results[0]!)).toBe(0);
      }
    } finally {
      cpu.setNumThreads(numThreads);
    }
  });

  it('worker threads may compute at the same time, come and go', async () => {
    const c: Case = { qoLen: 40, kvLen: 900, numQoHeads: 8, numKvHeads: 2, headDim: 64, options: { causal: true } };
    const { compute, args } = run(c);
    const expected = compute().bytes;
    const path = addonCandidates(packageRoot()).find((candidate) => existsSync(candidate));
    const source = `const { workerData } = require('node:worker_threads');
      const { cpu } = require(workerData.path);
      for (let n = 0; n < 30; ++n) cpu.attention(workerData.args);`;
    for (let round = 0; round < 2; ++round) {
      const outs = Array.from({ length: 3 }, () => alloc(new Uint8Array(expected.length).fill(0xcd)));
      const lse = outs.map(() => alloc(new Uint8Array(40 * 8 * 4)));
      await Promise.all(
        outs.map(async (out, n) => {
          const workerData = { path, args: { ...args, out, lse: lse[n] } };
          const [exitCode] = await once(new Worker(source, { eval: true, workerData }), 'exit');
          expect(exitCode).toBe(0);
        }),
      );
      for (const out of outs) {
        const bytes = new Uint8Array(expected.length);
        host.read(out, bytes);
        expect(Buffer.compare(bytes, expected)).toBe(0);
      }
    }
    expect(Buffer.compare(compute().bytes, expected)).toBe(0);
  });

  it('info names the instruction set in use and refuses others', () => {
    for (const isa of isas) {
      cpu.setIsa(isa);
      expect(cpu.info().isa).toBe(isa);
    }
    cpu.setIsa('auto');
    expect(cpu.info().isa).toBe(isas[0]);
    expect(isas.at(-1)).toBe('generic');
    expect(() => cpu.setIsa('altivec' as CpuIsa)).toThrow("'altivec' is not available");
    expect(cpu.info().maxThreads).toBeGreaterThanOrEqual(1);
  });
});
