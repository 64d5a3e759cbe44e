// SPDX-License-Identifier: Apache-2.0
import { Command, Option } from 'commander';
import { moduleStatus } from '../moduleStatus.ts';
import { chosenTargets } from './chosenTargets.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { formatCount, printJson, printTable, status } from './output.ts';

interface Options extends JsonOption {
  readonly arch?: string;
  readonly filter: 'all' | 'compiled' | 'not-compiled';
  readonly detailed?: boolean;
}

export function moduleStatusCommand(): Command {
  return new Command('module-status')
    .description('says which of the kernels that models launch are compiled, and where they are')
    .option('--arch <list>', 'architectures, e.g. 9.0a,8.0; default: FLASHINFER_CUDA_ARCH_LIST, else those of the GPUs')
    .addOption(
      new Option('--filter <which>', 'which modules').choices(['all', 'compiled', 'not-compiled']).default('all'),
    )
    .option('--detailed', 'one line a module')
    .addOption(jsonOption('[{ target, uri, origin }], origin cache, jit-cache, cubin or null'))
    .action(({ arch, filter, detailed, json }: Options) => {
      const modules = moduleStatus(chosenTargets('module-status', arch));
      const rows = modules.filter(({ origin }) => filter === 'all' || (filter === 'compiled') === (origin !== null));
      if (json) {
        printJson(rows);
        return;
      }
      if (detailed) {
        printTable(
          rows.map(({ target, uri, origin }) => [target, uri, status(origin !== null, origin ?? '', 'not compiled')]),
        );
      }
      // Of all, also where only some are shown.
      const compiled = modules.filter(({ origin }) => origin !== null).length;
      console.log(
        `${formatCount(modules.length, 'module')}: ${compiled} compiled, ${modules.length - compiled} not compiled`,
      );
    });
}
