// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { aotKernels } from '../aotKernels.ts';
import { namedTarget } from '../jit/arch.ts';
import { findNvcc } from '../jit/compilers/nvcc.ts';
import { jitConfig } from '../jit/config.ts';
import { nvccFlags } from '../jit/flags.ts';
import { generateSource } from '../jit/source.ts';

export function exportCompileCommandsCommand(): Command {
  return new Command('export-compile-commands')
    .description('writes the generated sources and compile_commands.json for editors and clangd')
    .argument('[folder]', 'where to write', 'flashinfer-sources')
    .option('--arch <arch>', 'architecture', '9.0a')
    .action((folder: string, { arch }: { arch: string }) => {
      const target = namedTarget(arch);
      const directory = resolve(folder);
      const { includeRoots, codegen } = jitConfig();
      mkdirSync(directory, { recursive: true });
      const compiler = findNvcc().path ?? 'nvcc';
      const commands = aotKernels({ arch: target }).map((spec) => {
        const file = join(directory, `${spec.name}.cu`);
        writeFileSync(file, generateSource(spec));
        const includes = includeRoots.map((root) => `-I${root}`);
        const output = `${spec.name}.cubin`;
        return {
          directory,
          file,
          output,
          arguments: [compiler, ...nvccFlags(target, codegen), ...includes, '-o', output, file],
        };
      });
      const path = join(directory, 'compile_commands.json');
      writeFileSync(path, `${JSON.stringify(commands, undefined, 1)}\n`);
      console.log(`Exported ${commands.length} compile commands to ${path}`);
    });
}
