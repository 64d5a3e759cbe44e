// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { aotKernels } from '../aotKernels.ts';
import { InvalidArgumentError } from '../errors.ts';
import { namedTarget, type Target } from '../jit/arch.ts';
import { findNvcc } from '../jit/compilers/nvcc.ts';
import { jitConfig } from '../jit/config.ts';
import { nvccFlags } from '../jit/flags.ts';
import { generateSource } from '../jit/source.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { formatCount, printJson } from './output.ts';

export function exportCompileCommandsCommand(): Command {
  return new Command('export-compile-commands')
    .description('writes the generated sources and compile_commands.json for editors and clangd')
    .argument('[folder]', 'where to write', 'flashinfer-sources')
    .option('--arch <arch>', 'architecture', '9.0a')
    .addOption(jsonOption('{ path, commands }, their number'))
    .action((folder: string, { arch, json }: JsonOption & { arch: string }) => {
      const { path, commands } = exportCompileCommands(resolve(folder), namedTarget(arch));
      if (json) printJson({ path, commands });
      else console.log(`Exported ${formatCount(commands, 'compile command')} to ${path}`);
    });
}

function exportCompileCommands(directory: string, target: Target): { path: string; commands: number } {
  if (directory.endsWith('.json')) throw notAFolder(directory, 'has the name of a file');
  const { includeRoots, codegen } = jitConfig();
  const compiler = findNvcc().path ?? 'nvcc';
  const kernels = aotKernels({ arch: target }).map((spec) => {
    const file = join(directory, `${spec.name}.cu`);
    const includes = includeRoots.map((root) => `-I${root}`);
    const output = `${spec.name}.cubin`;
    const command = [compiler, ...nvccFlags(target, codegen), ...includes, '-o', output, file];
    return { source: generateSource(spec), entry: { directory, file, output, arguments: command } };
  });
  const path = join(directory, 'compile_commands.json');
  try {
    mkdirSync(directory, { recursive: true });
    for (const { source, entry } of kernels) writeFileSync(entry.file, source);
    writeFileSync(
      path,
      `${JSON.stringify(
        kernels.map(({ entry }) => entry),
        undefined,
        1,
      )}\n`,
    );
  } catch (error) {
    throw notAFolder(directory, `cannot be written (${(error as Error).message})`, error);
  }
  return { path, commands: kernels.length };
}

function notAFolder(directory: string, problem: string, cause?: unknown): InvalidArgumentError {
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `export-compile-commands: ${directory} ${problem}; expected a folder for compile_commands.json and the sources, which is ` +
      'made where it is missing; name another one',
    { cause },
  );
}
