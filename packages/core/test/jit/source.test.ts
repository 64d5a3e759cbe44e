// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import { cubinSm } from '../../src/jit/cubin.ts';
import { paramTypes, structLayout } from '../../src/jit/layout.ts';
import { ParamsPacker } from '../../src/jit/packer.ts';
import { generateSource, structSource } from '../../src/jit/source.ts';
import type { KernelSpec, ParamField, ParamType } from '../../src/jit/spec.ts';
import { requireNvcc, scaleSpec, temporaryFolder, writeHeader } from './fixture.ts';

const nvcc = requireNvcc();
const types = Object.keys(paramTypes) as ParamType[];
const randomInteger = (below: number) => Math.floor(Math.random() * below);

function randomFields(count: number, choices: readonly ParamType[] = types): ParamField[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `field${i}`,
    type: choices[randomInteger(choices.length)] as ParamType,
  }));
}

const randomBytes = () => Uint8Array.from({ length: 128 }, () => randomInteger(256));
const randomValue: Record<ParamType, () => number | bigint | Uint8Array> = {
  ptr: () => randomInteger(Number.MAX_SAFE_INTEGER),
  i32: () => randomInteger(2 ** 32) - 2 ** 31,
  u32: () => randomInteger(2 ** 32),
  i64: () =>
    randomInteger(2) ? -randomInteger(Number.MAX_SAFE_INTEGER) : -(2n ** 63n) + BigInt(randomInteger(2 ** 50)),
  u64: () =>
    randomInteger(2) ? randomInteger(Number.MAX_SAFE_INTEGER) : 2n ** 64n - 1n - BigInt(randomInteger(2 ** 50)),
  f32: () => Math.fround(Math.random() - 0.5),
  f64: () => Math.random() - 0.5,
  u8: () => randomInteger(256),
  tensormap: randomBytes,
};

/** What C++ reads from the struct: one line a field. */
const printers: Record<ParamType, (name: string) => string> = {
  ptr: (name) => `printf("%llu\\n", (unsigned long long)p.${name});`,
  i32: (name) => `printf("%d\\n", p.${name});`,
  u32: (name) => `printf("%u\\n", p.${name});`,
  i64: (name) => `printf("%lld\\n", p.${name});`,
  u64: (name) => `printf("%llu\\n", p.${name});`,
  f32: (name) => `printf("%.9g\\n", p.${name});`,
  f64: (name) => `printf("%.17g\\n", p.${name});`,
  u8: (name) => `printf("%u\\n", p.${name});`,
  tensormap: (name) => `for (unsigned char c : *(unsigned char(*)[128])&p.${name}) printf("%02x", c); puts("");`,
};

function specOf(params: readonly ParamField[]): KernelSpec {
  return { name: 'fields', header: 'flashinfer/test/use.cuh', entry: 'test::use', params, threads: 32 };
}

describe('struct Params', () => {
  it('holds in C++ exactly what the packer wrote, for random field lists', { timeout: 60_000 }, () => {
    const lists = [
      randomFields(1),
      randomFields(2),
      randomFields(9),
      randomFields(9, ['u8', 'i32']),
      randomFields(25),
      randomFields(25),
    ];
    for (const params of lists) {
      const folder = temporaryFolder();
      const args = Object.fromEntries(params.map(({ name, type }) => [name, randomValue[type]()]));
      const packer = new ParamsPacker(specOf(params));
      new Uint8Array(packer.buffer).fill(0xa5);
      packer.pack(args);
      writeFileSync(join(folder, 'packed'), new Uint8Array(packer.buffer));
      writeFileSync(
        join(folder, 'main.cc'),
        [
          '#include <cstdio>',
          ...structSource(structLayout(params, 'test')),
          'int main(int, char** argv) {',
          '  Params p; FILE* f = fopen(argv[1], "rb");',
          '  if (fread(&p, 1, sizeof p, f) != sizeof p || fgetc(f) != EOF) return 1;',
          ...params.map(({ name, type }) => `  ${printers[type](name)}`),
          '}',
        ].join('\n'),
      );
      execFileSync(process.env.CXX || 'g++', ['-std=c++17', '-o', join(folder, 'main'), join(folder, 'main.cc')]);
      const lines = execFileSync(join(folder, 'main'), [join(folder, 'packed')], { encoding: 'utf8' }).split('\n');
      for (const [i, { name, type }] of params.entries()) {
        const value = args[name];
        const line = lines[i] as string;
        if (value instanceof Uint8Array) expect(line, name).toBe(Buffer.from(value).toString('hex'));
        else if (type === 'f32' || type === 'f64')
          expect(type === 'f32' ? Math.fround(Number(line)) : Number(line), name).toBe(value);
        else expect(BigInt(line), name).toBe(BigInt(value as number));
      }
    }
  });

  it('refuses to compile when an offset disagrees', () => {
    const folder = temporaryFolder();
    const layout = structLayout(
      [
        { name: 'a', type: 'u8' },
        { name: 'b', type: 'i32' },
      ],
      'test',
    );
    const wrong = { ...layout, fields: layout.fields.map((field) => ({ ...field, offset: field.offset && 1 })) };
    writeFileSync(join(folder, 'wrong.cc'), structSource(wrong).join('\n'));
    const compile = () =>
      execFileSync(process.env.CXX || 'g++', ['-std=c++17', '-fsyntax-only', join(folder, 'wrong.cc')], {
        stdio: 'pipe',
      });
    expect(compile).toThrow(/offset of Params::b/);
  });

  it.skipIf(!nvcc)('compiles in the generated kernel, where device code sees the same layout', () => {
    const folder = temporaryFolder();
    const params = [...randomFields(20), { name: 'out', type: 'ptr' } as const];
    writeHeader(folder, 'flashinfer/test/use.cuh', [
      'namespace test { template <class P> __device__ void use(const P& p) { *static_cast<P*>(p.out) = p; } }',
    ]);
    const sourcePath = join(folder, 'source.cu');
    const spec = specOf(params);
    const source = generateSource(spec);
    writeFileSync(sourcePath, source);
    const unit = {
      name: spec.name,
      source,
      sourcePath,
      target: 'sm_90a',
      includeRoots: [folder],
      options: { debug: false, lineInfo: false },
    } as const;
    const { cubin, log } = runSync(
      (function* () {
        return (yield nvcc!.compile(unit)) as { cubin: Uint8Array; log: string };
      })(),
    );
    expect(cubinSm(cubin)).toBe(90);
    expect(log).toMatch(/Compiling entry function 'fields' for 'sm_90a'/);
    expect(Buffer.compare(readFileSync(join(folder, 'kernel.cubin')), cubin)).toBe(0);
  });
});

describe('ParamsPacker', () => {
  const spec = scaleSpec(3);
  const args = { out: 2 ** 46 + 12345, count: 7, factor: 1.5 };

  it('writes addresses above 32 bits, from numbers and bigints alike', () => {
    const packer = new ParamsPacker(spec);
    for (const out of [args.out, BigInt(args.out)]) {
      packer.pack({ ...args, out });
      expect(new DataView(packer.buffer).getBigUint64(0, true)).toBe(BigInt(args.out));
    }
    packer.pack({ ...args, out: 0 });
    expect(new DataView(packer.buffer).getBigUint64(0, true)).toBe(0n);
  });

  it.each([
    ['out', undefined, /argument out is missing; expected a device address/],
    ['out', Number.NaN, /argument out is NaN/],
    ['out', -8, /argument out is -8/],
    ['out', 0.5, /argument out is 0.5/],
    ['out', 2 ** 60, /argument out is 1152921504606847000/],
    ['out', -1n, /argument out is -1 \(bigint\)/],
    ['count', -1, /argument count is -1 \(number\); expected an unsigned 32-bit integer/],
    ['count', 2 ** 32, /argument count is 4294967296/],
    ['count', 1.5, /argument count is 1.5/],
    ['count', 3n, /argument count is 3 \(bigint\)/],
    ['count', Number.NaN, /argument count is NaN/],
    ['factor', undefined, /argument factor is missing/],
    ['factor', new Uint8Array(128), /argument factor is 128 bytes; expected a number \(f32\)/],
  ])('refuses %s = %s', (name, value, message) => {
    const packer = new ParamsPacker(spec);
    packer.pack(args);
    expect(() => packer.pack({ ...args, [name]: value } as never)).toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_INTERNAL', message: expect.stringMatching(message) }),
    );
  });

  it('refuses names that are no fields, and missing ones, at any launch and wherever they stand', () => {
    const packer = new ParamsPacker(spec);
    const noField = /stride are not fields; expected out, count, factor/;
    expect(() => packer.pack({ ...args, stride: 1 })).toThrow(noField);
    packer.pack(args);
    expect(() => packer.pack({ ...args, stride: 1 })).toThrow(noField);
    expect(() => packer.pack({ stride: 1, ...args })).toThrow(noField);
    expect(() => packer.pack({ out: 1, factor: 1 } as never)).toThrow(/argument count is missing/);
    expect(() => packer.pack({})).toThrow(/argument out is missing/);
  });

  it('writes the same bytes whatever the order of the arguments', () => {
    const packer = new ParamsPacker(spec);
    packer.pack(args);
    const expected = packer.buffer.slice(0);
    for (const names of [
      ['factor', 'out', 'count'],
      ['count', 'factor', 'out'],
      ['out', 'count', 'factor'],
    ] as const) {
      new Uint8Array(packer.buffer).fill(0x5a);
      packer.pack(Object.fromEntries(names.map((name) => [name, args[name]])));
      expect(packer.buffer).toEqual(expected);
    }
  });

  it('keeps NaN and infinities of floating-point fields', () => {
    const packer = new ParamsPacker(spec);
    packer.pack({ ...args, factor: Number.NaN });
    expect(new DataView(packer.buffer).getFloat32(12, true)).toBeNaN();
    packer.pack({ ...args, factor: Number.NEGATIVE_INFINITY });
    expect(new DataView(packer.buffer).getFloat32(12, true)).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe('generateSource', () => {
  it.each([
    [{ name: 'Bad-Name' }, /name 'Bad-Name'; expected/],
    [{ header: '../etc/passwd' }, /header '..\/etc\/passwd'/],
    [{ entry: 'scale_by_2<4>' }, /entry 'scale_by_2<4>'; expected another name than the kernel's/],
    [{ threads: 2048 }, /threads 2048; expected 1 to 1024/],
    [{ exactArch: '90a' }, /exactArch '90a'; expected e.g. 'sm_90a'/],
    [{ params: [{ name: 'x y', type: 'ptr' }] }, /param 'x y'; expected a C\+\+ identifier/],
    [
      {
        params: [
          { name: 'x', type: 'ptr' },
          { name: 'x', type: 'i32' },
        ],
      },
      /params \[x,x\]; expected distinct names/,
    ],
    [{ params: [] }, /params take 0 bytes; expected 1 to 4096/],
    [
      { params: Array.from({ length: 40 }, (_, i) => ({ name: `m${i}`, type: 'tensormap' })) },
      /params take 5120 bytes/,
    ],
  ] as [Partial<KernelSpec>, RegExp][])('refuses a malformed spec %#', (changes, message) => {
    expect(() => generateSource(scaleSpec(2, changes))).toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_INTERNAL', message: expect.stringMatching(message) }),
    );
  });

  it('passes both launch bounds and places the prelude before the struct', () => {
    const source = generateSource(scaleSpec(2, { minBlocksPerSm: 4, prelude: 'struct Variant {};' }));
    expect(source).toContain('__launch_bounds__(128, 4)');
    expect(source.indexOf('struct Variant {};')).toBeGreaterThan(source.indexOf('#include'));
    expect(source.indexOf('struct Variant {};')).toBeLessThan(source.indexOf('struct Params'));
  });
});
