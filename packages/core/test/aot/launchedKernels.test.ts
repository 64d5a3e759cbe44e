// SPDX-License-Identifier: Apache-2.0
// Every exported operator has an example. Here they run on the fake driver, with a compiler that compiles nothing, and
// the template of each kernel they ask for must be in the list of kernels that are compiled ahead of time.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { aotKernels } from '../../src/aotKernels.ts';
import type { EntryManifest } from '../../src/jit/entry.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { onCuda } from '../device.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';
import { fakeToolkit } from '../native/fakeCuda/fakeToolkit.ts';

const fake = new FakeCuda();
afterAll(() => fake.dispose());

/** Compute capability, opt-in shared memory and multiprocessors of an H200 (numbers of CUdevice_attribute). */
const attributes = ' 75=9 76=0 97=232448 81=233472 16=132';

/** Runs a test file on the fake driver and returns the modules that were compiled. */
function modulesLaunchedBy(testFile: string): { modules: EntryManifest[]; failures: string[]; output: string } {
  const folder = temporaryFolder();
  const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  const child = spawnSync(process.execPath, [vitest, 'run', '--reporter=json', testFile], {
    cwd: packageRoot(),
    env: {
      ...process.env,
      LD_LIBRARY_PATH: fake.library('old'),
      FAKE_CUDA_ATTRIBUTES: attributes,
      FLASHINFER_TEST_DEVICE: 'cuda:0',
      FLASHINFER_WORKSPACE_BASE: folder,
      FLASHINFER_DISABLE_JIT: '',
      CUDA_HOME: fakeToolkit(join(folder, 'toolkit'), 90),
    },
    encoding: 'utf8',
    timeout: 110_000,
  });
  const cache = join(folder, 'flashinfer');
  const manifests = readdirSync(cache, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /spec\.json$/.test(path),
  );
  const modules = manifests.map((path): EntryManifest => JSON.parse(readFileSync(join(cache, path), 'utf8')));
  const report = JSON.parse(child.stdout.slice(child.stdout.indexOf('{')));
  const tests: { status: string; fullName: string; failureMessages: string[] }[] = report.testResults.flatMap(
    (file: { assertionResults: unknown[] }) => file.assertionResults,
  );
  const failures = tests
    .filter(({ status }) => status === 'failed')
    .map(({ fullName, failureMessages }) => [fullName, ...failureMessages].join('\n'));
  return { modules, failures, output: child.stderr };
}

/** `flashinfer::norm` of `flashinfer::norm<...>`. */
const template = (entry: string): string => entry.replace(/<.*/s, '');

// Where there is a GPU there may be NVRTC, which compiles for real and comes before the fake nvcc.
describe.runIf(process.platform === 'linux' && !onCuda)('every kernel that an exported operator launches', () => {
  it('has a template in the list of kernels compiled ahead of time', () => {
    const { modules, failures, output } = modulesLaunchedBy('test/docExamples.test.ts');
    expect(failures, output).toEqual([]);
    const listed = new Set(aotKernels({ arch: '9.0a' }).map(({ entry }) => template(entry)));
    const launched = [...new Set(modules.map(({ entry }) => template(entry)))];
    expect(launched.length, output).toBeGreaterThan(8);
    expect(
      launched.filter((entry) => !listed.has(entry)),
      'add these to src/kernelFamilies.ts',
    ).toEqual([]);
  });
});
