// SPDX-License-Identifier: Apache-2.0
// Packs what build-kernels.mjs built, as tarballs that `npm install ./file.tgz` takes: `node scripts/pack-kernels.mjs cubin`
// makes one a SM architecture (@flashinfer/cubin-sm90a), `jit-cache` one a CUDA version. Same contents, same bytes.
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './repository.mjs';
import { packTarball, writeManifest } from './tarball.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // Holds the kernels of one CUDA version in <arch> folders, as the build leaves them.
    input: { type: 'string' },
    cuda: { type: 'string' },
    output: { type: 'string', default: join(root, 'build/packages') },
  },
});

/** @param {string} name */
const manifestOf = (name) => JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'));

/** @param {string} folder */
const foldersIn = (folder) =>
  existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => !name.startsWith('.'))
        .sort()
    : [];

async function packCubins() {
  const input = resolve(values.input ?? join(root, 'packages/cubin/cubins'));
  const { version, license, engines, publishConfig } = manifestOf('cubin');
  const targets = foldersIn(input);
  for (const target of targets) {
    const name = `cubin-${target.replace('_', '')}`;
    await packTarball(values.output, `flashinfer-${name}-${version}.tgz`, (folder) => {
      const description = `Compiled kernels for @flashinfer/core, ${target} alone`;
      const exports = { './package.json': './package.json' };
      const manifest = {
        name: `@flashinfer/${name}`,
        version,
        description,
        license,
        engines,
        exports,
        files: ['cubins'],
      };
      writeManifest(folder, { ...manifest, publishConfig });
      writeFileSync(
        join(folder, 'README.md'),
        `# @flashinfer/${name}\n\n${description}; the part of @flashinfer/cubin that one GPU needs.\n`,
      );
      cpSync(join(input, target), join(folder, 'cubins', target), { recursive: true });
    });
  }
  return targets.length;
}

async function packJitCache() {
  const modules = join(root, 'packages/jit-cache/modules');
  const releases = values.cuda === undefined ? foldersIn(modules) : [values.cuda];
  const { scripts, devDependencies, ...manifest } = manifestOf('jit-cache');
  for (const cuda of releases) {
    const input = resolve(values.input ?? join(modules, cuda));
    const version = `${manifest.version}+${cuda}`;
    await packTarball(values.output, `flashinfer-jit-cache-${version}.tgz`, (folder) => {
      writeManifest(folder, { ...manifest, version });
      for (const name of ['dist', 'README.md'])
        cpSync(join(root, 'packages/jit-cache', name), join(folder, name), { recursive: true });
      cpSync(input, join(folder, 'modules', cuda), { recursive: true });
    });
  }
  return releases.length;
}

const [name] = positionals;
if (name !== 'cubin' && name !== 'jit-cache') throw new Error(`pack-kernels: ${name}; expected cubin or jit-cache`);
const packed = name === 'cubin' ? await packCubins() : await packJitCache();
if (packed === 0) throw new Error(`pack-kernels: nothing is built; run turbo run build:${name} first`);
