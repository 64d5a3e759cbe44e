// SPDX-License-Identifier: Apache-2.0
// Packs everything a release publishes into one folder: `pnpm release:pack`, after the builds it needs. Kernels are packed
// where `turbo run build:cubin` and `build:jit-cache` left them; --add adds tarballs of other machines. Beside
// the tarballs: SHA256SUMS, and sbom.cdx.json (scripts/sbom.mjs).
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { packPackage, publishedFolders, releaseProblems, tarballsIn } from './packing.mjs';
import { report, root } from './repository.mjs';
import { billOfMaterials } from './sbom.mjs';

const { values } = parseArgs({
  options: {
    output: { type: 'string', default: join(root, 'build/release') },
    // A folder of tarballs that other machines made: kernels of an architecture, the addon of a platform.
    add: { type: 'string', multiple: true, default: [] },
  },
});
const output = resolve(values.output);

rmSync(output, { recursive: true, force: true });
mkdirSync(output, { recursive: true });
for (const name of publishedFolders()) packPackage(name, output);
execFileSync(process.execPath, [join(root, 'scripts/pack-addon.mjs'), '--output', output], { stdio: 'inherit' });
packKernels('cubin', 'packages/cubin/cubins');
packKernels('jit-cache', 'packages/jit-cache/modules');
for (const tarball of values.add.flatMap(tarballsIn)) cpSync(tarball, join(output, basename(tarball)));

const tarballs = tarballsIn(output);
const problems = releaseProblems(tarballs);
writeSums(tarballs);
writeFileSync(join(output, 'sbom.cdx.json'), `${JSON.stringify(billOfMaterials(tarballs), undefined, 2)}\n`);
report(problems, `${tarballs.length} tarballs, SHA256SUMS and sbom.cdx.json in ${output}`);

/**
 * @param {'cubin' | 'jit-cache'} name
 * @param {string} folder
 */
function packKernels(name, folder) {
  const path = join(root, folder);
  if (!existsSync(path) || readdirSync(path).length === 0) return console.log(`no kernels in ${folder}`);
  const args = [join(root, 'scripts/pack-kernels.mjs'), name, '--output', output];
  execFileSync(process.execPath, args, { stdio: 'inherit' });
}

/**
 * As `sha256sum --check` reads it.
 * @param {string[]} files
 */
function writeSums(files) {
  const sum = (/** @type {string} */ file) => createHash('sha256').update(readFileSync(file)).digest('hex');
  writeFileSync(join(output, 'SHA256SUMS'), files.map((file) => `${sum(file)}  ${basename(file)}\n`).join(''));
}
