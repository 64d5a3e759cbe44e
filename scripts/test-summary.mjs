// SPDX-License-Identifier: Apache-2.0
// The counts of the last test run, read from the report that vitest writes for each package.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';

const packages = fileURLToPath(new URL('../packages', import.meta.url));
const report = '.turbo/vitest.json';

export const reporterOptions = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];

/**
 * @typedef {{ status: string, assertionResults: { status: string }[] }} FileResult
 * @typedef {{ success: boolean, testResults: FileResult[] }} Report
 */

/** Folders of the packages that have tests. */
function testedPackages() {
  return readdirSync(packages)
    .map((name) => join(packages, name))
    .filter((folder) => existsSync(join(folder, 'package.json')))
    .filter((folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).scripts?.test);
}

export function clearResults() {
  for (const folder of testedPackages()) rmSync(join(folder, report), { force: true });
}

/** Prints `N passed, N failed` alone on the last line. A missing or empty report is a failure without that line. */
export function printSummary() {
  const paths = testedPackages().map((folder) => join(folder, report));
  const missing = paths.filter((path) => !existsSync(path));
  /** @type {Report[]} */
  const results = paths.filter(existsSync).map((path) => JSON.parse(readFileSync(path, 'utf8')));
  const files = results.flatMap(({ testResults }) => testResults);
  const tests = files.flatMap(({ assertionResults }) => assertionResults);
  /** @param {string} wanted */
  const count = (wanted) => tests.filter(({ status }) => status === wanted).length;
  const passed = count('passed');
  const skipped = tests.length - passed - count('failed');
  // A file that does not load has no tests, and is one failure.
  const failed =
    count('failed') +
    files.filter(
      ({ status, assertionResults }) =>
        status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
    ).length;

  for (const path of missing) console.error(`no test report at ${path}: its tests did not run`);
  if (skipped > 0) console.log(`${skipped} skipped: filtered out, or they need a GPU or a compiler; see above`);
  if (missing.length > 0 || passed + failed === 0 || results.some(({ success }) => !success)) process.exitCode = 1;
  if (missing.length === 0) console.log(`${passed} passed, ${failed} failed`);
}

if (argv[1] === fileURLToPath(import.meta.url)) printSummary();
