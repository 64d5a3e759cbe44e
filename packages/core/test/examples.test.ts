// SPDX-License-Identifier: Apache-2.0
// Runs programs of examples/ that check their own results, on the device named by FLASHINFER_TEST_DEVICE.
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it, vi } from 'vitest';
import { defaultDevice, setDefaultDevice } from '../src/index.ts';
import { testDevice } from './device.ts';

const program = fileURLToPath(new URL('../../../examples/continuousBatching.mjs', import.meta.url));
const before = { device: defaultDevice(), argv: process.argv };
afterEach(() => {
  vi.restoreAllMocks();
  setDefaultDevice(before.device);
  process.argv = before.argv;
});

it.each([1, 2, 3])('continuousBatching.mjs, seed %i', async (seed) => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  setDefaultDevice(testDevice);
  process.argv = [process.argv[0]!, 'continuousBatching.mjs', String(seed)];
  // The query makes each import run the program again.
  await import(`${program}?seed=${seed}`);
  const lines = log.mock.calls.map(([line]) => String(line));
  expect(lines[0]).toContain(`device ${testDevice}`);
  expect(lines[0]).toContain(`seed ${seed}`);
  expect(lines.filter((line) => line.includes('joins'))).toHaveLength(12);
  expect(lines.filter((line) => line.includes('leaves'))).toHaveLength(12);
  expect(lines.at(-1)).toMatch(/: all good$/);
});
