// SPDX-License-Identifier: Apache-2.0
// Installs, builds and runs the tests of every package; ends with the counts over all of them.
// Arguments go to vitest: `npm test -- -t causal`.

import { pnpm } from './pnpm.mjs';
import { clearResults, printSummary, reporterOptions } from './test-summary.mjs';

clearResults();
pnpm('install', '--frozen-lockfile');
pnpm('exec', 'turbo', 'run', 'test', '--output-logs=new-only', '--', ...reporterOptions, ...process.argv.slice(2));
printSummary();
