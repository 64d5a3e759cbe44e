// SPDX-License-Identifier: Apache-2.0
// What a run on the GPU needs, what of it is missing on this machine, and how to get it.
import { join } from 'node:path';
import { type EnvVar, envVars } from '../envVars.ts';
import { archPackage, findAddOn, isSameVersion } from '../jit/addOns.ts';
import { knownTargets, namedTarget, parseTarget } from '../jit/arch.ts';
import { listFolder } from '../jit/compilers/cudaHomes.ts';
import type { Config } from '../showConfig.ts';

export interface Finding {
  readonly what: string;
  /** `missing` stops a run on the GPU; `warning` does not. */
  readonly state: 'ok' | 'warning' | 'missing';
  readonly found: string;
  /** What to do about it. */
  readonly fix?: string;
}

/** Add-on packages that hold kernels for these GPUs: in a checkout they are empty until they are built. */
function packagesWithKernels({ gpus }: Config): string[] {
  const folders = {
    '@flashinfer/cubin': 'cubins',
    '@flashinfer/jit-cache': 'modules',
    ...Object.fromEntries(gpus.flatMap(({ sm }) => (isKnown(sm) ? [[archPackage(namedTarget(sm)), 'cubins']] : []))),
  };
  return Object.entries(folders).flatMap(([name, folder]) => {
    const addOn = findAddOn(name);
    return addOn !== undefined && listFolder(join(addOn.root, folder)).length > 0 ? [name] : [];
  });
}

function isKnown(sm: string): boolean {
  return knownTargets().some((target) => parseTarget(target).sm === Number(sm.slice(3)));
}

/** A function of what it is given, so that every machine can be tested on one. */
export function diagnose(config: Config, packages: readonly string[] = packagesWithKernels(config)): Finding[] {
  return [
    addon(config),
    driver(config),
    gpu(config),
    kernels(config, packages),
    cache(config, packages),
    versions(config),
    variables(config),
  ];
}

function addon({ addon: { loaded, path, error } }: Config): Finding {
  if (loaded) return { what: 'addon', state: 'ok', found: path ?? 'loaded' };
  const fix = 'install the package of this platform, or build it: npx flashinfer build-addon';
  return { what: 'addon', state: 'missing', found: error ?? 'not loaded', fix };
}

function driver({ cuda }: Config): Finding {
  const what = 'CUDA driver';
  if (cuda.driver?.ok) return { what, state: 'ok', found: cuda.driver.library ?? 'loaded' };
  const fix = 'install the NVIDIA driver; in a container start it with the GPU (docker run --gpus all)';
  return { what, state: 'missing', found: cuda.driver?.error ?? 'not looked for: the addon is missing', fix };
}

function gpu({ gpus, cuda }: Config): Finding {
  const what = 'GPU';
  const old = gpus.find(({ major, minor }) => major * 10 + minor < 75);
  if (gpus.length > 0 && old === undefined)
    return { what, state: 'ok', found: gpus.map(({ name, sm }) => `${name} ${sm}`).join(', ') };
  if (old !== undefined) {
    const fix =
      'use a GPU of compute capability 7.5 or newer, choose it with CUDA_VISIBLE_DEVICES, or use the cpu device';
    return { what, state: 'missing', found: `${old.name} is ${old.sm}`, fix };
  }
  const fix = cuda.driver?.ok ? 'check CUDA_VISIBLE_DEVICES and nvidia-smi' : 'the driver comes first';
  return { what, state: 'missing', found: 'none; the cpu device works', fix };
}

/** Where kernels come from: what could compile them, and what has them compiled. */
function sources(config: Config, packages: readonly string[]): { compilers: string[]; compiled: string[] } {
  const { cuda, modules, cubins } = config;
  const isSet = ({ name, parse }: EnvVar<boolean>) => parse(given(config, name) ?? '0') === true;
  const compilers = [cuda.nvrtc, cuda.nvcc]
    .filter((probe) => probe?.release !== undefined && !isSet(envVars.disableJit))
    .map((probe) => `${probe?.path}`);
  // Also those that install-jit-cache unpacked, that were downloaded before, and of FLASHINFER_CUBIN_DIR.
  const count = (modules ?? []).reduce((sum, { compiled }) => sum + compiled, 0);
  const repository = given(config, envVars.cubinsRepository.name);
  const canDownload = repository !== null && (cubins?.total ?? 0) > 0 && !isSet(envVars.noDownload);
  return {
    compilers,
    compiled: [
      ...packages,
      ...(count > 0 ? [`${count} compiled kernels`] : []),
      ...(canDownload ? [`downloads from ${repository}`] : []),
    ],
  };
}

function given({ environment }: Config, name: string): string | null {
  return environment.find((each) => each.name === name)?.value ?? null;
}

function kernels(config: Config, packages: readonly string[]): Finding {
  const what = 'kernels';
  const { compilers, compiled } = sources(config, packages);
  if (compilers.length + compiled.length > 0)
    return { what, state: 'ok', found: [...compilers, ...compiled].join(', ') };
  const fix =
    'install @flashinfer/cubin, run flashinfer install-jit-cache, set FLASHINFER_CUBINS_REPOSITORY, or install the CUDA ' +
    'toolkit, or its NVRTC alone, and set CUDA_HOME; FLASHINFER_DISABLE_JIT must not be set for the last two';
  return { what, state: 'missing', found: 'no compiler that may be used and no compiled kernels', fix };
}

function cache(config: Config, packages: readonly string[]): Finding {
  const what = 'kernel cache';
  // What is compiled already needs no cache.
  const state = sources(config, packages).compiled.length > 0 ? 'warning' : 'missing';
  if (config.cache === null) return { what, state, found: 'a variable is not valid', fix: 'correct the variables' };
  const { path, writable } = config.cache;
  if (writable) return { what, state: 'ok', found: path };
  const fix = 'set FLASHINFER_WORKSPACE_BASE to a folder that this user may write; kernels are compiled into it';
  return { what, state, found: `${path} cannot be written`, fix };
}

function versions({ versions: { core, cubin, cubinArchs, jitCache, match } }: Config): Finding {
  const what = 'versions';
  const addOns = { '@flashinfer/cubin': cubin, ...cubinArchs, '@flashinfer/jit-cache': jitCache };
  const named = Object.entries(addOns).map(([name, version]) => `${name} ${version ?? 'not installed'}`);
  const found = [`@flashinfer/core ${core}`, ...named].join(', ');
  if (match) return { what, state: 'ok', found };
  const others = Object.entries(addOns).filter(([, version]) => version !== null && !isSameVersion(version, core));
  return { what, state: 'missing', found, fix: `npm install ${others.map(([name]) => `${name}@${core}`).join(' ')}` };
}

function variables({ environment }: Config): Finding {
  const what = 'environment';
  const invalid = environment.filter(({ valid }) => !valid);
  if (invalid.length === 0) return { what, state: 'ok', found: 'every variable that is set is valid' };
  const fix = invalid.map(({ name, type }) => `${name}: expected ${type}`).join('; ');
  return { what, state: 'missing', found: invalid.map(({ name, value }) => `${name}=${value}`).join(', '), fix };
}
