#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// flashinfer-bench: runs cases, prints a table, writes a report and a chart.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Device, defaultDevice } from '@flashinfer/core';
import { deviceIndex, deviceProperties, native, parseDevice } from '@flashinfer/core/internal';
import { Command, Option } from 'commander';
import { loadAnchors } from './anchors.ts';
import type { BenchCase } from './cases/benchCase.ts';
import { selectCases } from './cases/registry.ts';
import { measureCeilings } from './ceilings.ts';
import { TorchPeer } from './peers.ts';
import { renderHtml, renderSvg } from './plot.ts';
import {
  type CaseResult,
  describeCommand,
  describeMachine,
  describeVersions,
  type Report,
  reportSchema,
} from './report.ts';
import { runCase } from './runCases.ts';
import { renderTable } from './table.ts';
import { renderTuning } from './tuningTable.ts';

interface CliOptions {
  device?: string;
  json?: string;
  plot?: string;
  list?: boolean;
  peers?: 'torch';
  quick?: boolean;
}

const program = new Command('flashinfer-bench')
  .description('Benchmarks of @flashinfer/core against the machine’s floor, recorded anchors and live peers')
  .argument('[pattern...]', 'cases to run: part of a name, or a whole name with * for anything; default all')
  .option('--device <device>', 'cpu or cuda:N; default: the library’s default device')
  .option('--json <file>', 'write the report')
  .option('--plot <file>', 'write a chart, .svg or .html')
  .option('--list', 'list the cases of the device and stop')
  .addOption(new Option('--peers <peer>', 'measure a peer in the same run').choices(['torch']))
  .option('--quick', 'few samples: a smoke run, not a measurement')
  .action(main);

await program.parseAsync();

async function main(patterns: string[], cli: CliOptions): Promise<void> {
  const device = cli.device === undefined ? defaultDevice() : parseDevice(cli.device);
  const cases = selectCases(patterns, device === 'cpu' ? 'cpu' : 'cuda');
  if (cases.length === 0) {
    program.error(`flashinfer-bench: no case for ${device} matches ${patterns.join(' ')}; see --list`);
  }
  if (cli.list) {
    for (const { name } of cases) console.log(name);
    return;
  }
  if (cli.plot !== undefined && !/\.(svg|html)$/.test(cli.plot)) {
    program.error(`flashinfer-bench: --plot ${cli.plot}; expected a name that ends in .svg or .html`);
  }
  const report = await measure(cases, device, cli);
  printTables(report.results);
  if (cli.json !== undefined) writeText(cli.json, `${JSON.stringify(report, null, 2)}\n`);
  if (cli.plot !== undefined) writeText(cli.plot, cli.plot.endsWith('.svg') ? renderSvg(report) : renderHtml(report));
}

/** Hundreds of tiles are for the report; here is what became of them. */
function printTables(results: readonly CaseResult[]): void {
  const others = results.filter(({ params }) => params.tile === undefined);
  if (others.length > 0) console.log(renderTable(others));
  const tuning = renderTuning(results);
  if (tuning !== undefined) console.log(tuning);
}

async function measure(cases: readonly BenchCase[], device: Device, cli: CliOptions): Promise<Report> {
  const quick = cli.quick ?? false;
  const log = (message: string): void => console.error(message);
  const machine = describeMachine(device);
  if (device === 'cpu' && (machine.loadAverage ?? 0) > machine.cores / 4) {
    log(`the machine is busy (load average ${machine.loadAverage?.toFixed(1)}): only ratios of this run count, if any`);
  }
  const ceilings = measureCeilings(device, quick);
  const peer = cli.peers === 'torch' ? await startPeer(device, log) : undefined;
  const gpuName = device === 'cpu' ? '' : deviceProperties(deviceIndex(device)).name;
  const options = { device, quick, ceilings, anchors: loadAnchors(gpuName), peer, log };
  const results: CaseResult[] = [];
  try {
    for (const benchCase of cases) {
      log(benchCase.name);
      results.push(await runCase(benchCase, options));
    }
  } finally {
    peer?.stop();
  }
  return {
    schema: reportSchema,
    date: new Date().toISOString(),
    command: describeCommand(process.argv.slice(2)),
    device,
    quick,
    versions: { ...describeVersions(), ...(peer && { peer: peer.description }) },
    machine,
    ceilings,
    results,
  };
}

async function startPeer(device: Device, log: (message: string) => void): Promise<TorchPeer | undefined> {
  const threads = device === 'cpu' ? native().cpu.info().numThreads : 0;
  const peer = await TorchPeer.start(device, threads);
  if (peer instanceof TorchPeer) return peer;
  log(`--peers torch: not there, measuring without it (${peer.missing})`);
  return undefined;
}

function writeText(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
