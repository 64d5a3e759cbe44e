// SPDX-License-Identifier: Apache-2.0
// Compiles kernels into a folder in the form that packages and downloads have.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants } from 'node:zlib';
import type { Target } from '../arch.ts';
import type { Compiled, Compiler } from '../compilers/compiler.ts';
import type { JitConfig } from '../config.ts';
import { sha256 } from '../entry.ts';
import { parallelJobs, runParallel } from '../jobs.ts';
import { moduleKey } from '../key.ts';
import type { KernelSpec } from '../spec.ts';
import {
  type PrebuiltManifest,
  type PrebuiltModule,
  packedName,
  prebuiltManifestFile,
  prebuiltSchema,
  readPrebuiltManifest,
} from './manifest.ts';

export interface PrebuildRequest {
  /** Gets a folder for the target. */
  readonly folder: string;
  readonly target: Target;
  readonly specs: readonly KernelSpec[];
  readonly compiler: Compiler;
  readonly config: JitConfig;
  readonly compile: (spec: KernelSpec, signal: AbortSignal) => Promise<Compiled>;
  readonly onProgress?: (progress: { done: number; total: number; name: string; reused: boolean }) => void;
  readonly signal?: AbortSignal;
}

/**
 * Compiles what the folder does not have yet and removes what is no longer listed. Same sources and compiler, same bytes:
 * nothing in it tells when or where it was built. An interrupted build keeps what is done.
 */
export async function prebuild(request: PrebuildRequest): Promise<PrebuiltManifest> {
  const { target, specs, compiler, config, onProgress } = request;
  const folder = join(request.folder, target);
  mkdirSync(folder, { recursive: true });
  const previous = reusable(request);
  const modules: Record<string, PrebuiltModule> = {};
  const tasks = new Map(specs.map((spec) => [moduleKey(spec, config).uri, spec]));
  let done = 0;
  try {
    await runParallel([...tasks], parallelJobs(tasks.size), request.signal, async ([uri, spec], signal) => {
      const known = previous[uri];
      const reused = known !== undefined && isIntact(join(folder, packedName(uri)), known);
      modules[uri] = reused ? known : await pack(join(folder, packedName(uri)), await request.compile(spec, signal));
      onProgress?.({ done: ++done, total: tasks.size, name: spec.name, reused });
    });
  } finally {
    writeManifest(folder, { ...previous, ...modules }, request);
  }
  const listed = new Set([prebuiltManifestFile, ...Object.keys(modules).map(packedName)]);
  for (const name of readdirSync(folder)) if (!listed.has(name)) rmSync(join(folder, name));
  return writeManifest(folder, modules, { target, compiler, config });
}

/** Modules of an earlier build by the same compiler. */
function reusable({ folder, target, compiler, config }: PrebuildRequest): PrebuiltManifest['modules'] {
  const manifest = readPrebuiltManifest(folder, target);
  if (manifest === 'absent' || manifest === undefined) return {};
  const same = manifest.version === config.libraryVersion && manifest.compiler.release === compiler.release;
  return same && manifest.compiler.kind === compiler.kind ? manifest.modules : {};
}

function isIntact(path: string, { packedSha256 }: PrebuiltModule): boolean {
  return existsSync(path) && sha256(readFileSync(path)) === packedSha256;
}

const compress = promisify(brotliCompress);

async function pack(path: string, { cubin }: Compiled): Promise<PrebuiltModule> {
  const params = { [constants.BROTLI_PARAM_SIZE_HINT]: cubin.byteLength };
  const packed = await compress(cubin, { params });
  writeFileSync(`${path}.new`, packed);
  renameSync(`${path}.new`, path);
  return {
    bytes: cubin.byteLength,
    sha256: sha256(cubin),
    packedBytes: packed.byteLength,
    packedSha256: sha256(packed),
  };
}

function writeManifest(
  folder: string,
  modules: Readonly<Record<string, PrebuiltModule>>,
  { target, compiler, config }: Pick<PrebuildRequest, 'target' | 'compiler' | 'config'>,
): PrebuiltManifest {
  const uris = Object.keys(modules).sort();
  const manifest: PrebuiltManifest = {
    schema: prebuiltSchema,
    version: config.libraryVersion,
    target,
    compiler: { kind: compiler.kind, release: compiler.release },
    sourceHash: sha256(uris.join('\n')),
    modules: Object.fromEntries(uris.map((uri) => [uri, modules[uri]!])),
  };
  const path = join(folder, prebuiltManifestFile);
  writeFileSync(`${path}.new`, `${JSON.stringify(manifest, undefined, 1)}\n`);
  renameSync(`${path}.new`, path);
  return manifest;
}
