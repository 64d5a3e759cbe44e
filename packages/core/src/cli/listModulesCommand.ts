// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { type CachedModule, listCachedModules } from '../jit/status.ts';
import { formatBytes, printTable, status } from './output.ts';

export function listModulesCommand(): Command {
  return new Command('list-modules')
    .description('lists the compiled kernel modules in the cache')
    .argument('[name]', 'only modules whose name contains this')
    .option('--json', 'print as JSON')
    .action((name: string | undefined, { json }: { json?: boolean }) => {
      const modules = listCachedModules().filter(({ uri }) => name === undefined || uri.includes(name));
      if (json) console.log(JSON.stringify(modules, null, 2));
      else if (modules.length === 0)
        console.log(name === undefined ? 'The cache is empty.' : `No module has ${name} in its name.`);
      else printTable(modules.map(moduleRow));
    });
}

function moduleRow({ uri, target, state, compiler, seconds, bytes }: CachedModule): string[] {
  const compiled = compiler ? `${compiler.kind} ${compiler.release}` : '';
  const time = seconds === undefined ? '' : `${seconds.toFixed(1)} s`;
  return [target, uri, status(state === 'valid', state, state), compiled, time, formatBytes(bytes)];
}
