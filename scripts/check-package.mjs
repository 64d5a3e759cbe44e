// SPDX-License-Identifier: Apache-2.0
// Packs the published packages and looks at them as a user gets them: publint, "are the types wrong", the files inside,
// and an empty project that installs the tarballs and runs attention from ESM, CommonJS and TypeScript.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readText, root } from './repository.mjs';

const shell = process.platform === 'win32'; // npm, npx and pnpm are .cmd files there
const npx = ['--no', '--loglevel=error'];
const published = ['core', 'cubin', 'jit-cache'];
const work = mkdtempSync(join(tmpdir(), 'flashinfer-package-'));
try {
  const tarballs = published.map(pack);
  for (const tarball of tarballs) {
    checkContents(tarball);
    run('publint', ['run', tarball, '--strict'], root);
    run('attw', [tarball, '--profile', 'node16', '--quiet'], root);
  }
  useTarballs(tarballs);
  console.log(`ok: ${tarballs.length} packages install and work`);
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

/** @param {string} name */
function pack(name) {
  const folder = join(root, 'packages', name);
  const to = join(work, name);
  execFileSync('pnpm', ['pack', '--pack-destination', to], { cwd: folder, shell });
  const [tarball] = readdirSync(to);
  if (!tarball) throw new Error(`check-package: pnpm pack made no tarball of ${folder}`);
  return join(to, tarball);
}

/** @param {string} tarball */
function checkContents(tarball) {
  const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n');
  const required = ['package.json', 'README.md', 'LICENSE', 'dist/index.js', 'dist/index.cjs', 'dist/index.d.ts'];
  if (tarball.includes('core')) {
    required.push('bin/flashinfer.js', 'dist/cli.js', 'CMakeLists.txt', 'csrc/CMakeLists.txt', 'csrc/addon.cc');
    required.push('include/flashinfer/dtype.cuh');
    required.push(`prebuilds/${process.platform}-${process.arch}/flashinfer.node`);
  }
  const missing = required.filter((file) => !files.includes(`package/${file}`));
  const stray = files.filter((file) => /\/(test|src|node_modules|build|\.turbo)\/|\.tsbuildinfo$/.test(file));
  if (missing.length > 0) throw new Error(`check-package: ${tarball} lacks ${missing.join(', ')}`);
  if (stray.length > 0) throw new Error(`check-package: ${tarball} holds ${stray.join(', ')}`);
  console.log(`${files.length} files in ${tarball}`);
}

/** @param {string[]} tarballs */
function useTarballs(tarballs) {
  const project = join(work, 'project');
  cpSync(join(root, 'scripts/consumer'), project, { recursive: true });
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, version: '1.0.0' }));
  /** @type {{ devDependencies: Record<string, string> }} */
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const tools = ['typescript', '@types/node'].map((name) => `${name}@${devDependencies[name]}`);
  run('npm', ['install', '--loglevel=error', '--prefer-offline', ...tarballs, ...tools], project);
  run(process.execPath, ['esm.mjs'], project);
  run(process.execPath, ['commonjs.cjs'], project);
  run('npx', [...npx, 'tsc'], project);
  run(process.execPath, ['typescript.mjs'], project);
  runReadme('README.md', project);
  runReadme('packages/core/README.md', project);
  const output = execFileSync('npx', [...npx, 'flashinfer', 'show-config', '--json'], { cwd: project, shell });
  const { addon, versions } = JSON.parse(String(output));
  if (!addon.loaded || !versions.match || !versions.cubin || !versions.jitCache) {
    throw new Error(`check-package: show-config finds ${JSON.stringify({ ...addon, ...versions })}`);
  }
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
    execFileSync(process.execPath, ['readme.mjs'], { cwd: project, stdio: ['ignore', 'ignore', 'inherit'] });
    console.log(`example of ${file}: ok`);
  }
}
