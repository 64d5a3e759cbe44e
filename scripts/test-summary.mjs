// SPDX-License-Identifier: Apache-2.0
// The counts of the last test run, read from the report that vitest writes for each package.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';

const packages = fileURLToPath(new URL('../packages', import.meta.url));
const report = '.turbo/vitest.json';

export const reporterOptions = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];

/** @typedef {{ numPassedTests: number, numFailedTests: number, numPendingTests: number, success: boolean }} Report */

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

/** Prints `N passed, N failed` alone on the last line; a missing or empty report ends the process with an error. */
export function printSummary() {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const folder of testedPackages()) {
    const path = join(folder, report);
    if (!existsSync(path)) throw new Error(`test-summary: no report at ${path}; the package's tests did not run`);
    /** @type {Report} */
    const result = JSON.parse(readFileSync(path, 'utf8'));
    if (result.numPassedTests + result.numFailedTests === 0) throw new Error(`test-summary: ${path} has no tests`);
    passed += result.numPassedTests;
    failed += result.numFailedTests;
    skipped += result.numPendingTests;
    if (!result.success) process.exitCode = 1;
  }
  if (skipped > 0) console.log(`${skipped} skipped: they need a GPU or a compiler that is not here; see above`);
  console.log(`${passed} passed, ${failed} failed`);
}

if (argv[1] === fileURLToPath(import.meta.url)) printSummary();
