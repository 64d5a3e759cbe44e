// SPDX-License-Identifier: Apache-2.0
// Test files run in a process of their own, whose environment decides the device, and what failed in them.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** The program, to be given `run --reporter=json <file>`. */
export const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');

interface Assertion {
  readonly status: string;
  readonly fullName: string;
  readonly failureMessages: readonly string[];
}

/** What failed, by vitest's report. */
export function failuresIn(output: string): string[] {
  return assertionsIn(output)
    .filter(({ status }) => status === 'failed')
    .map(({ fullName, failureMessages }) => [fullName, ...failureMessages].join('\n'));
}

/** How many tests passed. */
export function passedIn(output: string): number {
  return assertionsIn(output).filter(({ status }) => status === 'passed').length;
}

function assertionsIn(output: string): Assertion[] {
  const report = JSON.parse(output.slice(output.indexOf('{')));
  return report.testResults.flatMap((file: { assertionResults: Assertion[] }) => file.assertionResults);
}
