// SPDX-License-Identifier: Apache-2.0
// Installs, builds and runs the tests of every package; ends with the counts over all of them.
// Arguments go to vitest: `npm test -- -t causal`.
import { pnpm, tryPnpm } from './pnpm.mjs';
import { clearResults, printSummary, reporterOptions } from './test-summary.mjs';

clearResults();
pnpm('install', '--frozen-lockfile');
// Built apart from the tests: arguments after `--` would be part of the builds' cache keys.
pnpm('exec', 'turbo', 'run', 'build', 'build:addon', '--output-logs=errors-only');
// A failing package does not hide the results of the others.
const turbo = ['exec', 'turbo', 'run', 'test', '--only', '--continue'];
const filters = process.argv.slice(2);
// A file that is named belongs to one package; the others have no such test.
if (filters.length > 0) filters.push('--passWithNoTests');
process.exitCode = tryPnpm(...turbo, '--', ...reporterOptions, ...filters);
printSummary();
