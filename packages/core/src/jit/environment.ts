// SPDX-License-Identifier: Apache-2.0
import { KernelCache } from './cache.ts';
import { compilerRelease, findCompiler } from './compilers/select.ts';
import { jitConfig } from './config.ts';
import type { JitEnvironment } from './resolve.ts';
import { kernelSources } from './sources.ts';

/** What the environment variables and installed packages say now. */
export function jitEnvironment(): JitEnvironment {
  const config = jitConfig();
  return {
    config,
    cache: new KernelCache(config.cacheRoot),
    sources: kernelSources(config),
    findCompiler,
    compilerRelease,
  };
}
