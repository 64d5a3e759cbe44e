// SPDX-License-Identifier: Apache-2.0
// A compiler that makes the header of a cubin, and counts how often it is asked.
import { parseTarget, type Target } from '../../src/jit/arch.ts';
import type { Compiler } from '../../src/jit/compilers/compiler.ts';
import { stubCubin } from '../native/fakeCuda/fakeToolkit.ts';

export function stubCompiler(): Compiler & { compilations: number } {
  const stub = {
    kind: 'nvcc' as const,
    release: '13.0',
    path: '/stub/nvcc',
    compilations: 0,
    command: () => 'nvcc',
    compile: ({ target }: { target: Target }) => {
      const compiled = () => {
        stub.compilations++;
        return { cubin: stubCompiler.cubin(target), log: '' };
      };
      return { sync: compiled, async: async () => compiled() };
    },
  };
  return stub;
}

stubCompiler.cubin = (target: Target): Buffer => stubCubin(parseTarget(target).sm);
