// SPDX-License-Identifier: Apache-2.0
// Packs the published packages and looks at them as a user gets them: publint, "are the types wrong", files and manifest,
// and empty projects outside the repository that install the tarballs: the core alone, with @flashinfer/cubin and with
// @flashinfer/jit-cache. ESM, CommonJS and TypeScript programs and the quickstart run there without a network.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { filesIn, manifestIn, packPackage, publishedFolders, releaseProblems, tarballsIn } from './packing.mjs';
import { packageName } from './platforms.mjs';
import { readText, report, root } from './repository.mjs';

const shell = process.platform === 'win32'; // npm, npx and pnpm are .cmd files there
const work = mkdtempSync(join(tmpdir(), 'flashinfer-package-'));
const packages = join(work, 'packages');
// A few kernels of one architecture show that the core finds them; they compile in seconds and are kept in build/.
const [arch, target, family] = ['9.0a', 'sm_90a', 'packbits'];
const kernels = join(root, 'build/check-kernels');
const withoutNetwork = networkNamespace();

try {
  for (const tarball of publishedFolders().map((name) => packPackage(name, packages))) checkTarball(tarball);
  run(process.execPath, [join(root, 'scripts/pack-addon.mjs'), '--output', packages], root);
  const hasKernels = buildKernels();
  const tarballs = tarballsIn(packages);
  const named = (/** @type {RegExp} */ pattern) => tarballs.filter((tarball) => pattern.test(manifestIn(tarball).name));
  const core = named(/\/core(-|$)/);

  const alone = makeProject('core', core);
  useLanguages(alone);
  for (const file of ['README.md', 'packages/core/README.md']) runReadme(file, alone);
  expectVersions(alone, { cubin: false, jitCache: false });

  const cubin = makeProject('core and cubin', [...core, ...named(/\/cubin(-|$)/)]);
  expectVersions(cubin, { cubin: true, jitCache: false });
  const jitCache = makeProject('core and jit-cache', [...core, ...named(/\/jit-cache$/)]);
  expectVersions(jitCache, { cubin: false, jitCache: true });
  if (hasKernels) {
    expectKernels(cubin, 'cubin');
    expectKernels(jitCache, 'jit-cache');
    flashinfer(alone, 'install-jit-cache', ...named(/\/jit-cache$/));
    expectKernels(alone, 'jit-cache');
  }
  expectMissingAddon(alone);
  report(releaseProblems(tarballs), `${tarballs.length} packages install and work`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {string} cwd
 */
function run(command, args, cwd) {
  execFileSync(command, args, { cwd, stdio: 'inherit', shell });
}

/** @param {string} tarball */
function checkTarball(tarball) {
  checkContents(tarball);
  run('publint', ['run', tarball, '--strict'], root);
  run('attw', [tarball, '--profile', 'node16', '--quiet'], root);
}

/** @param {string} tarball */
function checkContents(tarball) {
  const files = filesIn(tarball);
  const required = ['package.json', 'README.md', 'LICENSE', 'dist/index.js', 'dist/index.cjs', 'dist/index.d.ts'];
  const { name, version } = manifestIn(tarball);
  if (version !== '0.0.0') required.push('CHANGELOG.md');
  if (name === '@flashinfer/core') {
    required.push('bin/flashinfer.js', 'dist/cli.js', 'CMakeLists.txt', 'csrc/CMakeLists.txt', 'csrc/addon.cc');
    required.push('include/flashinfer/dtype.cuh');
  }
  const missing = required.filter((file) => !files.includes(`package/${file}`));
  const stray = files.filter((file) => /\/(test|src|node_modules|build|\.turbo)\/|\.tsbuildinfo$/.test(file));
  if (missing.length > 0) throw new Error(`check-package: ${tarball} lacks ${missing.join(', ')}`);
  if (stray.length > 0) throw new Error(`check-package: ${tarball} holds ${stray.join(', ')}`);
  console.log(`${files.length} files in ${basename(tarball)}`);
}

/** Packs the kernels as a release does, @flashinfer/jit-cache in place of the one without. False where nvcc is missing. */
function buildKernels() {
  if (spawnSync('nvcc', ['--version'], { shell }).status !== 0) {
    console.warn('no nvcc: the add-on packages are checked without kernels');
    return false;
  }
  const script = (/** @type {string} */ name) => join(root, 'scripts', `${name}-kernels.mjs`);
  execFileSync(process.execPath, [script('build'), 'cubin', '--filter', family, '--output', kernels], {
    env: { ...process.env, FLASHINFER_CUDA_ARCH_LIST: arch },
    stdio: 'inherit',
  });
  const pack = ['--input', kernels, '--output', packages];
  run(process.execPath, [script('pack'), 'cubin', ...pack], root);
  for (const tarball of tarballsIn(packages)) if (/jit-cache/.test(tarball)) rmSync(tarball);
  const { compiler } = JSON.parse(readFileSync(join(kernels, target, 'manifest.json'), 'utf8'));
  const cuda = `cu${compiler.release.replace('.', '')}`;
  run(process.execPath, [script('pack'), 'jit-cache', '--cuda', cuda, ...pack], root);
  return true;
}

/**
 * An empty project with the packages installed, in which the quickstart has run.
 * @param {string} name
 * @param {string[]} tarballs
 */
function makeProject(name, tarballs) {
  const project = join(work, name.replaceAll(' ', '-'));
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, version: '1.0.0' }));
  const options = ['--loglevel=error', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];
  run('npm', ['install', ...options, ...tarballs], project);
  for (const file of ['quickstart.mjs', 'reference.mjs']) cpSync(join(root, 'examples', file), join(project, file));
  const output = runOffline(project, 'quickstart.mjs');
  if (!/every error is below/.test(output)) throw new Error(`check-package: ${name}: the quickstart says ${output}`);
  console.log(`${name}: ${tarballs.length} tarballs, the quickstart runs`);
  return project;
}

/**
 * Without a network, a compiler's permission and the user's cache. Returns the output.
 * @param {string} project
 * @param {string[]} args
 */
function runOffline(project, ...args) {
  const [command = '', ...rest] = [...withoutNetwork, process.execPath, ...args];
  return execFileSync(command, rest, {
    cwd: project,
    encoding: 'utf8',
    env: { ...process.env, FLASHINFER_DISABLE_JIT: '1', FLASHINFER_WORKSPACE_BASE: join(project, 'cache') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** What to put before a command that shall have no network; nothing where the system does not let us. */
function networkNamespace() {
  const prefix = ['unshare', '--map-root-user', '--net'];
  if (process.platform === 'linux' && spawnSync('unshare', [...prefix.slice(1), 'true']).status === 0) return prefix;
  console.warn('no network namespaces: programs run with the network they could do without');
  return [];
}

/** @param {string} project */
function useLanguages(project) {
  cpSync(join(root, 'scripts/consumer'), project, { recursive: true });
  /** @type {{ devDependencies: Record<string, string> }} */
  const { devDependencies } = JSON.parse(readText('package.json'));
  const tools = ['typescript', '@types/node'].map((name) => `${name}@${devDependencies[name]}`);
  run('npm', ['install', '--loglevel=error', '--prefer-offline', '--no-audit', '--no-fund', ...tools], project);
  run('npx', ['--no', '--loglevel=error', 'tsc'], project);
  for (const file of ['esm.mjs', 'commonjs.cjs', 'typescript.mjs']) console.log(runOffline(project, file).trim());
}

/**
 * The examples of a README are programs.
 * @param {string} file
 * @param {string} project
 */
function runReadme(file, project) {
  const programs = [...readText(file).matchAll(/```js\n([\s\S]*?)```/g)].map((match) => match[1] ?? '');
  if (programs.length === 0) throw new Error(`check-package: ${file} has no example`);
  for (const program of programs) {
    writeFileSync(join(project, 'readme.mjs'), program);
    runOffline(project, 'readme.mjs');
    console.log(`example of ${file}: ok`);
  }
}

/**
 * @param {string} project
 * @param {string[]} args
 */
function flashinfer(project, ...args) {
  return runOffline(project, 'node_modules/@flashinfer/core/bin/flashinfer.js', ...args);
}

/**
 * @param {string} project
 * @param {{ cubin: boolean, jitCache: boolean }} installed
 */
function expectVersions(project, installed) {
  const { addon, versions } = JSON.parse(flashinfer(project, 'show-config', '--json'));
  const found = { cubin: versions.cubin !== null, jitCache: versions.jitCache !== null };
  if (addon.loaded && versions.match && JSON.stringify(found) === JSON.stringify(installed)) return;
  throw new Error(`check-package: ${project}: show-config finds ${JSON.stringify({ ...addon, ...versions })}`);
}

/**
 * Without the package of this platform, the core names it.
 * @param {string} project
 */
function expectMissingAddon(project) {
  const name = packageName(`${process.platform}-${process.arch}`);
  rmSync(join(project, 'node_modules', name), { recursive: true });
  const { addon, versions } = JSON.parse(flashinfer(project, 'show-config', '--json'));
  if (!addon.loaded && addon.error.includes(`npm install ${name}@${versions.core}`)) return;
  throw new Error(`check-package: ${project}: without ${name}, show-config finds ${JSON.stringify(addon)}`);
}

/**
 * @param {string} project
 * @param {string} origin
 */
function expectKernels(project, origin) {
  /** @type {{ target: string, uri: string, origin: string | null }[]} */
  const rows = JSON.parse(flashinfer(project, 'module-status', '--arch', arch, '--json'));
  const wanted = rows.filter(({ uri }) => uri.includes(family));
  if (wanted.length === 0 || wanted.some((row) => row.origin !== origin || row.target !== target)) {
    throw new Error(`check-package: ${project}: expected kernels of ${origin}, found ${JSON.stringify(wanted)}`);
  }
  const { versions } = JSON.parse(flashinfer(project, 'show-config', '--json'));
  const part = `@flashinfer/cubin-${target.replace('_', '')}`;
  if (part in versions.cubinArchs !== (origin === 'cubin')) {
    throw new Error(`check-package: ${project}: show-config finds ${JSON.stringify(versions)}, not what is installed`);
  }
  console.log(`${basename(project)}: ${wanted.length} kernels of ${target} are found in ${origin}`);
}
