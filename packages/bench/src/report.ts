// SPDX-License-Identifier: Apache-2.0
// The JSON report: what was measured, where and how, so that a figure can be checked and repeated.
import { cpus, loadavg, platform, release, totalmem } from 'node:os';
import { basename } from 'node:path';
import { cuda, type Device, version } from '@flashinfer/core';
import { deviceIndex, deviceProperties, native } from '@flashinfer/core/internal';
import type { AnchorRow } from './anchors.ts';
import type { Ceilings } from './floor.ts';
import type { Summary } from './timing/statistics.ts';

/** Raise it when a field changes its meaning or goes. */
export const reportSchema = 1;

export interface Measurement extends Summary {
  /** `flashinfer-js`, or the peer's name. */
  readonly impl: string;
  /** How it was timed: `launch` (events, L2 flushed), `graph` (CUDA graph), `call` (host clock), or a variant's name. */
  readonly mode: string;
  readonly gbPerSecond?: number;
  readonly tflops?: number;
}

export interface CaseResult {
  readonly name: string;
  readonly params: Readonly<Record<string, string | number | boolean>>;
  readonly bytes?: number;
  readonly flops?: number;
  /** Least time on this machine, see `ceilings`. */
  readonly floorUs?: number;
  readonly measurements: readonly Measurement[];
  readonly anchors: readonly AnchorRow[];
}

export interface Machine {
  readonly os: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** Processes that wanted a core in the minute before the run: near zero, or the figures of a cpu run are not ours. */
  readonly loadAverage?: number;
  readonly cpuIsa?: string;
  readonly cpuThreads?: number;
  readonly gpu?: string;
  readonly driverVersion?: number;
  readonly clockMHz?: number;
  readonly memoryClockMHz?: number;
}

/** How the run was started, without the folders that its files went to: they say nothing elsewhere. */
export function describeCommand(argv: readonly string[]): string {
  const named = argv.map((word, i) => (['--json', '--plot'].includes(argv[i - 1] ?? '') ? basename(word) : word));
  return `flashinfer-bench ${named.join(' ')}`;
}

export interface Report {
  readonly schema: typeof reportSchema;
  readonly date: string;
  readonly command: string;
  readonly device: Device;
  readonly quick: boolean;
  readonly versions: Readonly<Record<string, string>>;
  readonly machine: Machine;
  readonly ceilings: Ceilings;
  readonly results: readonly CaseResult[];
}

/** To be taken before the run, as it says how busy the machine is without us. */
export function describeMachine(device: Device): Machine {
  const host = {
    os: `${platform()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    loadAverage: loadavg()[0] ?? 0,
  };
  if (device === 'cpu') {
    const { isa, numThreads } = native().cpu.info();
    return { ...host, cpuIsa: isa, cpuThreads: numThreads };
  }
  const properties = deviceProperties(deviceIndex(device));
  const probe = native().cuda.probe();
  return {
    ...host,
    gpu: properties.name,
    ...(probe.driverVersion && { driverVersion: probe.driverVersion }),
    clockMHz: properties.clockRateKHz / 1000,
    memoryClockMHz: properties.memoryClockRateKHz / 1000,
  };
}

export function describeVersions(): Record<string, string> {
  return { '@flashinfer/core': version, node: process.versions.node, cudaAvailable: String(cuda.isAvailable()) };
}

/** Adds the rates to a summary. */
export function toMeasurement(
  impl: string,
  mode: string,
  summary: Summary,
  work: { bytes: number; flops: number } | undefined,
): Measurement {
  return {
    impl,
    mode,
    ...summary,
    ...(work?.bytes && { gbPerSecond: work.bytes / summary.medianUs / 1e3 }),
    ...(work?.flops && { tflops: work.flops / summary.medianUs / 1e6 }),
  };
}

/** Throws, naming the field, where an object is no report of this schema. */
export function checkReport(value: unknown): asserts value is Report {
  const report = value as Partial<Report>;
  const expectField = (ok: boolean, field: string): void => {
    if (!ok) throw new TypeError(`report: ${field} is missing or has another type`);
  };
  expectField(report?.schema === reportSchema, 'schema');
  expectField(!Number.isNaN(Date.parse(report.date ?? '')), 'date');
  expectField(typeof report.command === 'string', 'command');
  expectField(typeof report.device === 'string', 'device');
  expectField(typeof report.versions?.node === 'string', 'versions.node');
  expectField(typeof report.machine?.cpu === 'string', 'machine.cpu');
  expectField(typeof report.ceilings?.bandwidth === 'number', 'ceilings.bandwidth');
  expectField(Array.isArray(report.results), 'results');
  report.results!.forEach(({ name, measurements }, n) => {
    expectField(typeof name === 'string', `results[${n}].name`);
    expectField(Array.isArray(measurements) && measurements.length > 0, `results[${n}].measurements`);
    measurements.forEach(({ impl, medianUs, p10Us, p90Us }, m) => {
      const field = `results[${n}].measurements[${m}]`;
      expectField(typeof impl === 'string' && p10Us <= medianUs && medianUs <= p90Us, field);
    });
  });
}
