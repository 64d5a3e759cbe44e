// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { aotKernels } from '../../src/aotKernels.ts';
import type { Module } from '../../src/cli/modules.ts';
import { createProgram } from '../../src/cli/program.ts';
import { jitConfig } from '../../src/jit/config.ts';
import { moduleKey } from '../../src/jit/key.ts';
import { packageVersion } from '../../src/packageRoot.ts';
import { showConfig } from '../../src/showConfig.ts';
import { expectRejects } from '../thrownBy.ts';

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
  const specs = aotKernels({ arch: '8.0' });
  const { uri } = moduleKey(specs[0]!, jitConfig());

  it('lists what models launch, without a GPU, and what else the cache holds', async () => {
    addDamagedModule('sm_80', uri, 3072);
    addDamagedModule('cpu_linux_x64_avx2', 'variant_mine_0123456789abcdef', 10);
    const rows: Module[] = JSON.parse(await run('list-modules', '--arch', '8.0', '--json'));
    expect(rows).toHaveLength(specs.length + 1);
    expect(rows.map((row) => row.uri)).toEqual(rows.map((row) => row.uri).sort());
    expect(rows.find((row) => row.uri === uri)).toMatchObject({
      header: specs[0]!.header,
      entry: specs[0]!.entry,
      targets: ['sm_80'],
      cached: [{ uri, target: 'sm_80', state: 'corrupt', bytes: 3072 }],
    });
    const mine = 'variant_mine_0123456789abcdef';
    expect(rows.find((row) => row.uri === mine)).toMatchObject({
      header: null,
      targets: [],
      cached: [{ target: 'cpu_linux_x64_avx2' }],
    });

    const lines = (await run('list-modules')).split('\n');
    expect(lines.at(-1)).toBe(`${lines.length - 1} modules: 2 in the cache`);
    expect(lines.length).toBeGreaterThan(specs.length + 1);
    expect(lines).toContainEqual(expect.stringMatching(new RegExp(`^  ${uri} +${specs[0]!.header} +sm_80 corrupt$`)));
  });

  it('narrows by name and to the cache', async () => {
    addDamagedModule('sm_90a', 'single_decode_f16_0123456789abcdef', 1);
    addDamagedModule('sm_90a', 'fill_f32_0123456789abcdef', 1);
    const uris = async (...args: string[]): Promise<string[]> =>
      JSON.parse(await run('list-modules', ...args, '--json')).map((row: Module) => row.uri);
    expect(await uris('packbits', '--arch', '9.0')).toHaveLength(4);
    expect(await uris('decode', '--cached')).toEqual(['single_decode_f16_0123456789abcdef']);
    expect(await run('list-modules', '--cached')).toMatch(/\n2 modules: 2 in the cache$/);
    expect(await run('list-modules', 'packbits', '--cached')).toBe('0 modules: 0 in the cache');
  });

  it('shows the details of one, by its name with or without the hash', async () => {
    // Part of the names of others, too.
    const [whole] = JSON.parse(await run('list-modules', 'packbits_big', '--json')) as Module[];
    expect(whole).toMatchObject({ entry: 'flashinfer::pack_bits<flashinfer::PackBitsConfig<true, false>>' });
    addDamagedModule('sm_90a', whole!.uri, 1536);
    const details = await run('list-modules', 'packbits_big');
    expect(await run('list-modules', whole!.uri)).toBe(details);
    expect(details.split('\n')[0]).toBe(whole!.uri);
    expect(details).toMatch(/^ {2}header +flashinfer\/pack_bits\.cuh$/m);
    expect(details).toMatch(/^ {2}models launch it on +sm_75 .* sm_121a$/m);
    expect(details).toMatch(/^ {2}sm_90a +corrupt, 1\.5 KiB, .*packbits_big_\w+_cu130$/m);
  });

  it('refuses a name that no module has', async () => {
    await expectRejects(run('list-modules', 'rope9'), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'no module has rope9');
  });
});

describe('module-status', () => {
  it('shows what the filter lets through, and counts all', async () => {
    const { length } = aotKernels({ arch: '8.0' });
    const counts = `${length} modules: 0 compiled, ${length} not compiled`;
    const status = (...args: string[]) => run('module-status', '--arch', '8.0', '--detailed', ...args);
    expect(await status('--filter', 'compiled')).toBe(counts);
    expect(JSON.parse(await status('--filter', 'compiled', '--json'))).toEqual([]);
    const lines = (await status('--filter', 'not-compiled')).split('\n');
    expect([lines.length, lines.at(-1)]).toEqual([length + 1, counts]);
    expect(lines[0]).toMatch(/^ {2}sm_80 +\w+ +not compiled$/);
  });
});

describe('clear-cache', () => {
  it('deletes the modules of this version and nothing else', async () => {
    addDamagedModule('sm_90a', 'fill_f32_0123456789abcdef', 2048);
    const other = join(base, 'flashinfer', '0.0.1-other', 'sm_90a');
    mkdirSync(other, { recursive: true });
    const installed = join(cache, 'jit-cache/cu130');
    mkdirSync(installed, { recursive: true });
    expect(showConfig().cache).toEqual({ path: cache, bytes: 2048, count: 1, writable: true });

    expect(await run('clear-cache')).toBe(`Deleted 1 module, 2.0 KiB, in ${cache}`);
    expect(existsSync(join(cache, 'sm_90a'))).toBe(false);
    expect(existsSync(installed)).toBe(true);
    expect(existsSync(other)).toBe(true);
    expect(await run('clear-cache')).toBe(`Deleted 0 modules, 0 bytes, in ${cache}`);
  });

  it('deletes libraries of the cpu device too, and what an interrupted installation left; says so as JSON', async () => {
    addDamagedModule('cpu_linux_x64_avx2', 'variant_mine_0123456789abcdef', 10);
    const left = join(cache, '.tmp', 'jit-cache-1');
    mkdirSync(left, { recursive: true });
    writeFileSync(join(left, 'part'), Buffer.alloc(90));
    expect(JSON.parse(await run('clear-cache', '--json'))).toEqual({ path: cache, modules: 1, bytes: 100 });
    expect(readdirSync(cache)).toEqual([]);
  });

  it('has nothing to delete where a file is in the way of the cache', async () => {
    writeFileSync(join(base, 'flashinfer'), '');
    expect(await run('clear-cache')).toMatch(/^Deleted 0 modules, /);
    expect(await run('clear-cubin')).toMatch(/^Deleted 0 cubins, /);
  });
});
