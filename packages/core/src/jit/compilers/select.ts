// SPDX-License-Identifier: Apache-2.0
import { CompileError } from '../../errors.ts';
import { releaseSupports, requiredRelease, type Target } from '../arch.ts';
import type { Compiler } from './compiler.ts';
import { findNvcc, nvccCompiler } from './nvcc.ts';
import { findNvrtc, nvrtcCompiler, nvrtcReleaseHint } from './nvrtc.ts';

/** NVRTC before nvcc: it needs no host compiler and starts in milliseconds. Undefined when neither knows the target. */
export function findCompiler(target: Target): Compiler | undefined {
  const nvrtc = findNvrtc();
  if (nvrtc.path !== undefined && nvrtc.release !== undefined && releaseSupports(nvrtc.release, target)) {
    return nvrtcCompiler(nvrtc.path, nvrtc.release);
  }
  const nvcc = findNvcc();
  if (nvcc.path !== undefined && nvcc.release !== undefined && releaseSupports(nvcc.release, target)) {
    return nvccCompiler(nvcc.path, nvcc.release);
  }
  return undefined;
}

/**
 * Release of the compiler that {@link findCompiler} is going to give, from file names where they tell it: a process that
 * finds all its kernels in the cache need not open NVRTC.
 */
export function compilerRelease(target: Target): string | undefined {
  const hint = nvrtcReleaseHint();
  return hint !== undefined && releaseSupports(hint, target) ? hint : findCompiler(target)?.release;
}

/** The error for when {@link findCompiler} found none: what each search saw, and the ways out. */
export function compilerNotFound(kernel: string, target: Target): CompileError {
  const needed = requiredRelease(target).toFixed(1);
  const describe = (probe: { path?: string; release?: string; error?: string; searched: readonly string[] }) =>
    probe.release === undefined
      ? `not found (${[probe.error, `looked in ${probe.searched.join(', ')}`].filter(Boolean).join('; ')})`
      : `${probe.path} of CUDA ${probe.release} does not know ${target}`;
  return new CompileError(
    'ERR_FLASHINFER_COMPILER_NOT_FOUND',
    `getKernel: ${kernel} must be compiled for ${target}, and no compiler can; expected NVRTC or nvcc of CUDA ${needed} ` +
      `or newer. NVRTC: ${describe(findNvrtc())}. nvcc: ${describe(findNvcc())}. Install the CUDA toolkit or its NVRTC ` +
      'alone and set CUDA_HOME, or install @flashinfer/jit-cache or @flashinfer/cubin, whose kernels are compiled already.',
  );
}
