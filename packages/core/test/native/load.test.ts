// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { build } from 'tsdown';
import { afterAll, describe, expect, it } from 'vitest';
import { BinaryNotFoundError } from '../../src/errors.ts';
import { addonCandidates, loadAddon, native } from '../../src/native/load.ts';
import { packageRoot, packageVersion } from '../../src/packageRoot.ts';

const folder = mkdtempSync(join(tmpdir(), 'flashinfer-load-'));
afterAll(() => rmSync(folder, { recursive: true }));

function loadError(root: string, version: string): BinaryNotFoundError {
  try {
    loadAddon(root, version);
  } catch (error) {
    expect(error).toBeInstanceOf(BinaryNotFoundError);
    return error as BinaryNotFoundError;
  }
  throw new Error('expected loadAddon to throw');
}

/** Runs `body` in a worker with the addon as `addon`; resolves to what it posts. */
function inWorker(body: string): { worker: Worker; message: Promise<unknown> } {
  const source = `
    const { parentPort } = require('node:worker_threads');
    const addon = require(${JSON.stringify(builtAddon())});
    ${body}`;
  const worker = new Worker(source, { eval: true });
  const message = new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  return { worker, message };
}

function builtAddon(): string {
  return addonCandidates(packageRoot())[0] as string;
}

describe('loading the addon', () => {
  it('finds the package and an addon of the same version', () => {
    expect(JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).name).toBe('@flashinfer/core');
    expect(native().version).toBe(packageVersion());
    expect(native()).toBe(native());
    expect(Object.keys(native()).sort()).toEqual(['cpu', 'cuda', 'host', 'nvrtc', 'version']);
  });

  it('names every path tried and how to build when there is none', () => {
    const error = loadError(folder, packageVersion());
    expect(error.code).toBe('ERR_FLASHINFER_ADDON_NOT_FOUND');
    for (const path of addonCandidates(folder)) expect(error.message).toContain(`${path} (no such file)`);
    expect(error.message).toContain('build:addon');
  });

  it('reports a file that is no addon, and goes on to the prebuilt one', () => {
    const [local, prebuilt] = addonCandidates(folder) as [string, string];
    mkdirSync(join(local, '..'), { recursive: true });
    writeFileSync(local, 'not an ELF file');
    const error = loadError(folder, packageVersion());
    expect(error.message).not.toContain(`${local} (no such file)`);
    expect(error.message).toContain(local);
    expect(error.cause).toBeInstanceOf(Error);
    mkdirSync(join(prebuilt, '..'), { recursive: true });
    copyFileSync(builtAddon(), prebuilt);
    expect(loadAddon(folder, packageVersion()).version).toBe(packageVersion());
  });

  it('refuses an addon of another version', () => {
    const error = loadError(packageRoot(), '99.1.2');
    expect(error.code).toBe('ERR_FLASHINFER_BINARY_MISMATCH');
    expect(error.message).toContain('99.1.2');
    expect(error.message).toContain(packageVersion());
  });
});

it.each(['esm', 'cjs'] as const)('loads from a %s bundle', async (format) => {
  // Below the package, as dist/ is.
  const outDir = mkdtempSync(join(packageRoot(), 'build', 'bundle-'));
  try {
    const entry = { load: join(packageRoot(), 'src', 'native', 'load.ts') };
    const options = { config: false, entry, format, outDir, dts: false, platform: 'node', logLevel: 'silent' } as const;
    await build({ ...options, fixedExtension: true });
    const file = join(outDir, format === 'esm' ? 'load.mjs' : 'load.cjs');
    const script = `import(${JSON.stringify(file)}).then((m) => console.log(m.native().version))`;
    expect(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }).trim()).toBe(packageVersion());
  } finally {
    rmSync(outDir, { recursive: true });
  }
});

describe('worker threads', () => {
  it('share no memory accounts with the main thread', async () => {
    const before = native().host.allocatedBytes();
    const { worker, message } = inWorker(`
      const block = addon.host.alloc(1000);
      parentPort.postMessage(addon.host.allocatedBytes());`);
    expect(await message).toBe(1000);
    await worker.terminate();
    expect(native().host.allocatedBytes()).toBe(before);
  });

  it('start and end many times, running out or terminated, without leaking their memory', async () => {
    const bytes = 32 << 20;
    const rss = process.memoryUsage().rss;
    for (let round = 0; round < 24; round++) {
      const { worker, message } = inWorker(`
        const block = addon.host.alloc(${bytes});
        addon.host.fill(block, 1, ${bytes});
        parentPort.postMessage('ready');
        ${round % 2 ? 'for (;;) addon.host.fill(block, 2, 4096);' : ''}`);
      expect(await message).toBe('ready');
      if (round % 2) await worker.terminate();
      else await new Promise((resolve) => worker.once('exit', resolve));
    }
    expect(process.memoryUsage().rss - rss).toBeLessThan(8 * bytes);
  });
});
