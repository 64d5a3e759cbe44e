// SPDX-License-Identifier: Apache-2.0
// Packs the packages that users install as tarballs, and reads what a tarball says of itself.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './repository.mjs';

const shell = process.platform === 'win32'; // pnpm is a .cmd file there

/**
 * The part of a package.json that the release scripts read.
 * @typedef {{
 *   name: string, version: string, private?: boolean, license?: string, repository?: { url: string },
 *   scripts?: Record<string, string>, dependencies?: Record<string, string>, devDependencies?: Record<string, string>,
 *   optionalDependencies?: Record<string, string>, peerDependencies?: Record<string, string>,
 *   publishConfig?: { access?: string },
 * }} Manifest
 */

/** @param {string} name  folder in packages/ @returns {Manifest} */
export function manifestOf(name) {
  return JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'));
}

/** Folders of packages/ that are published. */
export function publishedFolders() {
  const folders = readdirSync(join(root, 'packages')).filter((name) => !manifestOf(name).private);
  if (folders.length === 0) throw new Error('packing: no package of packages/ is published');
  return folders.sort();
}

/**
 * Packs one package of packages/, which was built before. Returns the tarball.
 * @param {string} name
 * @param {string} to  a folder
 */
export function packPackage(name, to) {
  mkdirSync(to, { recursive: true });
  const before = new Set(readdirSync(to));
  const cwd = join(root, 'packages', name);
  execFileSync('pnpm', ['pack', '--pack-destination', to], { cwd, shell, stdio: ['ignore', 'ignore', 'inherit'] });
  const [tarball, ...others] = readdirSync(to).filter((file) => !before.has(file));
  if (!tarball || others.length > 0) throw new Error(`packing: pnpm pack of ${cwd} made ${tarball} ${others}`);
  return join(to, tarball);
}

/** @param {string} tarball */
export function filesIn(tarball) {
  return execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n');
}

/** @param {string} tarball @returns {Manifest} */
export function manifestIn(tarball) {
  return JSON.parse(execFileSync('tar', ['-xzOf', tarball, 'package/package.json'], { encoding: 'utf8' }));
}

/** @param {string} folder */
export function tarballsIn(folder) {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.tgz'))
    .sort()
    .map((file) => join(folder, file));
}

/**
 * What would keep a set of tarballs from being published or installed together.
 * @param {string[]} tarballs
 */
export function releaseProblems(tarballs) {
  const manifests = tarballs.map(manifestIn);
  const versions = new Set(manifests.map(({ version }) => version.replace(/\+.*$/, '')));
  return [
    ...(versions.size === 1 ? [] : [`the tarballs have versions ${[...versions].join(', ')}; expected one`]),
    ...manifests.flatMap(manifestProblems),
  ];
}

/** @param {Manifest} manifest */
function manifestProblems(manifest) {
  const { name, scripts = {}, publishConfig, license } = manifest;
  const ranges = /** @type {const} */ (['dependencies', 'optionalDependencies', 'peerDependencies', 'devDependencies'])
    .flatMap((kind) => Object.entries(manifest[kind] ?? {}).map(([to, range]) => ({ kind, to, range })))
    .filter(
      ({ kind, range }) =>
        /^(workspace|link|file|catalog):/.test(range) || (kind !== 'peerDependencies' && !/^\d/.test(range)),
    )
    .map(({ kind, to, range }) => `${name}: ${kind} has ${to} as ${range}; expected an exact version`);
  const atInstall = ['preinstall', 'install', 'postinstall', 'prepare']
    .filter((script) => script in scripts)
    .map((script) => `${name}: has the script ${script}, which would run at the user's`);
  return [
    ...ranges,
    ...atInstall,
    ...(publishConfig?.access === 'public' ? [] : [`${name}: publishConfig.access is not public`]),
    ...(license === 'Apache-2.0' ? [] : [`${name}: license is ${license}`]),
  ];
}
