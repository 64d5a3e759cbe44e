// SPDX-License-Identifier: Apache-2.0
// Versions of nightly builds, and setting one in a copy of the repository.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const copy = join(mkdtempSync(join(tmpdir(), 'flashinfer-nightly-')), 'repository');
afterAll(() => rmSync(join(copy, '..'), { recursive: true }));

function nightly(repository: string, ...args: string[]): string {
  const script = join(repository, 'scripts/nightly-version.mjs');
  return execFileSync(process.execPath, [script, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim();
}

const manifest = (folder: string, name: string) =>
  JSON.parse(readFileSync(join(folder, 'packages', name, 'package.json'), 'utf8'));

describe('the version of a nightly build', () => {
  it.each([
    ['1a2b3c4d5e6f', 'nightly.20261121.1a2b3c4'],
    ['1234567890ab', 'nightly.20261121.1234567'],
    // Semver has no number that starts with 0.
    ['0123456789ab', 'nightly.20261121.0123456789a'],
    ['0a23456789ab', 'nightly.20261121.0a23456'],
  ])('of commit %s ends with %s', (commit, expected) => {
    expect(nightly(root, '--print', '--date', '2026-11-21', '--commit', commit)).toBe(expected);
  });

  it.each([
    [['--date', 'today'], /expected YYYY-MM-DD/],
    [['--commit', 'main'], /expected a commit/],
  ])('is refused for %j', (args, message) => {
    expect(() => nightly(root, '--print', ...args)).toThrow(message);
  });

  it('follows from the changesets and is that of every published package', () => {
    execFileSync('git', ['clone', '--quiet', root, copy]);
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    cpSync(join(root, 'scripts'), join(copy, 'scripts'), { recursive: true });
    const changesets = join(copy, '.changeset');
    for (const file of readdirSync(changesets)) if (file.endsWith('.md')) rmSync(join(changesets, file));
    cpSync(join(root, '.changeset/config.json'), join(changesets, 'config.json'));
    expect(() => nightly(copy)).toThrow(/no changesets since the last release/);

    writeFileSync(join(changesets, 'one.md'), "---\n'@flashinfer/core': minor\n---\n\nSomething new.\n");
    const [major, minor] = manifest(root, 'core').version.split('.').map(Number);
    const expected = `${major}.${minor + 1}.0-nightly.20261121.1a2b3c4`;
    nightly(copy, '--date', '2026-11-21', '--commit', '1a2b3c4d5e6f');
    for (const name of ['core', 'cubin', 'jit-cache']) expect(manifest(copy, name).version).toBe(expected);
    expect(readFileSync(join(copy, 'packages/core/CHANGELOG.md'), 'utf8')).toContain('Something new.');
  });
});
