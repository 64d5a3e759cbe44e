// SPDX-License-Identifier: Apache-2.0
// Cases run here as they are, of those that differ only in sizes the smallest, and every exported operator must be called
// by one of them. Runs on the cpu device, or on FLASHINFER_TEST_DEVICE.
import * as core from '@flashinfer/core';
import { parseDevice } from '@flashinfer/core/internal';
import { expect, it, vi } from 'vitest';
import type { DeviceCase, Operation } from '../src/cases/benchCase.ts';
import { selectCases } from '../src/cases/registry.ts';
import { operatorsCalledBy } from './recordOperators.ts';

vi.mock('@flashinfer/core', async (importOriginal) => {
  const { recordOperators } = await import('./recordOperators.ts');
  return recordOperators(await importOriginal());
});

const device = parseDevice(process.env.FLASHINFER_TEST_DEVICE ?? 'cpu');

const exported: Readonly<Record<string, unknown>> = core;

/** Exports that are functions or classes and no operators, by what they are. */
const others = {
  'a tensor, or makes one': [
    'Tensor',
    'arange',
    'empty',
    'fromBits',
    'full',
    'ones',
    'rand',
    'randn',
    'tensor',
    'zeros',
  ],
  'describes what attention does': ['defineAttentionVariant'],
  'about kernels, not results; compile/ measures them': ['aotKernels', 'warmup'],
  'a setting, or shows settings': ['defaultDevice', 'manualSeed', 'setDefaultDevice', 'setNumThreads', 'showConfig'],
  'an error': Object.keys(exported).filter((name) => isError(exported[name])),
};

function isError(value: unknown): boolean {
  return typeof value === 'function' && value.prototype instanceof Error;
}

const listed: readonly string[] = Object.values(others).flat();
const operators = Object.keys(exported).filter(
  (name) => typeof exported[name] === 'function' && !listed.includes(name),
);

it('lists as no operators only what is exported', () => {
  expect(listed.filter((name) => typeof exported[name] !== 'function')).toEqual([]);
  expect(operators.length).toBeGreaterThan(50);
});

/** What cases that differ only in sizes have in common. */
const kindOf = ({ name }: DeviceCase): string => name.replace(/\d+/g, '#');

function smallestOfEachKind(): DeviceCase[] {
  const cases = selectCases([], device === 'cpu' ? 'cpu' : 'cuda').filter((each) => each.kind === 'device');
  const kinds = new Map<string, DeviceCase>();
  for (const each of cases) {
    const other = kinds.get(kindOf(each));
    if (other === undefined || each.bytes < other.bytes) kinds.set(kindOf(each), each);
  }
  return [...kinds.values()];
}

const measured = new Set<string>();

it.each(smallestOfEachKind())('$name runs', async ({ setup, capturable = true }) => {
  const operation = await setup({ device, quick: true }, 1);
  try {
    // What setup() calls is not measured.
    for (const name of operatorsCalledBy(() => operation.run(0))) measured.add(name);
    if (device !== 'cpu' && capturable) capture(operation);
  } finally {
    operation.dispose();
  }
});

function capture(operation: Operation): void {
  using stream = new core.cuda.Stream({ device });
  core.cuda.withStream(stream, () => operation.run(0));
  using graph = core.cuda.capture(stream, () => operation.run(0));
  graph.launch(stream);
  stream.synchronizeSync();
}

it('has measured every operator', () => {
  expect(
    operators.filter((name) => !measured.has(name)),
    'add cases to src/cases/, or name them above',
  ).toEqual([]);
});
