// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** This package: where `@flashinfer/core` resolves to the built package. */
export const packageRoot: string = findPackageRoot();

/** Runs an ES module in a new Node process inside this package; resolves to its trimmed standard output. */
export async function runChild(script: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: packageRoot,
    env: { ...process.env, ...env },
    maxBuffer: 1 << 24,
  });
  return stdout.trim();
}

function findPackageRoot(): string {
  const here = fileURLToPath(import.meta.url);
  // dist/main.js when bundled, src/cases/childProcess.ts from source
  return fileURLToPath(new URL(here.endsWith('.ts') ? '../..' : '..', import.meta.url));
}
