// SPDX-License-Identifier: Apache-2.0
// Puts together what @flashinfer/core publishes, in packages/core/build/package: the bundle and the addon, and from the
// root the kernel headers, which the JIT compiles at the user's, and the addon's sources. Runs before `pnpm pack`.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './repository.mjs';

const core = join(root, 'packages/core');
const stage = join(core, 'build/package');
const prebuild = join('prebuilds', `${process.platform}-${process.arch}`);

rmSync(stage, { recursive: true, force: true });
mkdirSync(join(stage, prebuild), { recursive: true });
for (const name of ['bin', 'dist', 'README.md', 'CMakeLists.txt']) copy(join(core, name), name);
for (const name of ['include', 'csrc', 'LICENSE']) copy(join(root, name), name);
if (existsSync(join(core, 'prebuilds'))) copy(join(core, 'prebuilds'), 'prebuilds'); // of other platforms
copy(join(core, 'build/Release/flashinfer.node'), join(prebuild, 'flashinfer.node'));
const pinned = pinnedManifests();
if (Object.keys(pinned).length > 0) writeFileSync(join(stage, 'cubins.json'), JSON.stringify(pinned));
writeFileSync(join(stage, 'package.json'), `${JSON.stringify(publishedManifest(), null, 2)}\n`);

/**
 * @param {string} from
 * @param {string} to
 */
function copy(from, to) {
  if (!existsSync(from)) throw new Error(`stage-core: ${from} is missing; run pnpm build first`);
  cpSync(from, join(stage, to), { recursive: true });
}

/** What the core accepts from repositories: the manifest of each architecture that was built into @flashinfer/cubin. */
function pinnedManifests() {
  const cubins = join(root, 'packages/cubin/cubins');
  const targets = existsSync(cubins) ? readdirSync(cubins).sort() : [];
  return Object.fromEntries(
    targets.map((target) => {
      const content = readFileSync(join(cubins, target, 'manifest.json'));
      return [target, { bytes: content.byteLength, sha256: createHash('sha256').update(content).digest('hex') }];
    }),
  );
}

/** The manifest with the scripts and tools that mean something at the user's: building the addon from source. */
function publishedManifest() {
  const { scripts, devDependencies, publishConfig, ...manifest } = JSON.parse(
    readFileSync(join(core, 'package.json'), 'utf8'),
  );
  const buildTools = ['cmake-js', 'node-addon-api', 'node-api-headers'];
  return {
    ...manifest,
    scripts: { 'build:addon': scripts['build:addon'] },
    devDependencies: Object.fromEntries(buildTools.map((name) => [name, devDependencies[name]])),
    publishConfig: { access: publishConfig.access },
  };
}
