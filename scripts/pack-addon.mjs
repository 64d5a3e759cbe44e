// SPDX-License-Identifier: Apache-2.0
// Packs a built addon as the package of its platform: `node scripts/pack-addon.mjs linux-x64` takes what
// `pnpm run build:addon` built here; --addon names the file of a cross-build. Nothing runs when npm installs it.
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { addonProblems } from './addon-format.mjs';
import { crossBuiltAddon, packageName, platforms } from './platforms.mjs';
import { root } from './repository.mjs';
import { packTarball, writeManifest } from './tarball.mjs';

const here = `${process.platform}-${process.arch}`;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    addon: { type: 'string' },
    output: { type: 'string', default: join(root, 'build/packages') },
  },
});

const [platform = here] = positionals;
const described = platforms[platform];
if (!described) throw new Error(`pack-addon: ${platform}; expected ${Object.keys(platforms).join(', ')}`);
const addon = resolve(values.addon ?? builtAddon(platform));
if (!existsSync(addon)) throw new Error(`pack-addon: ${addon} is missing; build it first`);
const { version, license, engines, publishConfig } = JSON.parse(
  readFileSync(join(root, 'packages/core/package.json'), 'utf8'),
);
const problems = addonProblems(addon, platform, version);
if (problems.length > 0) throw new Error(`pack-addon: ${problems.join('; ')}`);

await packTarball(values.output, `flashinfer-core-${platform}-${version}.tgz`, (folder) => {
  const name = packageName(platform);
  const description = `The native addon of @flashinfer/core for ${platform}`;
  const { os, cpu, libc } = described;
  writeManifest(folder, {
    name,
    version,
    description,
    license,
    engines,
    os: [os],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
    // Yarn's zip archives cannot be opened by the system's loader.
    preferUnplugged: true,
    exports: { './flashinfer.node': './flashinfer.node', './package.json': './package.json' },
    files: ['flashinfer.node'],
    publishConfig: { access: publishConfig.access },
  });
  writeFileSync(
    join(folder, 'README.md'),
    `# ${name}\n\n${description}. npm installs it with @flashinfer/core, whose version it has; do not install it by itself.\n`,
  );
  cpSync(addon, join(folder, 'flashinfer.node'));
});

/** @param {string} platform */
function builtAddon(platform) {
  return platform === here ? join(root, 'packages/core/build/Release/flashinfer.node') : crossBuiltAddon(platform);
}
