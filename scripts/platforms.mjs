// SPDX-License-Identifier: Apache-2.0
// The platforms whose addon is published, each in a package of its own that the core names as an optional dependency.
import { join } from 'node:path';
import { root } from './repository.mjs';

/**
 * As package.json describes a platform to npm; `glibc` is the oldest it runs on, that of Node.js 20's own binaries.
 * @typedef {{ os: 'linux' | 'win32', cpu: 'x64' | 'arm64', libc?: 'glibc', glibc?: string }} Platform
 */

/** @type {Readonly<Record<string, Platform>>} */
export const platforms = {
  'linux-x64': { os: 'linux', cpu: 'x64', libc: 'glibc', glibc: '2.28' },
  'linux-arm64': { os: 'linux', cpu: 'arm64', libc: 'glibc', glibc: '2.28' },
  'win32-x64': { os: 'win32', cpu: 'x64' },
};

/**
 * How CMake builds the addon of one platform on another.
 * @typedef {{ system: string, processor: string, compiler: string, debian: string }} CrossBuild
 */

/** @type {Readonly<Record<string, CrossBuild>>} */
export const crossBuilds = {
  'linux-arm64': {
    system: 'Linux',
    processor: 'aarch64',
    compiler: 'aarch64-linux-gnu-g++',
    debian: 'g++-aarch64-linux-gnu',
  },
  'win32-x64': {
    system: 'Windows',
    processor: 'AMD64',
    compiler: 'x86_64-w64-mingw32-g++-posix',
    debian: 'g++-mingw-w64-x86-64-posix',
  },
};

/** @param {string} platform */
export function crossBuiltAddon(platform) {
  return join(root, 'build/addon', platform, 'Release/flashinfer.node');
}

/** @param {string} platform */
export function packageName(platform) {
  return `@flashinfer/core-${platform}`;
}

/**
 * What the published core depends on.
 * @param {string} version
 */
export function platformDependencies(version) {
  return Object.fromEntries(Object.keys(platforms).map((platform) => [packageName(platform), version]));
}
