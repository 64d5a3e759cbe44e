// SPDX-License-Identifier: Apache-2.0
// What the check scripts share: the repository's files, and how a check reports.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * Files that are, or would be, in git: paths from the root with `/`, filtered by `pattern`. Finding none is an error,
 * because a check over no files proves nothing.
 * @param {RegExp} pattern
 */
export function repositoryFiles(pattern) {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: root,
    encoding: 'utf8',
  });
  const files = listed.split('\0').filter((file) => pattern.test(file) && existsSync(join(root, file)));
  if (files.length === 0) throw new Error(`no file of the repository matches ${pattern}`);
  return files;
}

/** @param {string} file */
export function readText(file) {
  return readFileSync(join(root, file), 'utf8');
}

/**
 * Prints the problems, or what was checked, and sets the exit code.
 * @param {string[]} problems
 * @param {string} checked
 */
export function report(problems, checked) {
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) {
    console.error(`\n${problems.length} problem${problems.length === 1 ? '' : 's'}`);
    process.exitCode = 1;
  } else {
    console.log(`ok: ${checked}`);
  }
}
