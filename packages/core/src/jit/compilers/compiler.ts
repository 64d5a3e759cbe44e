// SPDX-License-Identifier: Apache-2.0
import type { Target } from '../arch.ts';
import type { Step } from '../bothWays.ts';
import type { CodegenOptions } from '../flags.ts';

/** One translation unit to compile. */
export interface CompileUnit {
  readonly name: string;
  readonly source: string;
  /** The same source on disk, in a folder the compiler may write to. */
  readonly sourcePath: string;
  readonly target: Target;
  readonly includeRoots: readonly string[];
  readonly options: CodegenOptions;
}

export interface Compiled {
  readonly cubin: Uint8Array;
  readonly log: string;
}

export interface Compiler {
  readonly kind: 'nvcc' | 'nvrtc';
  /** CUDA release, e.g. '13.0'. nvcc and NVRTC of one release are one compiler, so their modules share entries. */
  readonly release: string;
  /** The program or library. */
  readonly path: string;
  /** @throws CompilerFailure */
  compile(unit: CompileUnit): Step<Compiled>;
  /** A shell command that repeats the compilation. */
  command(unit: CompileUnit): string;
}

/** The compiler ran and failed; becomes a CompileError once it is known where the source is kept. */
export class CompilerFailure extends Error {
  readonly log: string;
  constructor(message: string, log: string, options?: ErrorOptions) {
    super(message, options);
    this.log = log;
  }
}

const errorLine =
  /\b(?:fatal|catastrophic )?error\b\s*(?:[:#]|:)|\bNo space left on device\b|^nvcc fatal|^ptxas fatal|\bnvrtc: error\b/;

/** The first line of a compiler's output that names an error, as people look for it in a long log. */
export function firstError(log: string): string | undefined {
  return log
    .split(/\r?\n/)
    .find((line) => errorLine.test(line))
    ?.trim();
}

/** Quotes an argument for a POSIX shell, on Windows for cmd.exe. */
export function shellQuote(argument: string, platform: string = process.platform): string {
  if (platform === 'win32') return /^[\w@%+=:,./\\-]+$/.test(argument) ? argument : `"${argument}"`;
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}
