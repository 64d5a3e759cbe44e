// SPDX-License-Identifier: Apache-2.0
// Sets the version of every package to that of a nightly build, `0.2.0-nightly.20261121.1a2b3c4`: the version the changesets
// lead to, the day, the commit. Nothing to publish where there are no changesets. --print shows what follows the version.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { manifestOf, publishedFolders } from './packing.mjs';
import { root } from './repository.mjs';

const { values } = parseArgs({
  options: {
    date: { type: 'string', default: new Date().toISOString().slice(0, 10) },
    commit: { type: 'string' },
    print: { type: 'boolean', default: false },
  },
});
const commit = values.commit ?? execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
const build = `${day(values.date)}.${shortCommit(commit)}`;
const suffix = `nightly.${build}`;
if (values.print) console.log(suffix);
else setVersion();

function setVersion() {
  const changesets = readdirSync(join(root, '.changeset')).filter(
    (name) => name.endsWith('.md') && name !== 'README.md',
  );
  if (changesets.length === 0)
    throw new Error('nightly-version: no changesets since the last release; nothing to publish');
  const bin = join(root, 'node_modules/@changesets/cli/bin.js');
  const args = ['version', '--snapshot', 'nightly', '--snapshot-prerelease-template', `{tag}.${build}`];
  execFileSync(process.execPath, [bin, ...args], { cwd: root, stdio: 'inherit' });
  const versions = new Set(publishedFolders().map((name) => manifestOf(name).version));
  const [version = ''] = versions;
  if (versions.size !== 1 || !version.endsWith(`-${suffix}`)) {
    throw new Error(
      `nightly-version: the packages have ${[...versions].join(', ')}; expected one version with ${suffix}`,
    );
  }
  if (!existsSync(join(root, 'packages/core/CHANGELOG.md')))
    throw new Error('nightly-version: no CHANGELOG.md was written');
  console.log(version);
}

/** @param {string} date */
function day(date) {
  const match = /^(\d{4})-?(\d{2})-?(\d{2})$/.exec(date);
  if (!match) throw new Error(`nightly-version: --date ${date}; expected YYYY-MM-DD`);
  return match.slice(1).join('');
}

/**
 * Seven characters, more where they are digits that start with 0: semver allows no such number.
 * @param {string} hash
 */
function shortCommit(hash) {
  if (!/^[0-9a-f]{7,40}$/.test(hash)) throw new Error(`nightly-version: --commit ${hash}; expected a commit`);
  let length = 7;
  while (length < hash.length && /^0\d*$/.test(hash.slice(0, length))) length++;
  return hash.slice(0, length);
}
