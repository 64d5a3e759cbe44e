// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Renaming, renameWhenFree } from '../../src/jit/renameWhenFree.ts';
import { temporaryFolder } from './fixture.ts';

/** A system on which the first `failures` renames fail with `code`. */
function failing(platform: string, code: string, failures: number): Renaming & { calls: number } {
  const system = {
    platform,
    calls: 0,
    rename: (from: string, to: string) => {
      const rename = () => {
        system.calls++;
        if (system.calls <= failures) throw Object.assign(new Error(`${code}: rename`), { code });
        renameSync(from, to);
      };
      return { sync: rename, async: async () => rename() };
    },
  };
  return system;
}

function files(): { from: string; to: string } {
  const folder = temporaryFolder();
  const [from, to] = [join(folder, 'new'), join(folder, 'old')];
  writeFileSync(from, 'new');
  writeFileSync(to, 'old');
  return { from, to };
}

describe('renameWhenFree', () => {
  it('replaces a file and refuses to replace a folder that is not empty', async () => {
    const { from, to } = files();
    renameWhenFree(from, to).sync();
    expect(readFileSync(to, 'utf8')).toBe('new');
    const folders = ['a', 'b'].map((name) => join(temporaryFolder(), name)) as [string, string];
    for (const folder of folders) {
      mkdirSync(folder);
      writeFileSync(join(folder, 'file'), '');
    }
    await expect(renameWhenFree(...folders).async(undefined)).rejects.toMatchObject({
      code: expect.stringMatching(/^(ENOTEMPTY|EEXIST)$/),
    });
  });

  it.each(['EPERM', 'EACCES', 'EBUSY'])('tries again on Windows where a file is held: %s', async (code) => {
    const [sync, async] = [failing('win32', code, 3), failing('win32', code, 3)];
    const [one, two] = [files(), files()];
    renameWhenFree(one.from, one.to, sync).sync();
    await renameWhenFree(two.from, two.to, async).async(undefined);
    expect([sync.calls, async.calls]).toEqual([4, 4]);
    for (const { from, to } of [one, two]) {
      expect(readFileSync(to, 'utf8')).toBe('new');
      expect(existsSync(from)).toBe(false);
    }
  });

  it('gives up on Windows after some seconds', () => {
    const { from, to } = files();
    const held = failing('win32', 'EPERM', 1000);
    expect(() => renameWhenFree(from, to, held).sync()).toThrow('EPERM: rename');
    expect(held.calls).toBeGreaterThan(5);
    expect(readFileSync(to, 'utf8')).toBe('old');
  });

  it('calls a folder in the way what POSIX calls it, at once', () => {
    const { from } = files();
    const held = failing('win32', 'EPERM', 1000);
    expect(() => renameWhenFree(from, temporaryFolder(), held).sync()).toThrow(
      expect.objectContaining({ code: 'ENOTEMPTY' }),
    );
    expect(held.calls).toBe(1);
  });

  it.each([
    ['linux', 'EPERM'],
    ['win32', 'ENOENT'],
    ['win32', 'ENOSPC'],
  ])('fails at once on %s with %s', (platform, code) => {
    const { from, to } = files();
    const broken = failing(platform, code, 1000);
    expect(() => renameWhenFree(from, to, broken).sync()).toThrow(code);
    expect(broken.calls).toBe(1);
  });

  it('ends its waiting when aborted', async () => {
    const { from, to } = files();
    const controller = new AbortController();
    const renamed = renameWhenFree(from, to, failing('win32', 'EBUSY', 1000)).async(controller.signal);
    controller.abort();
    await expect(renamed).rejects.toMatchObject({ name: 'AbortError' });
  });
});
