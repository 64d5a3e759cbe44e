// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { loadAnchors } from '../src/anchors.ts';
import { allCases, selectCases } from '../src/cases/registry.ts';

const families = ['decode', 'prefill', 'elementwise', 'norm', 'activation', 'launch', 'import', 'compile'];

it('has cases of every family', () => {
  for (const family of families) expect(allCases.some(({ name }) => name.startsWith(`${family}/`))).toBe(true);
});

it.each(['cpu', 'cuda'] as const)('offers uniquely named cases on %s, and only those of the device', (device) => {
  const cases = selectCases([], device);
  expect(cases.length).toBeGreaterThan(5);
  expect(cases.every(({ devices }) => devices.includes(device))).toBe(true);
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
});

it('selects by part of a name or by a whole pattern', () => {
  const names = (...patterns: string[]): string[] => selectCases(patterns, 'cuda').map(({ name }) => name);
  expect(names('decode').every((name) => name.includes('decode'))).toBe(true);
  expect(names('decode/kv65536_h32k8_d128_*')).toEqual(['decode/kv65536_h32k8_d128_bf16']);
  expect(names('*_causal').every((name) => name.endsWith('_causal'))).toBe(true);
  expect(names('no.such')).toEqual([]);
  expect(names('import', 'launch').length).toBe(2);
});

it('names anchors that exist', () => {
  const known = new Set(loadAnchors('NVIDIA H200').map((row) => row.case));
  const anchored = selectCases([], 'cuda').filter(({ anchor }) => anchor !== undefined);
  expect(anchored.length).toBeGreaterThan(20);
  for (const { name, anchor } of anchored) expect(known.has(anchor!), `${name}: ${anchor}`).toBe(true);
});
