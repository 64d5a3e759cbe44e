// SPDX-License-Identifier: Apache-2.0
// A bill of materials, CycloneDX in JSON: the tarballs of a release and what the core's dependencies install beside them.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manifestIn } from './packing.mjs';
import { packageName } from './platforms.mjs';

const shell = process.platform === 'win32'; // npm is a .cmd file there

/** @typedef {{ name: string, version: string, 'bom-ref': string, externalReferences?: { type: string }[] }} Component */

/**
 * The same tarballs and dependencies give the same text: npm's names of this machine's files, time and random number
 * are left out.
 * @param {string[]} tarballs
 */
export function billOfMaterials(tarballs) {
  const own = tarballs.map((tarball) => ({ tarball, ...manifestIn(tarball) }));
  const core = own.find(({ name }) => name === '@flashinfer/core');
  if (core === undefined) throw new Error('sbom: no tarball is @flashinfer/core');
  // npm refuses the addon of another platform.
  const here = [core.name, packageName(`${process.platform}-${process.arch}`)];
  const installed = own.filter(({ name }) => here.includes(name)).map(({ tarball }) => tarball);
  const { $schema, bomFormat, specVersion, components, dependencies } = npmSbom(installed);
  const shipped = new Set(own.map(({ name }) => name));
  const foreign = /** @type {Component[]} */ (components).filter(({ name }) => !shipped.has(name));
  const component = { type: 'application', name: 'flashinfer', version: core.version, 'bom-ref': 'flashinfer' };
  return {
    $schema,
    bomFormat,
    specVersion,
    version: 1,
    metadata: { component },
    components: [...own.map(ownComponent), ...foreign.map(withoutDownloads)],
    dependencies: [
      { ref: component['bom-ref'], dependsOn: own.map(({ name, version }) => `${name}@${version}`) },
      .../** @type {{ ref: string }[]} */ (dependencies).filter(({ ref }) => !ref.startsWith('consumer@')),
    ],
  };
}

/** @param {{ tarball: string, name: string, version: string, license?: string }} shipped */
function ownComponent({ tarball, name, version, license }) {
  return {
    'bom-ref': `${name}@${version}`,
    type: 'library',
    name,
    version,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version.replace('+', '%2B')}`,
    licenses: [{ license: { id: license } }],
    hashes: [{ alg: 'SHA-512', content: createHash('sha512').update(readFileSync(tarball)).digest('hex') }],
  };
}

/**
 * The address a package was downloaded from is that of this machine's registry; its checksum stays.
 * @param {Component} component
 */
function withoutDownloads(component) {
  const externalReferences = component.externalReferences?.filter(({ type }) => type !== 'distribution');
  return { ...component, externalReferences };
}

/**
 * What npm says of an empty project that has the tarballs installed.
 * @param {string[]} tarballs
 */
function npmSbom(tarballs) {
  const project = mkdtempSync(join(tmpdir(), 'flashinfer-sbom-'));
  try {
    writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', version: '1.0.0', private: true }));
    const options = ['--loglevel=error', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];
    const quiet = /** @type {const} */ (['ignore', 'ignore', 'inherit']);
    execFileSync('npm', ['install', ...options, ...tarballs], { cwd: project, shell, stdio: [...quiet] });
    return JSON.parse(
      execFileSync('npm', ['sbom', '--sbom-format=cyclonedx', '--loglevel=error'], {
        cwd: project,
        shell,
        encoding: 'utf8',
      }),
    );
  } finally {
    rmSync(project, { recursive: true, force: true });
  }
}
