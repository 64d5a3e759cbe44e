// SPDX-License-Identifier: Apache-2.0
// Runs the examples of the doc comments of everything exported, each as a module of its own, on the device named by
// FLASHINFER_TEST_DEVICE.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import * as api from '../src/index.ts';
import { native } from '../src/native/load.ts';
import { packageRoot } from '../src/packageRoot.ts';
import { testDevice } from './device.ts';
import { docComments, docCommentsIn, exampleBlocks } from './docExamples.ts';

/** What needs no example, by name. */
const exempt = new Map([
  ['FlashInferError', 'users catch it; they do not make one'],
  ...Object.entries(api)
    .filter(([, value]) => typeof value === 'function' && value.prototype instanceof api.FlashInferError)
    .map(([name]) => [name, 'as FlashInferError'] as const),
]);

const names = Object.entries(api)
  .filter(([name, value]) => typeof value === 'function' && !exempt.has(name))
  .map(([name]) => name);
const comments = docCommentsIn(join(packageRoot(), 'src'));

let folder = '';
beforeAll(() => {
  const parent = join(packageRoot(), 'build');
  mkdirSync(parent, { recursive: true });
  folder = mkdtempSync(join(parent, 'doc-examples-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the example of', () => {
  const { numThreads } = native().cpu.info();
  const defaultDevice = api.defaultDevice();
  beforeEach(() => {
    vi.spyOn(console, 'log').mockImplementation(() => undefined);
    api.setDefaultDevice(testDevice);
    return () => {
      vi.restoreAllMocks();
      api.setDefaultDevice(defaultDevice);
      api.setNumThreads(numThreads);
    };
  });

  it.each(names)('%s runs', async (name) => {
    const blocks = exampleBlocks(comments.get(name) ?? '');
    expect(blocks.length, `no \`\`\`ts block in the doc comment of ${name}`).toBeGreaterThan(0);
    for (const [n, block] of blocks.entries()) {
      expect(block).toMatch(new RegExp(`^import \\{[^}]*\\b${name}\\b[^}]*\\} from '@flashinfer/core';`, 'm'));
      const path = join(folder, `${name}-${n}.ts`);
      writeFileSync(path, block);
      await import(path);
    }
    await api.cuda.synchronize();
  });
});

describe('what reads the examples', () => {
  const source = [
    '/** Not this. */',
    'export const other = 1;',
    '/**',
    ' * First.',
    ' * ```ts',
    " * import { f } from '@flashinfer/core';",
    ' *',
    ' * f(); // *',
    ' * ```',
    ' * ```sh',
    ' * no',
    ' * ```',
    ' */',
    'export function f(): void;',
    '/** Second. */',
    'export function f(x?: number): void {}',
    'export class Bare {}',
  ].join('\n');

  it('finds the comment of an export and its blocks', () => {
    const found = docComments(source);
    expect([...found.keys()]).toEqual(['f']);
    expect(exampleBlocks(found.get('f')!)).toEqual(["import { f } from '@flashinfer/core';\n\nf(); // *\n"]);
  });
});
