// SPDX-License-Identifier: Apache-2.0
// Renames as Windows lets us: a virus scanner or indexer that has just opened a new file keeps it from being renamed.
import { renameSync, statSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { type Procedure, perform, runAsync, runSync, type Step } from './bothWays.ts';
import { sleep } from './sleep.ts';

/** 2.5 s in all: scanners take milliseconds, and who holds a file for longer does so on purpose. */
const waitsMs = [10, 20, 40, 80, 160, 320, 640, 640, 640];

/** What renames, and where; tests give their own. */
export interface Renaming {
  readonly platform: string;
  rename(from: string, to: string): Step<void>;
}

const ofThisSystem: Renaming = {
  platform: process.platform,
  rename: (from, to) => ({
    sync: () => renameSync(from, to),
    async: () => rename(from, to),
  }),
};

/** As `rename` of POSIX: what is at `to` is replaced, and a folder that is there is `ENOTEMPTY`. */
export function renameWhenFree(from: string, to: string, how: Renaming = ofThisSystem): Step<void> {
  return {
    sync: () => runSync(attempts(from, to, how)),
    async: (signal) => runAsync(attempts(from, to, how), signal),
  };
}

function* attempts(from: string, to: string, how: Renaming): Procedure<void> {
  for (const waitMs of waitsMs) {
    try {
      return yield* perform(how.rename(from, to));
    } catch (error) {
      if (how.platform !== 'win32' || !isHeld(error)) throw error;
      // Not somebody who will let go: Windows does not rename onto folders.
      if (isFolder(to)) throw Object.assign(error as Error, { code: 'ENOTEMPTY' });
    }
    yield* perform(sleep(waitMs));
  }
  yield* perform(how.rename(from, to));
}

function isHeld(error: unknown): boolean {
  return ['EPERM', 'EACCES', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
