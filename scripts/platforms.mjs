// SPDX-License-Identifier: Apache-2.0
// The platforms whose addon is published, each in a package of its own that the core names as an optional dependency.

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
