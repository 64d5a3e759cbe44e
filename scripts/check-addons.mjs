// SPDX-License-Identifier: Apache-2.0
// The addons of other platforms still build, are fit to be published, and pass some tests in an emulator. What a machine lacks
// is named and left out; `--required` makes it an error, for machines that are there for this.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { crossBuilds } from './platforms.mjs';
import { root } from './repository.mjs';

/** Loading, and kernels of every kind of the cpu device: a minute in an emulator. */
const tests = ['native/fileLock', 'norm/norm.test', 'activation/actAndMul', 'attention/attentionErrors'];
const required = process.argv.includes('--required');

/** @param {string[]} programs */
const firstOf = (programs) => programs.find((name) => existsSync(name) || spawnSync(name, ['--version']).status === 0);
const emulators = {
  'linux-arm64': { programs: ['qemu-aarch64-static', 'qemu-aarch64'], debian: 'qemu-user-static' },
  'win32-x64': { programs: ['wine64', '/usr/lib/wine/wine64'], debian: 'wine64' },
};

for (const [platform, { compiler, debian }] of Object.entries(crossBuilds)) {
  if (!firstOf([compiler])) {
    leaveOut(`${platform} is not built: ${compiler} is missing (Debian: apt install ${debian})`);
    continue;
  }
  run('cross-build-addon.mjs', platform);
  run('pack-addon.mjs', platform);
  const emulator = emulators[/** @type {keyof typeof emulators} */ (platform)];
  if (!firstOf(emulator.programs)) {
    leaveOut(`${platform} is not run: ${emulator.programs[0]} is missing (Debian: apt install ${emulator.debian})`);
    continue;
  }
  run('test-emulated.mjs', platform, ...tests.map((name) => `test/${name}`));
  console.log(`ok: ${platform} builds and passes ${tests.length} test files`);
}

/** @param {string} what */
function leaveOut(what) {
  if (required) throw new Error(`check-addons: ${what}`);
  console.warn(what);
}

/**
 * @param {string} script
 * @param {string[]} args
 */
function run(script, ...args) {
  execFileSync(process.execPath, [join(root, 'scripts', script), ...args], { stdio: 'inherit' });
}
