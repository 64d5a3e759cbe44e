// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { InvalidArgumentError } from '../errors.ts';
import { knownTargets } from '../jit/arch.ts';
import type { CachedModule } from '../jit/status.ts';
import { namedTargets } from './chosenTargets.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { listModules, type Module, modulesNamed } from './modules.ts';
import { formatBytes, formatCount, printJson, printSection, printTable, type Row, status } from './output.ts';

interface Options extends JsonOption {
  readonly arch?: string;
  readonly cached?: boolean;
}

export function listModulesCommand(): Command {
  return new Command('list-modules')
    .description('lists the kernel modules that models launch and what else the cache holds, or details of one')
    .argument('[name]', 'of a module: its details; part of a name: those that have it')
    .option('--arch <list>', 'architectures, e.g. 9.0a,8.0; default: FLASHINFER_CUDA_ARCH_LIST, else all known ones')
    .option('--cached', 'those that this machine compiled')
    .addOption(
      jsonOption('[{ uri, header, entry, targets, cached: [{ target, state, compiler, seconds, bytes, path }] }]'),
    )
    .action((name: string | undefined, { arch, cached, json }: Options) => {
      const all = listModules(namedTargets(arch) ?? knownTargets());
      const named = name === undefined ? all : modulesNamed(all, name);
      const found = cached ? named.filter((module) => module.cached.length > 0) : named;
      if (name !== undefined && named.length === 0) {
        throw new InvalidArgumentError(
          'ERR_FLASHINFER_INVALID_ARGUMENT',
          `list-modules: no module has ${name} in its name; expected a module or part of its name; ` +
            '`flashinfer list-modules` names all',
        );
      }
      if (json) printJson(found);
      else if (found.length === 1 && name !== undefined) printDetails(found[0]!);
      else printList(found);
    });
}

function printList(modules: readonly Module[]): void {
  printTable(
    modules.map(({ uri, header, cached }) => [
      uri,
      header ?? '',
      cached.map(({ target, state }) => status(state === 'valid', target, `${target} ${state}`)).join(' '),
    ]),
  );
  const compiled = modules.filter(({ cached }) => cached.length > 0).length;
  console.log(`${formatCount(modules.length, 'module')}: ${compiled} in the cache`);
}

function printDetails({ uri, header, entry, targets, cached }: Module): void {
  printSection(uri, [
    ['header', header ?? 'unknown'],
    ['entry', entry ?? 'unknown'],
    ['models launch it on', targets.join(' ') || 'none of the architectures asked for'],
  ]);
  printSection('In the cache', cached.length > 0 ? cached.map(cachedRow) : [['none', 'compiled when first needed']]);
}

function cachedRow({ target, state, compiler, seconds, bytes, path }: CachedModule): Row {
  const compiled = compiler ? [`${compiler.kind} ${compiler.release}`] : [];
  const time = seconds === undefined ? [] : [`${seconds.toFixed(1)} s`];
  return [target, [status(state === 'valid', state, state), ...compiled, ...time, formatBytes(bytes), path].join(', ')];
}
