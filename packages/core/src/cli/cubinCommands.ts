// SPDX-License-Identifier: Apache-2.0
// Kernels from a repository: what there is, downloading it beforehand, and deleting it.
import { Command, Option } from 'commander';
import { env } from '../envVars.ts';
import { AbortedError, DownloadError } from '../errors.ts';
import type { Target } from '../jit/arch.ts';
import { type JitConfig, jitConfig } from '../jit/config.ts';
import { downloadFolder, downloadManifest, downloadModule, isDownloaded } from '../jit/download/download.ts';
import { runParallel } from '../jit/jobs.ts';
import { folderContent } from '../jit/status.ts';
import { chosenTargets } from './chosenTargets.ts';
import { deleteFolders } from './deleteFolders.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { clearProgress, formatBytes, formatCount, printJson, printTable, progressLine, status } from './output.ts';

const archOption = () =>
  new Option(
    '--arch <list>',
    'architectures, e.g. 9.0a,8.0; default: FLASHINFER_CUDA_ARCH_LIST, else those of the GPUs',
  );

interface Options extends JsonOption {
  readonly arch?: string;
  readonly module?: string;
}

export function listCubinsCommand(): Command {
  return new Command('list-cubins')
    .description('lists the kernels of the repository and which of them are downloaded')
    .addOption(archOption())
    .addOption(jsonOption('[{ target, uri, downloaded, bytes }], bytes as downloaded'))
    .action(async ({ arch, json }: Options) => {
      const config = jitConfig();
      const rows: { target: Target; uri: string; downloaded: boolean; bytes: number }[] = [];
      for (const target of chosenTargets('list-cubins', arch)) {
        const manifest = await downloadManifest(config, target);
        for (const [uri, { packedBytes }] of Object.entries(manifest.modules)) {
          rows.push({ target, uri, downloaded: isDownloaded(config, manifest, uri), bytes: packedBytes });
        }
      }
      if (json) printJson(rows);
      else
        printTable(
          rows.map(({ target, uri, downloaded }) => [target, uri, status(downloaded, 'Downloaded', 'Missing')]),
        );
    });
}

/** What `download-cubin` did for one architecture. */
interface Downloaded {
  readonly target: Target;
  readonly path: string;
  /** Those that were asked for and are there now. */
  readonly modules: number;
  /** Those of them that were not there before, and what was transferred for them. */
  readonly downloaded: number;
  readonly bytes: number;
}

export function downloadCubinCommand(): Command {
  return new Command('download-cubin')
    .description('downloads the kernels of FLASHINFER_CUBINS_REPOSITORY that are not there yet')
    .addOption(archOption())
    .option('--module <uri>', 'this module alone')
    .addOption(jsonOption('[{ target, path, modules, downloaded, bytes }], one an architecture'))
    .action(async ({ arch, module, json }: Options) => {
      const config = jitConfig();
      const interrupted = new AbortController();
      // The second interruption ends the process at once.
      process.once('SIGINT', () => interrupted.abort());
      const results: Downloaded[] = [];
      for (const target of chosenTargets('download-cubin', arch)) {
        const result = await downloadTarget(config, target, module, interrupted.signal);
        results.push(result);
        if (!json && (module === undefined || result.modules > 0))
          console.log(`${target}: ${formatCount(result.modules, 'kernel')} in ${result.path}`);
      }
      if (module !== undefined && results.every(({ modules }) => modules === 0)) {
        throw new DownloadError(
          `download-cubin: module ${module} is not among the kernels for ${results.map(({ target }) => target).join(', ')}; ` +
            'expected one that the repository has; `flashinfer list-cubins` names them',
        );
      }
      if (json) printJson(results);
    });
}

async function downloadTarget(
  config: JitConfig,
  target: Target,
  module: string | undefined,
  signal: AbortSignal,
): Promise<Downloaded> {
  let [done, bytes] = [0, 0];
  let missing: string[] = [];
  try {
    const manifest = await downloadManifest(config, target, { signal });
    const uris = Object.keys(manifest.modules).filter((uri) => module === undefined || uri === module);
    missing = uris.filter((uri) => !isDownloaded(config, manifest, uri));
    const jobs = Math.min(env.cubinDownloadThreads ?? 4, Math.max(missing.length, 1));
    await runParallel(missing, jobs, signal, async (uri, stop) => {
      await downloadModule(config, uri, target, { signal: stop });
      bytes += manifest.modules[uri]!.packedBytes;
      progressLine(++done, missing.length, uri);
    });
    return { target, path: downloadFolder(config), modules: uris.length, downloaded: done, bytes };
  } catch (error) {
    clearProgress();
    if (!signal.aborted) throw error;
    throw new AbortedError(
      `download-cubin: interrupted after ${done} of ${formatCount(missing.length, 'kernel')} for ${target}; what was ` +
        'downloaded stays; run it again for the rest',
      { cause: error },
    );
  }
}

export function clearCubinCommand(): Command {
  return new Command('clear-cubin')
    .description('deletes downloaded kernels')
    .addOption(jsonOption('{ path, cubins, bytes } of what was deleted'))
    .action(({ json }: JsonOption) => {
      const path = downloadFolder(jitConfig());
      const { files, bytes } = folderContent(path);
      const cubins = files.filter((name) => name.endsWith('.cubin.br')).length;
      deleteFolders('clear-cubin', [path]);
      if (json) printJson({ path, cubins, bytes });
      else console.log(`Deleted ${formatCount(cubins, 'cubin')}, ${formatBytes(bytes)}, in ${path}`);
    });
}
