// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { packageVersion } from '../../src/packageRoot.ts';
import { showConfig } from '../../src/showConfig.ts';

let base: string;
let cache: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'flashinfer-cli-'));
  cache = join(base, 'flashinfer', packageVersion());
  vi.stubEnv('FLASHINFER_WORKSPACE_BASE', base);
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(base, { recursive: true });
});

/** An entry without its manifest: listed, but not usable. */
function addDamagedModule(target: string, name: string, bytes: number): void {
  const folder = join(cache, target, `${name}_cu130`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'kernel.cubin'), Buffer.alloc(bytes));
}

async function run(...args: string[]): Promise<string> {
  const lines: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((text = '') => void lines.push(text));
  await createProgram().parseAsync(args, { from: 'user' });
  return lines.join('\n');
}

describe('list-modules', () => {
  it('lists name, architecture, state and size', async () => {
    addDamagedModule('sm_90a', 'single_decode_f16_0123456789abcdef', 3072);
    addDamagedModule('sm_80', 'fill_f32_0123456789abcdef', 10);
    const out = await run('list-modules');
    expect(out.split('\n')).toHaveLength(2);
    expect(out).toMatch(/^ {2}sm_90a +single_decode_f16_0123456789abcdef +corrupt +3\.0 KiB$/m);
    expect(out).toMatch(/^ {2}sm_80 +fill_f32_0123456789abcdef +corrupt +10 bytes$/m);
  });

  it('narrows by name, and gives the same as JSON', async () => {
    addDamagedModule('sm_90a', 'single_decode_f16_0123456789abcdef', 1);
    addDamagedModule('sm_90a', 'fill_f32_0123456789abcdef', 1);
    const found = JSON.parse(await run('list-modules', 'decode', '--json'));
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ uri: 'single_decode_f16_0123456789abcdef', target: 'sm_90a', state: 'corrupt' });
    expect(await run('list-modules', 'rope')).toBe('No module has rope in its name.');
  });

  it('says that the cache is empty', async () => {
    expect(await run('list-modules')).toBe('The cache is empty.');
  });
});

describe('clear-cache', () => {
  it('deletes the modules of this version and nothing else', async () => {
    addDamagedModule('sm_90a', 'fill_f32_0123456789abcdef', 2048);
    const other = join(base, 'flashinfer', '0.0.1-other', 'sm_90a');
    mkdirSync(other, { recursive: true });
    const installed = join(cache, 'jit-cache/cu130');
    mkdirSync(installed, { recursive: true });
    expect(showConfig().cache).toEqual({ path: cache, bytes: 2048, count: 1 });

    expect(await run('clear-cache')).toBe(`Deleted 1 module, 2.0 KiB, in ${cache}`);
    expect(existsSync(join(cache, 'sm_90a'))).toBe(false);
    expect(existsSync(installed)).toBe(true);
    expect(existsSync(other)).toBe(true);
    expect(await run('clear-cache')).toBe(`Deleted 0 modules, 0 bytes, in ${cache}`);
  });
});
