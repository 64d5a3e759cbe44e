// SPDX-License-Identifier: Apache-2.0
// Kernels from a repository: what there is, downloading it beforehand, and deleting it.
import { Command, Option } from 'commander';
import { env } from '../envVars.ts';
import type { Target } from '../jit/arch.ts';
import { jitConfig } from '../jit/config.ts';
import {
  clearDownloads,
  downloadFolder,
  downloadManifest,
  downloadModule,
  findDownloaded,
} from '../jit/download/download.ts';
import { runParallel } from '../jit/jobs.ts';
import { chosenTargets } from './chosenTargets.ts';
import { printTable, progressLine, status } from './output.ts';

const archOption = () =>
  new Option(
    '--arch <list>',
    'architectures, e.g. 9.0a,8.0; default: FLASHINFER_CUDA_ARCH_LIST, else those of the GPUs',
  );

interface Options {
  readonly arch?: string;
  readonly module?: string;
  readonly json?: boolean;
}

export function listCubinsCommand(): Command {
  return new Command('list-cubins')
    .description('lists the kernels of the repository and which of them are downloaded')
    .addOption(archOption())
    .option('--json', 'print as JSON')
    .action(async ({ arch, json }: Options) => {
      const config = jitConfig();
      const rows: { target: Target; uri: string; downloaded: boolean; bytes: number }[] = [];
      for (const target of chosenTargets('list-cubins', arch)) {
        const { modules } = await downloadManifest(config, target);
        for (const [uri, { packedBytes }] of Object.entries(modules)) {
          rows.push({ target, uri, downloaded: findDownloaded(config, uri, target) !== undefined, bytes: packedBytes });
        }
      }
      if (json) console.log(JSON.stringify(rows, null, 2));
      else
        printTable(
          rows.map(({ target, uri, downloaded }) => [target, uri, status(downloaded, 'Downloaded', 'Missing')]),
        );
    });
}

export function downloadCubinCommand(): Command {
  return new Command('download-cubin')
    .description('downloads the kernels of FLASHINFER_CUBINS_REPOSITORY that are not there yet')
    .addOption(archOption())
    .option('--module <uri>', 'this module alone')
    .action(async ({ arch, module }: Options) => {
      const config = jitConfig();
      const interrupted = new AbortController();
      process.once('SIGINT', () => interrupted.abort());
      const { signal } = interrupted;
      for (const target of chosenTargets('download-cubin', arch)) {
        const { modules } = await downloadManifest(config, target, { signal });
        const uris = Object.keys(modules).filter((uri) => module === undefined || uri === module);
        let done = 0;
        await runParallel(
          uris,
          Math.min(env.cubinDownloadThreads ?? 4, Math.max(uris.length, 1)),
          signal,
          async (uri, stop) => {
            await downloadModule(config, uri, target, { signal: stop });
            progressLine(++done, uris.length, uri);
          },
        );
        console.log(`${target}: ${uris.length} kernels are in ${downloadFolder(config)}`);
      }
    });
}

export function clearCubinCommand(): Command {
  return new Command('clear-cubin').description('deletes downloaded kernels').action(() => {
    const config = jitConfig();
    clearDownloads(config);
    console.log(`Deleted ${downloadFolder(config)}`);
  });
}
