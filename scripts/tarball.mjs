// SPDX-License-Identifier: Apache-2.0
// Packs a generated package as a tarball that `npm install ./file.tgz` takes. Same contents, same bytes.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { create } from 'tar';
import { root } from './repository.mjs';

/**
 * Returns the tarball.
 * @param {string} output  folder it is written to
 * @param {string} tarball  its name
 * @param {(folder: string) => void} fill  writes the package, but for LICENSE
 */
export async function packTarball(output, tarball, fill) {
  const stage = mkdtempSync(join(tmpdir(), 'flashinfer-pack-'));
  const folder = join(stage, 'package');
  try {
    mkdirSync(folder);
    fill(folder);
    cpSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
    const files = readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(stage, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
      .sort();
    mkdirSync(output, { recursive: true });
    const file = join(output, tarball);
    // One date and no owner: contents alone decide the bytes.
    await create(
      { file, cwd: stage, gzip: { level: 9 }, portable: true, mtime: new Date(Date.UTC(1985, 9, 26)) },
      files,
    );
    console.log(`${file}: ${files.length} files, ${(statSync(file).size / 2 ** 20).toFixed(2)} MiB`);
    return file;
  } finally {
    rmSync(stage, { recursive: true });
  }
}

/**
 * @param {string} folder
 * @param {object} manifest
 */
export function writeManifest(folder, manifest) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
}
