// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { addonCandidates, native, toFlashInferError } from '../../src/native/load.ts';
import { packageRoot } from '../../src/packageRoot.ts';

const folder = mkdtempSync(join(tmpdir(), 'flashinfer-lock-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A process that takes the lock, says so, and then waits to be killed. */
async function holder(path: string): Promise<ChildProcess> {
  const source = `
    const { host } = require(${JSON.stringify(addonCandidates(packageRoot())[0])});
    console.log(host.tryLockFile(${JSON.stringify(path)}) >= 0 ? 'locked' : 'refused');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(child.stdout as NonNullable<typeof child.stdout>, 'data');
  expect(String(line).trim()).toBe('locked');
  return child;
}

describe('file lock', () => {
  const { host } = native();

  it('excludes a second holder in this process until it is given back', () => {
    const path = join(folder, 'same-process.lock');
    const first = host.tryLockFile(path);
    expect(first).toBeGreaterThanOrEqual(0);
    expect(existsSync(path)).toBe(true);
    expect(host.tryLockFile(path)).toBe(-1);
    host.unlockFile(first);
    const second = host.tryLockFile(path);
    expect(second).toBeGreaterThanOrEqual(0);
    host.unlockFile(second);
    expect(() => host.unlockFile(second)).toThrow(/not a lock/);
  });

  it('excludes another process, and is dropped when that is killed', async () => {
    const path = join(folder, 'killed.lock');
    const child = await holder(path);
    expect(host.tryLockFile(path)).toBe(-1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const handle = host.tryLockFile(path);
    expect(handle).toBeGreaterThanOrEqual(0);
    host.unlockFile(handle);
  });

  it('takes paths of any length, with spaces and letters of every language', () => {
    const long = join(folder, 'a folder', 'ä'.repeat(60), '\u65e5'.repeat(60), 'x'.repeat(200));
    mkdirSync(long, { recursive: true });
    const path = join(long, 'long.lock');
    const handle = host.tryLockFile(path);
    expect(handle).toBeGreaterThanOrEqual(0);
    expect(existsSync(path)).toBe(true);
    expect(host.tryLockFile(path)).toBe(-1);
    host.unlockFile(handle);
  });

  it('says which file and why when it cannot be created', () => {
    const path = join(folder, 'missing', 'x.lock');
    try {
      host.tryLockFile(path);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: 'IO',
        message: expect.stringContaining(path),
      });
      const mapped = toFlashInferError(error, 'getKernel');
      expect(mapped.code).toBe('ERR_FLASHINFER_CACHE_UNWRITABLE');
      expect(mapped.message).toMatch(/No such file|cannot find the path|Path not found/);
    }
  });
});
