// SPDX-License-Identifier: Apache-2.0
// Builds four small kernels, packs them, and installs the tarball with npm and with the command.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'flashinfer-jit-cache-'));
afterAll(() => rmSync(folder, { recursive: true }));
const hasNvcc = spawnSync('nvcc', ['--version']).status === 0;
if (!hasNvcc) console.warn('packing is not tested: no nvcc on PATH');

const node = (script: string, ...args: string[]): string =>
  execFileSync(process.execPath, [join(root, script), ...args], {
    env: { ...process.env, FLASHINFER_CUDA_ARCH_LIST: '9.0a', FLASHINFER_WORKSPACE_BASE: join(folder, 'home') },
    encoding: 'utf8',
  });

describe.skipIf(!hasNvcc)('the tarball', { timeout: 120_000 }, () => {
  it('has the same bytes again, and installs with npm and without', () => {
    const kernels = join(folder, 'kernels');
    node('scripts/build-kernels.mjs', 'jit-cache', '--filter', 'packbits', '--output', kernels);
    const pack = (output: string): string => {
      node(
        'scripts/pack-kernels.mjs',
        'jit-cache',
        '--input',
        kernels,
        '--cuda',
        'cu130',
        '--output',
        join(folder, output),
      );
      return join(folder, output, readdirSync(join(folder, output))[0]!);
    };
    const tarball = pack('first');
    expect(tarball).toMatch(/flashinfer-jit-cache-.*\+cu130\.tgz$/);
    expect(readFileSync(pack('second')).equals(readFileSync(tarball))).toBe(true);

    const project = join(folder, 'project');
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{"name":"consumer","version":"1.0.0","type":"module"}');
    const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
    execFileSync(npm, ['install', '--offline', '--no-audit', '--loglevel=error', tarball], { cwd: project });
    const script =
      "import { getJitCacheDir, version } from '@flashinfer/jit-cache'; console.log(getJitCacheDir(), version);";
    writeFileSync(join(project, 'main.js'), script);
    const [path, version] = execFileSync(process.execPath, ['main.js'], { cwd: project, encoding: 'utf8' })
      .trim()
      .split(' ');
    expect(version).toMatch(/\+cu130$/);
    expect(existsSync(join(path!, 'cu130/sm_90a/manifest.json'))).toBe(true);

    const installed = JSON.parse(node('packages/core/bin/flashinfer.js', 'install-jit-cache', tarball, '--json'));
    expect(installed).toMatchObject({ releases: ['cu130'], targets: ['sm_90a'], modules: 4 });
    expect(readdirSync(join(installed.path, 'cu130/sm_90a'))).toHaveLength(5);
  });
});
