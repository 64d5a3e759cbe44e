// SPDX-License-Identifier: Apache-2.0
// Ahead-of-time compilation: the kernels that stand for all in checks, and compiling them for any architecture.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Target } from './jit/arch.ts';
import type { Compiled, Compiler } from './jit/compilers/compiler.ts';
import { jitConfig } from './jit/config.ts';
import { type PrebuildRequest, prebuild } from './jit/prebuilt/build.ts';
import type { PrebuiltManifest } from './jit/prebuilt/manifest.ts';
import { generateSource } from './jit/source.ts';
import type { KernelSpec } from './jit/spec.ts';
import { kernelFamilies } from './kernelFamilies.ts';

export { aotKernels, compilesFor } from './aotKernels.ts';
export { namedTarget } from './jit/arch.ts';
export { findNvcc, nvccCompiler } from './jit/compilers/nvcc.ts';

/** Every architecture kernels are compiled for before a release. */
export const allTargets: readonly Target[] = [
  'sm_75',
  'sm_80',
  'sm_86',
  'sm_87',
  'sm_88',
  'sm_89',
  'sm_90a',
  'sm_100a',
  'sm_103a',
  'sm_110a',
  'sm_120a',
  'sm_121a',
];

/** What the add-on packages are built for; sm_87 and sm_88 are left to the compiler of the boards that have them. */
export const prebuiltArchs: readonly string[] = ['75', '80', '86', '89', '90a', '100a', '103a', '110a', '120a', '121a'];

/** Every template, element type and option at least once, not every combination. */
export function representativeSpecs(): KernelSpec[] {
  return kernelFamilies.flatMap(({ samples }) => samples());
}

const released = { debug: false, lineInfo: false };

/** Compiles outside any cache. @throws CompilerFailure */
export async function compileSpec(
  compiler: Compiler,
  spec: KernelSpec,
  target: Target,
  signal?: AbortSignal,
): Promise<Compiled> {
  const folder = mkdtempSync(join(tmpdir(), 'flashinfer-aot-'));
  try {
    const { includeRoots } = jitConfig();
    const source = generateSource(spec);
    const sourcePath = join(folder, 'source.cu');
    writeFileSync(sourcePath, source);
    const unit = { name: spec.name, source, sourcePath, target, includeRoots, options: released };
    return await compiler.compile(unit).async(signal);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Compiles the kernels into `<folder>/<target>/`, as packages hold them; see {@link prebuild}. */
export function prebuildKernels(
  request: Pick<PrebuildRequest, 'folder' | 'target' | 'specs' | 'compiler' | 'onProgress' | 'signal'>,
): Promise<PrebuiltManifest> {
  const { compiler, target } = request;
  const config = { ...jitConfig(), codegen: released };
  return prebuild({ ...request, config, compile: (spec, signal) => compileSpec(compiler, spec, target, signal) });
}
