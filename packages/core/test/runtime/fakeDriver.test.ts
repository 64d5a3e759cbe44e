// SPDX-License-Identifier: Apache-2.0
// Runs the tests of the CUDA runtime against the fake driver, whose streams do their work as late as they may.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/packageRoot.ts';
import { FakeCuda } from '../native/fakeCuda/fakeCuda.ts';

interface Report {
  numPassedTests: number;
  testResults: { assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[];
}

const fake = new FakeCuda();
afterAll(() => fake.dispose());

describe.runIf(process.platform === 'linux')('the CUDA runtime without a GPU', () => {
  it('passes its tests against the fake driver', () => {
    const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
    const child = spawnSync(process.execPath, [vitest, 'run', '--reporter=json', 'test/runtime/cuda.test.ts'], {
      cwd: packageRoot(),
      env: { ...process.env, LD_LIBRARY_PATH: fake.library('full'), FLASHINFER_TEST_DEVICE: 'cuda' },
      encoding: 'utf8',
      timeout: 120_000,
    });
    const report = JSON.parse(child.stdout.slice(child.stdout.indexOf('{'))) as Report;
    const failed = report.testResults
      .flatMap((file) => file.assertionResults)
      .filter((test) => test.status !== 'passed');
    expect(failed.map((test) => [test.fullName, ...test.failureMessages])).toEqual([]);
    expect(report.numPassedTests, child.stderr).toBeGreaterThan(15);
  });
});
