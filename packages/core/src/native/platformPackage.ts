// SPDX-License-Identifier: Apache-2.0
// The package that carries the addon of one platform, an optional dependency of the core: npm installs the one that fits.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** What `process` says of the machine, so that every platform can be tested on one. */
export interface Platform {
  readonly platform: string;
  readonly arch: string;
  /** C library on Linux. */
  readonly libc?: 'glibc' | 'musl';
}

export interface PlatformPackage {
  readonly name: string;
  readonly version: string;
  /** The addon in it. */
  readonly path: string;
}

/** The platform this process runs on. Looks into a diagnostic report, which takes milliseconds: for messages. */
export function currentPlatform(): Platform {
  const { platform, arch } = process;
  if (platform !== 'linux') return { platform, arch };
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return { platform, arch, libc: header.glibcVersionRuntime === undefined ? 'musl' : 'glibc' };
}

export function platformPackageName({ platform, arch }: Platform = process): string {
  return `@flashinfer/core-${platform}-${arch}`;
}

/** The installed package of this platform as the core in `root` sees it. */
export function findPlatformPackage(root: string, name: string = platformPackageName()): PlatformPackage | undefined {
  try {
    const manifest = createRequire(join(root, 'package.json')).resolve(`${name}/package.json`);
    const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
    return { name, version, path: join(dirname(manifest), 'flashinfer.node') };
  } catch {
    return undefined;
  }
}

/** How to get an addon where none loads. */
export function addonFix(root: string, version: string, where: Platform): string {
  const name = platformPackageName(where);
  const build = 'build it with `npx flashinfer build-addon` (needs CMake 3.19 and a C++17 compiler)';
  const published = publishedPackages(root);
  if (published.length === 0) return `${build}: this is a checkout, and no package carries its addon`;
  const target = `${where.platform}-${where.arch}${where.libc === 'musl' ? ' with musl' : ''}`;
  if (!published.includes(name) || where.libc === 'musl') {
    return `none is published for ${target}, only ${published.join(', ')} (those for Linux with glibc); ${build}`;
  }
  return (
    `install it with \`npm install ${name}@${version}\` (it is missing where optional dependencies were left out, or ` +
    `node_modules or the lock file came from another platform), or ${build}`
  );
}

/** Packages that this release of the core names; none in a checkout, where they are written into what is packed. */
function publishedPackages(root: string): string[] {
  const manifest = join(root, 'package.json');
  if (!existsSync(manifest)) return [];
  const { optionalDependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8')) as {
    optionalDependencies?: Record<string, string>;
  };
  return Object.keys(optionalDependencies).filter((name) => name.startsWith('@flashinfer/core-'));
}
