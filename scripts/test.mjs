// SPDX-License-Identifier: Apache-2.0
// Installs, builds and runs the tests of every package; ends with the counts over all of them.
// Arguments go to vitest: `npm test -- -t causal`.
import { pnpm, tryPnpm } from './pnpm.mjs';
import { clearResults, printSummary, reporterOptions } from './test-summary.mjs';

clearResults();
pnpm('install', '--frozen-lockfile');
// A failing package does not hide the results of the others.
const turbo = ['exec', 'turbo', 'run', 'test', '--output-logs=new-only', '--continue=dependencies-successful'];
process.exitCode = tryPnpm(...turbo, '--', ...reporterOptions, ...process.argv.slice(2));
printSummary();
