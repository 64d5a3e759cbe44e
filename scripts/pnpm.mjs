// SPDX-License-Identifier: Apache-2.0
// Runs the pnpm that package.json pins, on machines with or without pnpm: the one on PATH if it is that version,
// else through npx, which needs no global installation.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const shell = process.platform === 'win32'; // npx and pnpm are .cmd files there

/** @type {{ packageManager: string }} */
const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const version = /^pnpm@([\d.]+)/.exec(manifest.packageManager)?.[1];
if (!version) throw new Error(`package.json: packageManager is ${manifest.packageManager}; expected pnpm@<version>`);

/** @returns {string[]} */
function findPnpm() {
  const { stdout } = spawnSync('pnpm', ['--version'], { cwd: root, encoding: 'utf8', shell });
  return stdout?.trim() === version ? ['pnpm'] : ['npx', '--yes', `pnpm@${version}`];
}

const [command = '', ...prefix] = findPnpm();

/**
 * Runs pnpm in the repository root and returns its exit code. `pnpm exec` puts the workspace's binaries and pnpm itself
 * on PATH, which turbo needs.
 * @param {string[]} args
 */
export function tryPnpm(...args) {
  const { status, error } = spawnSync(command, [...prefix, ...args], { cwd: root, stdio: 'inherit', shell });
  if (error) throw error;
  return status ?? 1;
}

/**
 * The same; a failure ends the process.
 * @param {string[]} args
 */
export function pnpm(...args) {
  const code = tryPnpm(...args);
  if (code !== 0) process.exit(code);
}
