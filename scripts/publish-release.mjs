// SPDX-License-Identifier: Apache-2.0
// Publishes the tarballs of build/release, the core last, so that what it names is there: `node scripts/publish-release.mjs
// --tag latest`. A version that the registry has is passed over: an interrupted release is published by running it again.
// Arguments after -- go to npm, e.g. `-- --provenance`. Tarballs of one CUDA version (+cu130) are downloads, not npm's.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { manifestIn, releaseProblems, tarballsIn } from './packing.mjs';
import { platformDependencies } from './platforms.mjs';
import { root } from './repository.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    release: { type: 'string', default: join(root, 'build/release') },
    tag: { type: 'string' },
  },
});
const shell = process.platform === 'win32'; // npm is a .cmd file there
const folder = resolve(values.release);
const tarballs = tarballsIn(folder);
const released = tarballs
  .map((tarball) => ({ tarball, ...manifestIn(tarball) }))
  .filter(({ version }) => !version.includes('+'))
  .sort((a, b) => Number(a.name === '@flashinfer/core') - Number(b.name === '@flashinfer/core'));
checkRelease();
for (const { tarball, name, version } of released) {
  if (isPublished(`${name}@${version}`)) console.log(`${name}@${version} is published already`);
  else {
    const args = ['publish', tarball, '--access', 'public', '--tag', values.tag ?? '', ...positionals];
    execFileSync('npm', args, { stdio: 'inherit', shell });
    console.log(`${name}@${version}: published`);
  }
}

/** Nothing is published unless all of it can be, and is what was packed. */
function checkRelease() {
  const core = released.at(-1);
  if (core?.name !== '@flashinfer/core') throw new Error(`publish-release: ${folder} does not hold @flashinfer/core`);
  const prerelease = core.version.includes('-');
  if (values.tag === undefined || prerelease !== (values.tag !== 'latest')) {
    throw new Error(
      `publish-release: --tag ${values.tag} for ${core.version}; expected ${prerelease ? 'a tag such as nightly' : 'latest'}`,
    );
  }
  const names = new Set(released.map(({ name }) => name));
  const missing = Object.keys(platformDependencies(core.version)).filter((name) => !names.has(name));
  const problems = [
    ...missing.map((name) => `${name} is missing, which the core names`),
    ...releaseProblems(tarballs),
    ...changedSince(join(folder, 'SHA256SUMS')),
  ];
  if (problems.length > 0) throw new Error(`publish-release: ${problems.join('; ')}`);
}

/** @param {string} sums */
function changedSince(sums) {
  const expected = new Map(
    readFileSync(sums, 'utf8')
      .trim()
      .split('\n')
      .map((line) => [line.slice(66), line.slice(0, 64)]),
  );
  return tarballs
    .filter((tarball) => {
      const sum = createHash('sha256').update(readFileSync(tarball)).digest('hex');
      return expected.get(basename(tarball)) !== sum;
    })
    .map((tarball) => `${basename(tarball)} is not what SHA256SUMS names`);
}

/**
 * Only the registry's "not found" means that it is not there.
 * @param {string} spec
 */
function isPublished(spec) {
  const { status, stdout } = spawnSync('npm', ['view', spec, 'version', '--json'], { encoding: 'utf8', shell });
  if (status === 0) return stdout.trim() !== '';
  if (/"code":\s*"E404"/.test(stdout)) return false;
  throw new Error(`publish-release: npm view ${spec} ended with ${status}: ${stdout}`);
}
