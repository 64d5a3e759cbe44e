// SPDX-License-Identifier: Apache-2.0
import { Command, InvalidArgumentError } from 'commander';
import { aotKernels } from '../aotKernels.ts';
import { jitConfig } from '../jit/config.ts';
import { moduleKey } from '../jit/key.ts';
import { kernelSources } from '../jit/sources.ts';
import { listCachedModules } from '../jit/status.ts';
import { chosenTargets } from './chosenTargets.ts';
import { printTable, status } from './output.ts';

/** Where a kernel that models launch would come from. */
interface ModuleRow {
  readonly target: string;
  readonly uri: string;
  readonly origin: 'cache' | 'jit-cache' | 'cubin' | null;
}

interface Options {
  readonly arch?: string;
  readonly filter: 'all' | 'compiled' | 'not-compiled';
  readonly detailed?: boolean;
  readonly json?: boolean;
}

export function moduleStatusCommand(): Command {
  return new Command('module-status')
    .description('says which of the kernels that models launch are compiled, and where they are')
    .option('--arch <arch>', 'architectures, e.g. "8.0 9.0a"; default: FLASHINFER_CUDA_ARCH_LIST, or those of the GPUs')
    .option('--filter <which>', 'all, compiled or not-compiled', readFilter, 'all')
    .option('--detailed', 'one line a module')
    .option('--json', 'print as JSON')
    .action(({ arch, filter, detailed, json }: Options) => {
      const rows = moduleRows(arch).filter(
        ({ origin }) => filter === 'all' || (filter === 'compiled') === (origin !== null),
      );
      if (json) console.log(JSON.stringify(rows, null, 2));
      else {
        if (detailed) {
          printTable(
            rows.map(({ target, uri, origin }) => [target, uri, status(origin !== null, origin ?? '', 'not compiled')]),
          );
        }
        const compiled = rows.filter(({ origin }) => origin !== null).length;
        console.log(`${rows.length} modules: ${compiled} compiled, ${rows.length - compiled} not compiled`);
      }
    });
}

function readFilter(value: string): string {
  if (['all', 'compiled', 'not-compiled'].includes(value)) return value;
  throw new InvalidArgumentError('expected all, compiled or not-compiled');
}

function moduleRows(arch: string | undefined): ModuleRow[] {
  const config = jitConfig();
  const sources = kernelSources(config);
  const cached = new Set(
    listCachedModules().flatMap(({ state, target, uri }) => (state === 'valid' ? [`${target} ${uri}`] : [])),
  );
  return chosenTargets('module-status', arch).flatMap((target) =>
    aotKernels({ arch: target }).map((spec) => {
      const { uri } = moduleKey(spec, config);
      const nameFor = (libraryVersion: string) => moduleKey(spec, { ...config, libraryVersion }).uri;
      const source = sources.find((each) => each.find(nameFor, target) !== undefined);
      return { target, uri, origin: cached.has(`${target} ${uri}`) ? 'cache' : (source?.name ?? null) };
    }),
  );
}
