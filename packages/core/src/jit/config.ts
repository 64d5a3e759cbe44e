// SPDX-License-Identifier: Apache-2.0
// The JIT's settings, read from the environment when asked for.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { env } from '../envVars.ts';
import { packageRoot, packageVersion } from '../packageRoot.ts';
import { formatTarget, parseTarget, type Target } from './arch.ts';
import { type PinnedManifests, readPinnedManifests } from './download/pinnedManifests.ts';
import type { CodegenOptions } from './flags.ts';
import { homeFolder, userCacheHome } from './userCacheHome.ts';

export interface JitConfig {
  /** `<workspace base>/flashinfer/<version>`; modules lie in `<arch>/<uri>/` below. */
  readonly cacheRoot: string;
  /** Folders searched for headers, the library's own first. */
  readonly includeRoots: readonly string[];
  readonly codegen: CodegenOptions;
  /** FLASHINFER_DISABLE_JIT: never compile. */
  readonly disableJit: boolean;
  /** FLASHINFER_JIT_VERBOSE: log commands and compiler output. */
  readonly verbose: boolean;
  /** FLASHINFER_CUDA_ARCH_LIST; empty: the GPU's own architecture. */
  readonly archList: readonly Target[];
  /** FLASHINFER_CUBIN_DIR, searched before @flashinfer/cubin. */
  readonly cubinDir: string | undefined;
  readonly libraryVersion: string;
  /** FLASHINFER_CUBINS_REPOSITORY. */
  readonly repositories: readonly string[];
  /** FLASHINFER_NO_DOWNLOAD. */
  readonly noDownload: boolean;
  /** What this version of the core accepts from repositories. */
  readonly pinnedManifests: PinnedManifests;
  /** FLASHINFER_DISABLE_VERSION_CHECK. */
  readonly disableVersionCheck: boolean;
}

export function jitConfig(): JitConfig {
  const version = packageVersion();
  return {
    cacheRoot: join(
      env.workspaceBase ?? userCacheHome(process.platform, process.env, homeFolder()),
      'flashinfer',
      version,
    ),
    includeRoots: [includeRoot()],
    codegen: { debug: env.jitDebug, lineInfo: env.jitLineInfo },
    disableJit: env.disableJit,
    verbose: env.jitVerbose,
    archList: (env.cudaArchList ?? []).map((arch) => formatTarget(parseTarget(arch))),
    cubinDir: env.cubinDir,
    libraryVersion: version,
    repositories: env.cubinsRepository,
    noDownload: env.noDownload,
    pinnedManifests: readPinnedManifests(),
    disableVersionCheck: env.disableVersionCheck,
  };
}

/** Kernel headers: inside the published package, at the top of the repository in a checkout. */
function includeRoot(): string {
  const published = join(packageRoot(), 'include');
  return existsSync(published) ? published : join(packageRoot(), '..', '..', 'include');
}
