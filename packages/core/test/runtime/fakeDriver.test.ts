// SPDX-License-Identifier: Apache-2.0
// Runs tests against the fake driver, whose streams do their work as late as they may: those of the CUDA runtime, and of
// what attention refuses to have captured.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/packageRoot.ts';
import { onCuda } from '../device.ts';
import { temporaryFolder } from '../jit/fixture.ts';
import { FakeCuda, type FakeVariant } from '../native/fakeCuda/fakeCuda.ts';
import { fakeToolkit } from '../native/fakeCuda/fakeToolkit.ts';

interface Report {
  testResults: { assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[];
}

const fake = new FakeCuda();
afterAll(() => fake.dispose());

/** All tests of a file whose names match must pass; none may be skipped for want of a GPU. */
function expectPasses(
  variant: FakeVariant,
  file: string,
  name: string,
  atLeast: number,
  env: Record<string, string> = {},
): void {
  const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  const child = spawnSync(process.execPath, [vitest, 'run', '--reporter=json', file, '-t', name], {
    cwd: packageRoot(),
    env: { ...process.env, LD_LIBRARY_PATH: fake.library(variant), FLASHINFER_TEST_DEVICE: 'cuda', ...env },
    encoding: 'utf8',
    timeout: 120_000,
  });
  const report = JSON.parse(child.stdout.slice(child.stdout.indexOf('{'))) as Report;
  const tests = report.testResults
    .flatMap((each) => each.assertionResults)
    .filter(({ fullName }) => new RegExp(name).test(fullName));
  const failed = tests.filter(({ status }) => status !== 'passed');
  expect(failed.map((test) => [test.fullName, ...test.failureMessages])).toEqual([]);
  expect(tests.length, child.stderr).toBeGreaterThanOrEqual(atLeast);
}

describe.runIf(process.platform === 'linux')('without a GPU', () => {
  it('the CUDA runtime passes its tests', () => expectPasses('full', 'test/runtime/cuda.test.ts', '', 25));

  // Where there is a GPU there may be NVRTC, which compiles for real and comes before the fake nvcc.
  it.skipIf(onCuda)('captures of attention are refused', () => {
    const folder = temporaryFolder();
    expectPasses('old', 'test/attention/batchGraphs.test.ts', '^a capture of', 6, {
      FLASHINFER_WORKSPACE_BASE: folder,
      FLASHINFER_DISABLE_JIT: '',
      // Kernels that no package holds, where this checkout has built some.
      FLASHINFER_JIT_LINEINFO: '1',
      CUDA_HOME: fakeToolkit(join(folder, 'toolkit'), 90),
      // An H200's compute capability, shared memory and multiprocessors (numbers of CUdevice_attribute).
      FAKE_CUDA_ATTRIBUTES: ' 75=9 76=0 97=232448 81=233472 16=132',
    });
  });
});
