// SPDX-License-Identifier: Apache-2.0
// Puts together what @flashinfer/core publishes, in packages/core/build/package: the bundle, and from the root the kernel
// headers, which the JIT compiles at the user's, and the addon's sources. The addon itself comes in the packages that
// scripts/pack-addon.mjs makes. Runs before `pnpm pack`.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { platformDependencies } from './platforms.mjs';
import { root } from './repository.mjs';

const core = join(root, 'packages/core');
const stage = join(core, 'build/package');

rmSync(stage, { recursive: true, force: true });
mkdirSync(stage, { recursive: true });
for (const name of ['bin', 'dist', 'README.md', 'CMakeLists.txt']) copy(join(core, name), name);
for (const name of ['include', 'csrc', 'LICENSE']) copy(join(root, name), name);
// Written when a version is made; a checkout has none before the first.
if (existsSync(join(core, 'CHANGELOG.md'))) copy(join(core, 'CHANGELOG.md'), 'CHANGELOG.md');
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
      const sha256 = createHash('sha256').update(content).digest('hex');
      const modules = Object.keys(JSON.parse(content.toString('utf8')).modules).length;
      return [target, { bytes: content.byteLength, sha256, modules }];
    }),
  );
}

/** The manifest with what means something at the user's: the addon's packages, and the tools that build it from source. */
function publishedManifest() {
  const { scripts, devDependencies, publishConfig, ...manifest } = JSON.parse(
    readFileSync(join(core, 'package.json'), 'utf8'),
  );
  const buildTools = ['cmake-js', 'node-addon-api', 'node-api-headers'];
  return {
    ...manifest,
    optionalDependencies: platformDependencies(manifest.version),
    devDependencies: Object.fromEntries(buildTools.map((name) => [name, devDependencies[name]])),
    publishConfig: { access: publishConfig.access },
  };
}
