// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { parseTarget, releaseSupports, runsOn, type Target, targetFor } from '../../src/jit/arch.ts';
import { cubinSm } from '../../src/jit/cubin.ts';
import { scaleSpec } from './fixture.ts';

const plain = scaleSpec(2);

describe('parseTarget', () => {
  it.each([
    ['9.0a', 90, 'a'],
    ['90a', 90, 'a'],
    ['sm_120f', 120, 'f'],
    ['12.1', 121, ''],
    ['7.5', 75, ''],
    ['100', 100, ''],
  ])('%s', (text, sm, suffix) => expect(parseTarget(text)).toEqual({ sm, suffix }));

  it.each(['', 'sm_91', '9.0b', 'ninety', '6.0', 'compute_90'])('refuses %j', (text) => {
    expect(() => parseTarget(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_FLASHINFER_UNSUPPORTED_ARCH',
        message: expect.stringContaining('expected one of 75, 80'),
      }),
    );
  });
});

describe('targetFor', () => {
  it.each([
    [75, 'sm_75'],
    [80, 'sm_80'],
    [89, 'sm_89'],
    [90, 'sm_90a'],
    [103, 'sm_103a'],
    [121, 'sm_121a'],
  ])('sm_%i compiles for %s', (sm, target) => expect(targetFor(sm, plain)).toBe(target));

  it('falls to the closest older architecture of the same major for a GPU it does not know', () => {
    expect(targetFor(122, plain)).toBe('sm_121');
    expect(targetFor(105, plain)).toBe('sm_103');
    expect(targetFor(82, plain)).toBe('sm_80');
    expect(() => targetFor(130, plain)).toThrow(/scale_by_2 cannot run on sm_130; expected one of sm_75, .*sm_121/);
  });

  it('follows the architecture list, most specific first', () => {
    const list: Target[] = ['sm_80', 'sm_120f', 'sm_90', 'sm_90a'];
    expect(targetFor(90, plain, list)).toBe('sm_90a');
    expect(targetFor(121, plain, list)).toBe('sm_120f');
    expect(targetFor(86, plain, list)).toBe('sm_80');
    expect(() => targetFor(100, plain, list)).toThrow(
      expect.objectContaining({
        code: 'ERR_FLASHINFER_UNSUPPORTED_ARCH',
        message: expect.stringMatching(/sm_100; expected FLASHINFER_CUDA_ARCH_LIST \(sm_80 .*\) to have a target/),
      }),
    );
  });

  it('refuses GPUs below a kernel’s lowest, and others than its exact architecture', () => {
    expect(() => targetFor(70, plain)).toThrow(/cannot run on sm_70; expected sm_75 or newer/);
    expect(() => targetFor(75, scaleSpec(2, { minArch: 80 }))).toThrow(/expected sm_80 or newer/);
    const hopper = scaleSpec(2, { exactArch: 'sm_90a' });
    expect(targetFor(90, hopper, ['sm_90'])).toBe('sm_90a');
    expect(() => targetFor(100, hopper)).toThrow(/expected a GPU that runs sm_90a code/);
  });
});

it.each([
  ['sm_80', 86, true],
  ['sm_86', 80, false],
  ['sm_80', 90, false],
  ['sm_90a', 90, true],
  ['sm_120a', 121, false],
  ['sm_120f', 121, true],
  ['sm_120', 121, true],
])('%s code on sm_%i: %s', (target, sm, expected) => expect(runsOn(target, sm)).toBe(expected));

it.each([
  ['11.8', 'sm_89', true],
  ['11.8', 'sm_90a', false],
  ['12.4', 'sm_90a', true],
  ['12.8', 'sm_120a', true],
  ['12.8', 'sm_120f', false],
  ['12.9', 'sm_121a', true],
  ['12.9', 'sm_88', false],
  ['13.0', 'sm_110a', true],
] as [string, Target, boolean][])('CUDA %s knows %s: %s', (release, target, expected) => {
  expect(releaseSupports(release, target)).toBe(expected);
});

describe('cubinSm', () => {
  const header = (osAbi: number, flags: number, machine = 190) => {
    const bytes = new Uint8Array(64);
    bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, osAbi]);
    const view = new DataView(bytes.buffer);
    view.setUint16(18, machine, true);
    view.setUint32(48, flags, true);
    return bytes;
  };

  it('reads both forms of the header', () => {
    expect(cubinSm(header(0x41, 0x6007802))).toBe(120);
    expect(cubinSm(header(0x33, 0x5a055a))).toBe(90);
  });

  it('knows what is no cubin', () => {
    expect(cubinSm(header(0x41, 0x6007802, 62))).toBeUndefined();
    expect(cubinSm(header(0x41, 0x6007802).subarray(0, 40))).toBeUndefined();
    expect(cubinSm(new TextEncoder().encode('.version 8.0\n'.repeat(20)))).toBeUndefined();
  });
});
