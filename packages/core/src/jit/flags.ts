// SPDX-License-Identifier: Apache-2.0
// Every switch kernels are compiled with, for both compilers; all of it is part of a module's key.
import type { Target } from './arch.ts';

export interface CodegenOptions {
  /** FLASHINFER_JIT_DEBUG: no optimisation, full device debug information. */
  readonly debug: boolean;
  /** FLASHINFER_JIT_LINEINFO: source lines for profilers; the code stays the same. */
  readonly lineInfo: boolean;
}

// No fast-math switches: what may be approximate is decided in the kernels, instruction by instruction.
// Both treat constexpr functions as callable on the device, and print registers and spills to the log.

export function nvccFlags(target: Target, options: CodegenOptions): string[] {
  return [
    '-cubin',
    `-arch=${target}`,
    '-std=c++17',
    '-DNDEBUG',
    // The include guard of libstdc++'s special functions: <cmath> brings them, no kernel calls one, and reading them is a sixth
    // of what nvcc does for a small kernel.
    '-D_GLIBCXX_BITS_SPECFUN_H',
    '--expt-relaxed-constexpr',
    ...(options.debug ? ['-O0', '-G'] : ['-O3']),
    ...(options.lineInfo && !options.debug ? ['-lineinfo'] : []),
    '-Xptxas=-v',
  ];
}

export function nvrtcFlags(target: Target, options: CodegenOptions): string[] {
  return [
    `-arch=${target}`,
    '-std=c++17',
    '-DNDEBUG',
    '-default-device',
    ...(options.debug ? ['-G'] : []),
    ...(options.lineInfo && !options.debug ? ['-lineinfo'] : []),
    '--ptxas-options=-v',
  ];
}
