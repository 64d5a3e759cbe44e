// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { type Config, showConfig } from '../showConfig.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { formatBytes, printJson, printSection, type Row, status } from './output.ts';

export function showConfigCommand(): Command {
  return new Command('show-config')
    .description('shows versions, devices, toolkit, environment variables and caches')
    .addOption(jsonOption('what showConfig() of the library returns'))
    .action(({ json }: JsonOption) => {
      const config = showConfig();
      if (json) printJson(config);
      else printConfig(config);
    });
}

function printConfig(config: Config): void {
  const { versions, system, addon, cpu, cuda, gpus, environment, cache, cubins, modules } = config;
  printSection('Packages', [
    ['@flashinfer/core', versions.core],
    ['@flashinfer/cubin', versions.cubin ?? 'not installed'],
    ...Object.entries(versions.cubinArchs),
    ['@flashinfer/jit-cache', versions.jitCache ?? 'not installed'],
    ['versions match', status(versions.match, 'yes', 'no: add-on packages of another version are ignored')],
  ]);
  printSection('System', [
    ['Node.js', system.node],
    ['platform', `${system.platform}-${system.arch}`],
    ['addon', status(addon.loaded, addon.path ?? 'loaded', addon.error ?? 'not loaded')],
    ['cpu device', cpu ? `${cpu.isa}, ${cpu.numThreads} of ${cpu.maxThreads} threads` : 'needs the addon'],
  ]);
  printSection('CUDA', [
    ['driver', describeDriver(cuda.driver)],
    ['nvcc', describeCompiler(cuda.nvcc)],
    ['NVRTC', cuda.nvrtc ? describeCompiler(cuda.nvrtc) : 'needs the addon'],
    ['toolkit', cuda.toolkit ?? 'not found'],
  ]);
  printSection('GPUs', gpus.length > 0 ? gpus.map(gpuRow) : [['none', 'cpu is the default device']]);
  printSection('Kernel cache', [
    ['folder', cache ? describeFolder(cache) : 'unknown: a variable is not valid'],
    ['modules', cache ? `${cache.count}, ${formatBytes(cache.bytes)}` : 'unknown'],
  ]);
  printSection('Downloaded cubins', [
    ['folder', cubins?.path ?? 'unknown: a variable is not valid'],
    ['cubins', cubins ? describeCubins(cubins) : 'unknown'],
  ]);
  printSection(
    'Modules that models launch',
    modules ? moduleRows(modules) : [['unknown', 'see versions and variables']],
  );
  printSection('Environment variables', environment.map(environmentRow));
}

function describeDriver(driver: Config['cuda']['driver']): string {
  if (!driver) return 'needs the addon';
  if (driver.ok) return status(true, `${driver.library}, CUDA ${cudaVersion(driver.driverVersion ?? 0)}`, '');
  return status(false, '', `${driver.error ?? 'not found'}; looked for ${driver.searched.join(', ')}`);
}

function describeCompiler({ path, release, error, searched }: Config['cuda']['nvcc']): string {
  if (path !== undefined && release !== undefined) return status(true, `${path}, CUDA ${release}`, '');
  return status(false, '', `${error ?? 'not found'}; looked for ${searched.join(', ')}`);
}

function describeFolder({ path, writable }: NonNullable<Config['cache']>): string {
  return writable ? path : status(false, '', `${path}: cannot be written`);
}

function describeCubins({ downloaded, total }: NonNullable<Config['cubins']>): string {
  if (total === 0) return 'none are published for this version and these architectures';
  return `Downloaded ${downloaded}/${total} cubins`;
}

function moduleRows(modules: NonNullable<Config['modules']>): Row[] {
  if (modules.length === 0) return [['none', 'no GPU to count for; flashinfer module-status --arch 9.0a does']];
  return modules.map(({ target, total, compiled }) => [
    target,
    `${total} total, ${compiled} compiled, ${total - compiled} not compiled`,
  ]);
}

/** The driver's encoding: 1000 * major + 10 * minor. */
function cudaVersion(encoded: number): string {
  return `${Math.floor(encoded / 1000)}.${Math.floor((encoded % 1000) / 10)}`;
}

function environmentRow({ name, type, value, valid }: Config['environment'][number]): Row {
  return [name, value === null ? 'not set' : status(valid, value, `${value}: expected ${type}`)];
}

function gpuRow({ index, name, sm, totalMemory, multiProcessorCount }: Config['gpus'][number]): Row {
  const gib = (totalMemory / 2 ** 30).toFixed(1);
  return [`cuda:${index}`, `${name}, ${sm}, ${multiProcessorCount} multiprocessors, ${gib} GiB`];
}
