// SPDX-License-Identifier: Apache-2.0
// What changes a module's key, and what does not.
import { utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { JitConfig } from '../../src/jit/config.ts';
import { listHeaders } from '../../src/jit/headers.ts';
import { moduleKey } from '../../src/jit/key.ts';
import type { KernelSpec } from '../../src/jit/spec.ts';
import { scaleSpec, testJit, writeHeader, writeScaleHeaders } from './fixture.ts';

function key(spec: KernelSpec, config: JitConfig): string {
  return moduleKey(spec, config).uri;
}

describe('moduleKey', () => {
  const { config } = testJit(undefined);
  const base = key(scaleSpec(2), config);

  it('is the readable name and a hash, the same for equal specs', () => {
    expect(base).toMatch(/^scale_by_2_[0-9a-f]{16}$/);
    expect(key(structuredClone(scaleSpec(2)), config)).toBe(base);
    expect(key(scaleSpec(2), testJit(undefined).config)).toBe(base);
  });

  it.each([
    ['entry', { entry: 'test::scale<7>' }],
    ['threads', { threads: 64 }],
    ['launch bounds', { minBlocksPerSm: 2 }],
    ['prelude', { prelude: 'struct Variant {};' }],
    ['order of fields', { params: [...scaleSpec(2).params].reverse() }],
  ] as [string, Partial<KernelSpec>][])('changes with the %s', (_, changes) => {
    expect(key(scaleSpec(2, changes), config)).not.toBe(base);
  });

  it('changes with flags and library version', () => {
    expect(key(scaleSpec(2), { ...config, libraryVersion: '99.0.0' })).not.toBe(base);
    expect(key(scaleSpec(2), { ...config, codegen: { debug: true, lineInfo: false } })).not.toBe(base);
  });

  it('changes with an indirectly included header, and back with it', () => {
    const { config: own, includeRoot } = testJit(undefined);
    const path = join(includeRoot, 'flashinfer/test/multiply.cuh');
    expect(key(scaleSpec(2), own)).toBe(base);
    writeHeader(includeRoot, 'flashinfer/test/multiply.cuh', [
      'namespace test { constexpr float multiply(float a, float b) { return b * a; } }',
    ]);
    utimesSync(path, new Date(), new Date(Date.now() + 5000));
    expect(key(scaleSpec(2), own)).not.toBe(base);
    writeScaleHeaders(includeRoot);
    utimesSync(path, new Date(), new Date(Date.now() + 9000));
    expect(key(scaleSpec(2), own)).toBe(base);
  });
});

describe('headers', () => {
  const { includeRoot } = testJit(undefined);
  const roots = [includeRoot];

  it('follows quoted, bracketed and relative includes, once each, and not those in comments', () => {
    writeHeader(includeRoot, 'flashinfer/a/top.cuh', [
      '#include <flashinfer/b.cuh>',
      '  #  include "beside.cuh" // why',
      '#include "flashinfer/b.cuh"',
      '/* #include "absent.cuh"',
      '#include <vector> */',
      '// #include "absent.cuh"',
      '#include <cstdint>',
    ]);
    writeHeader(includeRoot, 'flashinfer/a/beside.cuh', ['#include <flashinfer/a/top.cuh>']);
    writeHeader(includeRoot, 'flashinfer/b.cuh', []);
    expect(listHeaders('flashinfer/a/top.cuh', roots).sort()).toEqual([
      'flashinfer/a/beside.cuh',
      'flashinfer/a/top.cuh',
      'flashinfer/b.cuh',
    ]);
  });

  it.each(['<cuda_fp16.h>', '<cub/cub.cuh>', 'HEADER', '"../up.cuh"', '<flashinfer/../x.cuh>', ''])(
    'refuses #include %s',
    (operand) => {
      writeHeader(includeRoot, `flashinfer/refused${operand.length}.cuh`, ['', `#include ${operand}`]);
      expect(() => listHeaders(`flashinfer/refused${operand.length}.cuh`, roots)).toThrow(
        expect.objectContaining({ code: 'ERR_FLASHINFER_INTERNAL', message: expect.stringContaining('#include') }),
      );
    },
  );

  it('names the header that is missing and who includes it', () => {
    writeHeader(includeRoot, 'flashinfer/lonely.cuh', ['#include <flashinfer/absent.cuh>']);
    expect(() => listHeaders('flashinfer/lonely.cuh', roots)).toThrow(
      expect.objectContaining({
        code: 'ERR_FLASHINFER_BINARY_NOT_FOUND',
        message: expect.stringMatching(/flashinfer\/lonely.cuh includes flashinfer\/absent.cuh, which is not below/),
      }),
    );
  });
});
