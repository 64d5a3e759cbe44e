// SPDX-License-Identifier: Apache-2.0
// Every environment variable of the library, once: read by `env`, printed by `flashinfer show-config`.
import { InvalidArgumentError } from './errors.ts';

/** One environment variable. `default` is what `env` gives when the variable is unset or empty. */
export interface EnvVar<T> {
  readonly name: string;
  /** Accepted values, in words. */
  readonly type: string;
  readonly default: T;
  readonly doc: string;
  /** The value of a non-empty text, or undefined where it is not one of `type`. */
  readonly parse: (text: string) => T | undefined;
}

function flag(name: string, doc: string): EnvVar<boolean> {
  const values: Partial<Record<string, boolean>> = { '0': false, '1': true, false: false, true: true };
  return { name, type: '0 or 1', default: false, doc, parse: (text) => values[text.toLowerCase()] };
}

function text(name: string, type: string, doc: string): EnvVar<string | undefined> {
  return { name, type, default: undefined, doc, parse: (value) => value };
}

function positiveInteger(name: string, doc: string): EnvVar<number | undefined> {
  return {
    name,
    type: 'integer >= 1',
    default: undefined,
    doc,
    parse: (value) => (/^[1-9]\d{0,8}$/.test(value) ? Number(value) : undefined),
  };
}

/** 0 nothing, 1 names of the operators called, 3 their tensors and options, 5 statistics of the values too, which waits for the GPU. */
export type LogLevel = 0 | 1 | 3 | 5;
const logLevels: readonly LogLevel[] = [0, 1, 3, 5];

/** "7.5 8.0 9.0a" (spaces, commas or semicolons between) → ['75', '80', '90a']. */
function parseArchList(value: string): readonly string[] | undefined {
  const items = value.split(/[\s,;]+/).filter((item) => item !== '');
  const archs = items.map((item) => /^(\d{1,2})\.(\d)([af]?)$/.exec(item));
  if (archs.length === 0 || archs.includes(null)) return undefined;
  return archs.map((match) => `${match![1]}${match![2]}${match![3]}`);
}

function parseUrls(value: string): readonly string[] | undefined {
  const urls = value.split(/[\s,]+/).filter((item) => item !== '');
  return urls.every((url) => URL.canParse(url) && /^(https?|file):$/.test(new URL(url).protocol)) ? urls : undefined;
}

/** The table. Names are those of FlashInfer, so that a deployment's settings carry over. */
export const envVars = {
  workspaceBase: text(
    'FLASHINFER_WORKSPACE_BASE',
    'path',
    "Folder that holds the kernel cache `flashinfer/<version>/<arch>`. Default: the user's cache folder.",
  ),
  cudaArchList: {
    name: 'FLASHINFER_CUDA_ARCH_LIST',
    type: 'list of compute capabilities, e.g. "8.0 9.0a"',
    default: undefined,
    doc: 'Architectures to compile for. Default: those of the GPUs of this machine.',
    parse: parseArchList,
  } as EnvVar<readonly string[] | undefined>,
  cubinDir: text(
    'FLASHINFER_CUBIN_DIR',
    'path',
    'Folder of compiled kernels, a copy of the cubins folder of @flashinfer/cubin, searched before it.',
  ),
  cubinsRepository: {
    name: 'FLASHINFER_CUBINS_REPOSITORY',
    type: 'http, https or file URLs, separated by spaces or commas',
    default: [],
    doc: 'Where kernels that no package has are downloaded from: mirrors, asked in order. Default: nowhere.',
    parse: parseUrls,
  } as EnvVar<readonly string[]>,
  noDownload: flag('FLASHINFER_NO_DOWNLOAD', 'Never download; what was downloaded before is used.'),
  cubinDownloadThreads: positiveInteger(
    'FLASHINFER_CUBIN_DOWNLOAD_THREADS',
    'Most files that `flashinfer download-cubin` fetches at once. Default: 4.',
  ),
  disableVersionCheck: flag(
    'FLASHINFER_DISABLE_VERSION_CHECK',
    'Take the kernels of add-on packages of another version, where they did not change.',
  ),
  disableJit: flag('FLASHINFER_DISABLE_JIT', 'Never compile: a kernel that is in no cache or package is an error.'),
  logLevel: {
    name: 'FLASHINFER_LOGLEVEL',
    type: '0, 1, 3 or 5',
    default: 0,
    doc: 'What is logged of each call: 0 nothing, 1 names, 3 shapes and options, 5 statistics of the values too.',
    parse: (value) => logLevels.find((level) => String(level) === value),
  } as EnvVar<LogLevel>,
  logDest: {
    name: 'FLASHINFER_LOGDEST',
    type: 'stdout, stderr or a path',
    default: 'stderr',
    doc: 'Where log lines go; %i in a path becomes the process id.',
    parse: (value) => value,
  } as EnvVar<string>,
  jitVerbose: flag('FLASHINFER_JIT_VERBOSE', 'Print the compiler command and its whole output.'),
  jitDebug: flag('FLASHINFER_JIT_DEBUG', 'Compile kernels with debug information and without optimisation.'),
  jitLineInfo: flag('FLASHINFER_JIT_LINEINFO', 'Compile kernels with source lines for profilers; same speed.'),
  maxJobs: positiveInteger('MAX_JOBS', 'Most kernels compiled at once. Default: bounded by cores and free memory.'),
  cudaHome: text('CUDA_HOME', 'path', 'CUDA toolkit (nvcc, libnvrtc), tried first.'),
  cudaPath: text('CUDA_PATH', 'path', 'CUDA toolkit, tried when CUDA_HOME is unset.'),
  cxx: text(
    'CXX',
    'path or name',
    'C++ compiler for attention variants on the cpu. Default: c++, g++ or clang++ on PATH.',
  ),
  cudaRoot: text('CUDA_ROOT', 'path', 'CUDA toolkit, tried when CUDA_HOME and CUDA_PATH are unset.'),
} as const;

type Env = { readonly [K in keyof typeof envVars]: (typeof envVars)[K] extends EnvVar<infer T> ? T : never };

/**
 * Typed values of the variables, read from `process.env` at each access: keep what a hot path needs.
 *
 * @throws InvalidArgumentError `ERR_FLASHINFER_INVALID_ENV` when the variable holds something else than its type
 */
export const env: Env = /* @__PURE__ */ makeEnv();

function makeEnv(): Env {
  const values = {};
  for (const [key, variable] of Object.entries(envVars)) {
    Object.defineProperty(values, key, {
      enumerable: true,
      get: () => readEnvVar<unknown>(variable as EnvVar<unknown>),
    });
  }
  return values as Env;
}

function readEnvVar<T>(variable: EnvVar<T>): T {
  const given = process.env[variable.name]?.trim();
  if (given === undefined || given === '') return variable.default;
  const value = variable.parse(given);
  if (value !== undefined) return value;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ENV',
    `env: ${variable.name} is '${given}'; expected ${variable.type}; correct the variable or unset it`,
  );
}
