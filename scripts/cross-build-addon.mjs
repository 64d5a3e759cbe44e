// SPDX-License-Identifier: Apache-2.0
// Builds the addon of another platform on Linux: `node scripts/cross-build-addon.mjs linux-arm64`, into build/addon/. Needs
// the cross-compiler on PATH (Debian: g++-aarch64-linux-gnu, g++-mingw-w64-x86-64-posix) and CMake.
import { execFileSync, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { addonProblems } from './addon-format.mjs';
import { crossBuilds, crossBuiltAddon } from './platforms.mjs';
import { root } from './repository.mjs';

const core = join(root, 'packages/core');
const [platform = ''] = process.argv.slice(2);
const described = crossBuilds[platform];
if (!described) throw new Error(`cross-build-addon: ${platform}; expected ${Object.keys(crossBuilds).join(', ')}`);
const { system, processor, compiler, debian } = described;
if (spawnSync(compiler, ['--version']).status !== 0)
  throw new Error(`cross-build-addon: ${compiler} is missing on PATH (Debian: apt install ${debian})`);

const { resolve } = createRequire(join(core, 'package.json'));
const headers = ['node-api-headers', 'node-addon-api'].map((name) => dirname(resolve(`${name}/package.json`)));
const folder = dirname(dirname(crossBuiltAddon(platform)));
const options = {
  CMAKE_BUILD_TYPE: 'Release',
  CMAKE_SYSTEM_NAME: system,
  CMAKE_SYSTEM_PROCESSOR: processor,
  CMAKE_CXX_COMPILER: compiler,
  CMAKE_JS_INC: `${headers[0]}/include;${headers[1]}`,
  CMAKE_JS_NODELIB_DEF: `${headers[0]}/def/node_api.def`,
  FLASHINFER_PORTABLE: 'ON',
};
const settings = Object.entries(options).map(([name, value]) => `-D${name}=${value}`);
execFileSync('cmake', ['-S', core, '-B', folder, ...settings], { stdio: 'inherit' });
execFileSync('cmake', ['--build', folder, '--parallel', String(availableParallelism())], { stdio: 'inherit' });

const { version } = createRequire(import.meta.url)(join(core, 'package.json'));
const problems = addonProblems(crossBuiltAddon(platform), platform, version);
if (problems.length > 0) throw new Error(`cross-build-addon: ${problems.join('; ')}`);
console.log(`ok: ${crossBuiltAddon(platform)} is fit to be published`);
