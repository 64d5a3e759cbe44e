// SPDX-License-Identifier: Apache-2.0
// Makes one archive that shows a release on a machine with a GPU and without network, npm or compilers: a project that
// has the tarballs of build/release installed, the examples, and the tests that need nothing but what the packages export.
// There: unpack it, and `node check.mjs --vitest <folder of the vitest package> --json report.json`.
//
//   node scripts/pack-offline.mjs --arch 90a [--kernels <folder>] [--output build/offline.tar.xz]
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliDecompressSync } from 'node:zlib';
import { publicTests } from './offline/publicTests.mjs';
import { manifestIn, tarballsIn } from './packing.mjs';
import { root } from './repository.mjs';

const { values } = parseArgs({
  options: {
    release: { type: 'string', default: join(root, 'build/release') },
    arch: { type: 'string' },
    // Kernels that tests launch and models do not, in the form of FLASHINFER_CUBIN_DIR.
    kernels: { type: 'string' },
    output: { type: 'string', default: join(root, 'build/offline.tar.xz') },
  },
});
if (values.arch === undefined)
  throw new Error('pack-offline: --arch is undefined; expected an architecture such as 90a');

const wanted = new RegExp(`/(core(-.*)?|cubin-sm${values.arch})$`);
const tarballs = tarballsIn(values.release).filter((tarball) => wanted.test(manifestIn(tarball).name));
if (tarballs.length < 2) throw new Error(`pack-offline: ${values.release} lacks the core or cubin-sm${values.arch}`);

const project = mkdtempSync(join(tmpdir(), 'flashinfer-offline-'));
try {
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'offline', private: true, version: '1.0.0' }));
  const options = ['--loglevel=error', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];
  const shell = process.platform === 'win32'; // npm is a .cmd file there
  execFileSync('npm', ['install', ...options, ...tarballs], { cwd: project, shell, stdio: 'inherit' });
  cpSync(join(root, 'examples'), join(project, 'examples'), { recursive: true });
  for (const file of ['check.mjs', 'coldStart.mjs']) cpSync(join(root, 'scripts/offline', file), join(project, file));
  if (values.kernels) cpSync(values.kernels, join(project, 'kernels'), { recursive: true });
  await addTests();
  const commit = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
  writeFileSync(
    join(project, 'contents.json'),
    JSON.stringify({ commit, packages: tarballs.map(manifestIn).map(nameOf) }),
  );
  unpackKernels();
  mkdirSync(dirname(resolve(values.output)), { recursive: true });
  // Kernels resemble each other: one stream with a large window holds them in a third of what they need one by one.
  const xz = { ...process.env, XZ_OPT: '--lzma2=preset=6,dict=128MiB' };
  execFileSync('tar', ['-cJf', resolve(values.output), '--sort=name', '-C', project, '.'], { env: xz });
  console.log(values.output);
} finally {
  rmSync(project, { recursive: true, force: true });
}

/** @param {{ name: string, version: string }} manifest */
function nameOf({ name, version }) {
  return `${name}@${version}`;
}

/** The tests as they are, over an src/ that only passes on what the installed package exports. */
async function addTests() {
  const core = join(root, 'packages/core');
  const installed = join(project, 'node_modules/@flashinfer/core/dist');
  const entries = await Promise.all(
    ['index.js', 'internal.js'].map((name) => import(pathToFileURL(join(installed, name)).href)),
  );
  const { run, left, modules } = publicTests(core, new Set(entries.flatMap((entry) => Object.keys(entry))));
  const to = join(project, 'packages/core');
  cpSync(join(core, 'test'), join(to, 'test'), { recursive: true });
  const api = "export * from '@flashinfer/core';\n";
  const internal = "export * from '@flashinfer/core/internal';\n";
  for (const module of modules) {
    mkdirSync(dirname(join(to, 'src', module)), { recursive: true });
    writeFileSync(join(to, 'src', module), module === 'index.ts' ? api : api + internal);
  }
  writeFileSync(join(project, 'tests.json'), JSON.stringify({ run, left }, undefined, 1));
  console.log(`${run.length} test files run on the packages, ${Object.keys(left).length} are of internals`);
}

/** Replaces the compressed cubins, which do not compress again; check.mjs restores them, byte for byte. */
function unpackKernels() {
  const folders = [join(project, 'kernels'), join(project, `node_modules/@flashinfer/cubin-sm${values.arch}`)];
  for (const path of folders.flatMap(packedIn)) {
    writeFileSync(path.replace(/\.br$/, ''), brotliDecompressSync(readFileSync(path)));
    rmSync(path);
  }
}

/** @param {string} folder */
function packedIn(folder) {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return files.filter((file) => file.endsWith('.cubin.br')).map((file) => join(folder, file));
}
