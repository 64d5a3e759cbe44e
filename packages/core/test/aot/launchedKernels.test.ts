// SPDX-License-Identifier: Apache-2.0
// Every exported operator has an example. Here they run on the fake driver, with a compiler that compiles nothing, and
// the template of each kernel they ask for must be in the list of kernels that are compiled ahead of time.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { aotKernels } from '../../src/aotKernels.ts';
import type { EntryManifest } from '../../src/jit/entry.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { onCuda } from '../device.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';
import { fakeToolkit } from '../native/fakeCuda/fakeToolkit.ts';
import { failuresIn, vitest } from './vitestReport.ts';

const fake = new FakeCuda();
afterAll(() => fake.dispose());

/** Compute capability, opt-in shared memory and multiprocessors of an H200 (numbers of CUdevice_attribute). */
const attributes = ' 75=9 76=0 97=232448 81=233472 16=132';

/** Runs Node.js on the fake driver of an H200, and returns the modules that were compiled. */
function modulesLaunchedBy(
  args: string[],
  env: Record<string, string> = {},
): { modules: EntryManifest[]; output: string; errors: string } {
  const folder = temporaryFolder();
  const child = spawnSync(process.execPath, args, {
    cwd: packageRoot(),
    env: {
      ...process.env,
      LD_LIBRARY_PATH: fake.library('old'),
      FAKE_CUDA_ATTRIBUTES: attributes,
      FLASHINFER_TEST_DEVICE: 'cuda:0',
      FLASHINFER_WORKSPACE_BASE: folder,
      FLASHINFER_DISABLE_JIT: '',
      // Kernels that no package holds, where this checkout has built some.
      FLASHINFER_JIT_LINEINFO: '1',
      CUDA_HOME: fakeToolkit(join(folder, 'toolkit'), 90),
      ...env,
    },
    encoding: 'utf8',
    timeout: 110_000,
  });
  const cache = join(folder, 'flashinfer');
  const manifests = readdirSync(cache, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /spec\.json$/.test(path),
  );
  const modules = manifests.map((path): EntryManifest => JSON.parse(readFileSync(join(cache, path), 'utf8')));
  return { modules, output: child.stdout, errors: child.stderr };
}

/** `flashinfer::norm` of `flashinfer::norm<...>`. */
const template = (entry: string): string => entry.replace(/<.*/s, '');

// Where there is a GPU there may be NVRTC, which compiles for real and comes before the fake nvcc.
describe.runIf(process.platform === 'linux' && !onCuda)('every kernel that an exported operator launches', () => {
  it('has a template in the list of kernels compiled ahead of time', () => {
    const { modules, output, errors } = modulesLaunchedBy([
      vitest,
      'run',
      '--reporter=json',
      'test/docExamples.test.ts',
    ]);
    expect(failuresIn(output), errors).toEqual([]);
    const listed = new Set(aotKernels({ arch: '9.0a' }).map(({ entry }) => template(entry)));
    const launched = [...new Set(modules.map(({ entry }) => template(entry)))];
    expect(launched.length, errors).toBeGreaterThan(8);
    expect(
      launched.filter((entry) => !listed.has(entry)),
      'add these to src/kernelFamilies.ts',
    ).toEqual([]);
  });

  // Their results are wrong on a driver that computes nothing; all of the quickstart's calls and a step of the other run.
  it.each([
    ['quickstart.mjs', 4],
    ['continuousBatching.mjs', 2],
  ])('is compiled ahead of time where examples/%s needs it', (example, atLeast) => {
    const program = join(packageRoot(), '../../examples', example);
    const { modules, output, errors } = modulesLaunchedBy([program, '1'], { FAKE_CUDA_MEMORY: '512' });
    expect(output).toContain('device cuda:0');
    const listed = new Set(aotKernels({ arch: '9.0a' }).map(({ name }) => name));
    const launched = modules.map(({ uri }) => uri.replace(/_[0-9a-f]{16}$/, ''));
    expect(launched.length, errors).toBeGreaterThanOrEqual(atLeast);
    expect(launched.filter((name) => !listed.has(name))).toEqual([]);
  });
});
