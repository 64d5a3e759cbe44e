// SPDX-License-Identifier: Apache-2.0
// Ahead-of-time compilation: the kernels that stand for all in checks, and compiling them for any architecture.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Target } from './jit/arch.ts';
import type { Compiled, Compiler } from './jit/compilers/compiler.ts';
import { jitConfig } from './jit/config.ts';
import { generateSource } from './jit/source.ts';
import type { KernelSpec } from './jit/spec.ts';
import { kernelFamilies } from './kernelFamilies.ts';

export { aotKernels, compilesFor } from './aotKernels.ts';
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

/** Every template, element type and option at least once, not every combination. */
export function representativeSpecs(): KernelSpec[] {
  return kernelFamilies.flatMap(({ samples }) => samples());
}

/** Compiles outside any cache. @throws CompilerFailure */
export async function compileSpec(compiler: Compiler, spec: KernelSpec, target: Target): Promise<Compiled> {
  const folder = mkdtempSync(join(tmpdir(), 'flashinfer-aot-'));
  try {
    const { includeRoots, codegen: options } = jitConfig();
    const source = generateSource(spec);
    const sourcePath = join(folder, 'source.cu');
    writeFileSync(sourcePath, source);
    const unit = { name: spec.name, source, sourcePath, target, includeRoots, options };
    return await compiler.compile(unit).async(undefined);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
