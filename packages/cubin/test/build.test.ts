// SPDX-License-Identifier: Apache-2.0
// Builds four small kernels as a release builds all: twice, from different folders, with the same bytes.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../../scripts/build-kernels.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'flashinfer-cubin-'));
afterAll(() => rmSync(folder, { recursive: true }));
const hasNvcc = spawnSync('nvcc', ['--version']).status === 0;
if (!hasNvcc) console.warn('the build of kernels is not tested: no nvcc on PATH');

/** Returns what the script says. */
function build(name: string, archs = '8.0 9.0a'): string {
  return execFileSync(process.execPath, [script, 'cubin', '--filter', 'packbits', '--output', join(folder, name)], {
    env: { ...process.env, FLASHINFER_CUDA_ARCH_LIST: archs, MAX_JOBS: '2' },
    encoding: 'utf8',
  });
}

const files = (name: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(join(folder, name), { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.(br|json)$/.test(path))
      .sort()
      .map((path) => [path, readFileSync(join(folder, name, path)).toString('base64')]),
  );

describe.skipIf(!hasNvcc)('build:cubin', { timeout: 120_000 }, () => {
  it('gives the same bytes again, and compiles nothing twice', () => {
    const said = build('first');
    expect(said).toMatch(/^sm_80: 4 kernels, 4 of them compiled, .*\nsm_90a: 4 kernels, 4 of them compiled, /);
    build('second');
    expect(Object.keys(files('first'))).toHaveLength(10);
    expect(files('second')).toEqual(files('first'));
    expect(build('first')).toMatch(
      /^sm_80: 4 kernels, 0 of them compiled, .*\nsm_90a: 4 kernels, 0 of them compiled, /,
    );
    expect(files('first')).toEqual(files('second'));
  });
});
