// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { build } from 'tsdown';
import { afterAll, describe, expect, it } from 'vitest';
import { BinaryNotFoundError } from '../../src/errors.ts';
import { addonCandidates, loadAddon, native } from '../../src/native/load.ts';
import { addonFix, currentPlatform, platformPackageName } from '../../src/native/platformPackage.ts';
import { packageRoot, packageVersion } from '../../src/packageRoot.ts';

const folder = mkdtempSync(join(tmpdir(), 'flashinfer-load-'));
afterAll(() => {
  // Windows does not delete libraries that are loaded.
  if (process.platform !== 'win32') rmSync(folder, { recursive: true });
});

function loadError(root: string, version: string): BinaryNotFoundError {
  try {
    loadAddon(root, version);
  } catch (error) {
    expect(error).toBeInstanceOf(BinaryNotFoundError);
    return error as BinaryNotFoundError;
  }
  throw new Error('expected loadAddon to throw');
}

/** Runs `body` in a worker with the addon as `addon`; `message` is what it posts. */
function inWorker(body: string): { worker: Worker; message: Promise<unknown>; exit: Promise<unknown> } {
  const source = `
    const { parentPort } = require('node:worker_threads');
    const addon = require(${JSON.stringify(builtAddon())});
    ${body}`;
  const worker = new Worker(source, { eval: true });
  const message = new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  // Both may come at once: a listener that waits for the message before it waits for the end can miss the end.
  const exit = new Promise((resolve) => worker.once('exit', resolve));
  return { worker, message, exit };
}

function builtAddon(): string {
  return addonCandidates(packageRoot())[0] as string;
}

/** As npm would install it below `root`; returns its addon, a copy of ours. */
function installPlatformPackage(root: string, version: string): string {
  const name = platformPackageName();
  const installed = join(root, 'node_modules', name);
  mkdirSync(installed, { recursive: true });
  writeFileSync(join(installed, 'package.json'), JSON.stringify({ name, version }));
  copyFileSync(builtAddon(), join(installed, 'flashinfer.node'));
  return join(installed, 'flashinfer.node');
}

describe('loading the addon', () => {
  it('finds the package and an addon of the same version', () => {
    expect(JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).name).toBe('@flashinfer/core');
    expect(native().version).toBe(packageVersion());
    expect(native()).toBe(native());
    expect(Object.keys(native()).sort()).toEqual(['cpu', 'cuda', 'host', 'nvrtc', 'version']);
  });

  it('names every place tried, the package and how to build when there is none', () => {
    const error = loadError(folder, packageVersion());
    expect(error.code).toBe('ERR_FLASHINFER_ADDON_NOT_FOUND');
    expect(addonCandidates(folder)).toHaveLength(1);
    expect(error.message).toContain(`${addonCandidates(folder)[0]} (no such file)`);
    expect(error.message).toContain(`${platformPackageName()} (not installed)`);
    expect(error.message).toContain('npx flashinfer build-addon');
  });

  it('reports a file that is no addon, and goes on to the package of the platform', () => {
    const [local] = addonCandidates(folder) as [string];
    mkdirSync(join(local, '..'), { recursive: true });
    writeFileSync(local, 'not an ELF file');
    const error = loadError(folder, packageVersion());
    expect(error.message).not.toContain(`${local} (no such file)`);
    expect(error.message).toContain(local);
    expect(error.cause).toBeInstanceOf(Error);
    const shipped = installPlatformPackage(folder, packageVersion());
    expect(addonCandidates(folder)).toEqual([local, realpathSync(shipped)]);
    expect(loadAddon(folder, packageVersion()).version).toBe(packageVersion());
  });

  it('refuses a platform package of another version by name, before it is opened', () => {
    const root = mkdtempSync(join(folder, 'mismatch-'));
    writeFileSync(installPlatformPackage(root, '1.2.3'), 'not an ELF file');
    const error = loadError(root, '1.2.4');
    expect(error.code).toBe('ERR_FLASHINFER_BINARY_MISMATCH');
    expect(error.message).toContain(`native: ${platformPackageName()} (`);
    expect(error.message).toContain('is version 1.2.3; expected 1.2.4 as @flashinfer/core');
    expect(error.message).toContain(`npm install ${platformPackageName()}@1.2.4`);
  });

  it('refuses a platform package whose addon is of another version than it says', () => {
    const root = mkdtempSync(join(folder, 'repacked-'));
    installPlatformPackage(root, '1.2.3');
    const error = loadError(root, '1.2.3');
    expect(error.code).toBe('ERR_FLASHINFER_BINARY_MISMATCH');
    expect(error.message).toContain(`is version ${packageVersion()}; expected 1.2.3`);
  });

  it('refuses an addon of another version', () => {
    const error = loadError(packageRoot(), '99.1.2');
    expect(error.code).toBe('ERR_FLASHINFER_BINARY_MISMATCH');
    expect(error.message).toContain('99.1.2');
    expect(error.message).toContain(packageVersion());
  });
});

describe('what to do without an addon', () => {
  const glibc = { platform: 'linux', arch: 'x64', libc: 'glibc' } as const;
  const root = mkdtempSync(join(folder, 'released-'));
  const optionalDependencies = { '@flashinfer/core-linux-x64': '1.2.3', '@flashinfer/core-win32-x64': '1.2.3' };
  writeFileSync(join(root, 'package.json'), JSON.stringify({ optionalDependencies }));

  it('is to install the package of the platform', () => {
    const fix = addonFix(root, '1.2.3', glibc);
    expect(fix).toContain('npm install @flashinfer/core-linux-x64@1.2.3');
    expect(fix).toContain('npx flashinfer build-addon');
    expect(addonFix(root, '1.2.3', { platform: 'win32', arch: 'x64' })).toContain(
      'npm install @flashinfer/core-win32-x64',
    );
  });

  it.each([
    [{ platform: 'freebsd', arch: 'x64' }, 'freebsd-x64'],
    [{ platform: 'linux', arch: 'riscv64', libc: 'glibc' }, 'linux-riscv64'],
    [{ ...glibc, libc: 'musl' }, 'linux-x64 with musl'],
  ] as const)('is to build it on %j, which has none', (where, name) => {
    const fix = addonFix(root, '1.2.3', where);
    expect(fix).toContain(`none is published for ${name}, only @flashinfer/core-linux-x64, @flashinfer/core-win32-x64`);
    expect(fix).toContain('npx flashinfer build-addon');
    expect(fix).not.toContain('npm install');
  });

  it('is to build it in a checkout', () => {
    expect(addonFix(packageRoot(), packageVersion(), glibc)).toMatch(/^build it .*checkout/);
  });

  it.runIf(process.platform === 'linux')('tells glibc from musl', () => {
    expect(currentPlatform()).toEqual({
      platform: 'linux',
      arch: process.arch,
      libc: existsSync('/etc/alpine-release') ? 'musl' : 'glibc',
    });
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
    const script = `import(${JSON.stringify(pathToFileURL(file))}).then((m) => console.log(m.native().version))`;
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
      const { worker, message, exit } = inWorker(`
        const block = addon.host.alloc(${bytes});
        addon.host.fill(block, 1, ${bytes});
        parentPort.postMessage('ready');
        ${round % 2 ? 'for (;;) addon.host.fill(block, 2, 4096);' : ''}`);
      expect(await message).toBe('ready');
      if (round % 2) await worker.terminate();
      else await exit;
    }
    expect(process.memoryUsage().rss - rss).toBeLessThan(8 * bytes);
  });
});
