// SPDX-License-Identifier: Apache-2.0
// Runs cases one after the other and turns samples into results.
import { setTimeout as sleep } from 'node:timers/promises';
import type { AnchorRow } from './anchors.ts';
import type { BenchCase, BenchContext, DeviceCase, HostCase } from './cases/benchCase.ts';
import { type Ceilings, floorUs } from './floor.ts';
import type { TorchPeer } from './peers.ts';
import { type CaseResult, type Measurement, toMeasurement } from './report.ts';
import { timeOnCpu } from './timing/cpu.ts';
import { flushBytes, timeGraph, timeLaunches } from './timing/cuda.ts';
import { summarize } from './timing/statistics.ts';

export interface RunOptions extends BenchContext {
  readonly ceilings: Ceilings;
  readonly anchors: readonly AnchorRow[];
  readonly peer?: TorchPeer | undefined;
  /** Told what the peer could not do. */
  readonly log: (message: string) => void;
}

const ourName = 'flashinfer-js';

export async function runCase(benchCase: BenchCase, options: RunOptions): Promise<CaseResult> {
  const { name, params, anchor } = benchCase;
  const anchors = anchor === undefined ? [] : options.anchors.filter((row) => row.case === anchor);
  if (benchCase.kind === 'host') {
    return { name, params, measurements: await measureHost(benchCase, options), anchors };
  }
  const { bytes, flops } = benchCase;
  return {
    name,
    params,
    bytes,
    ...(flops && { flops }),
    floorUs: floorUs(benchCase, options.ceilings),
    measurements: await measureDevice(benchCase, options),
    anchors,
  };
}

async function measureHost(benchCase: HostCase, context: BenchContext): Promise<Measurement[]> {
  const variants = await benchCase.measure(context);
  return variants.map(({ variant, samplesUs }) => toMeasurement(ourName, variant, summarize(samplesUs), undefined));
}

/** A GPU that rested for so long is as cool as one that a short script asks for something. */
const restMs = 200;

/**
 * We and the peer take turns, so that neither owns the machine's better moments. On a GPU a turn is a burst after a rest, as
 * long as triton's do_bench takes, by which the anchors were measured: matrix products that go on for longer run at the
 * clock that power allows, up to a fifth slower, and the order of cases would count.
 */
async function measureDevice(benchCase: DeviceCase, options: RunOptions): Promise<Measurement[]> {
  const { device, quick, peer, log } = options;
  const rounds = device !== 'cpu' || (peer && benchCase.peer) ? (quick ? 1 : 3) : 1;
  const budgetMs = quick ? 30 : device === 'cpu' ? 1500 / rounds : 200;
  const minSamples = quick ? 2 : 5;
  const rotations =
    device === 'cpu' ? cpuRotations(benchCase.bytes) : cudaRotations(benchCase.bytes, flushBytes(device));
  const samples = new Map<string, { impl: string; mode: string; us: number[] }>();
  const add = (impl: string, mode: string, us: readonly number[]): void => {
    const key = `${impl} ${mode}`;
    const entry = samples.get(key) ?? { impl, mode, us: [] };
    samples.set(key, entry);
    entry.us.push(...us);
  };

  // What moves bytes alone stays below the power limit.
  const hot = device !== 'cpu' && benchCase.flops > 0 && !quick;
  const rest = async (): Promise<void> => {
    if (hot) await sleep(restMs);
  };

  const operation = await benchCase.setup(options, rotations);
  try {
    for (let round = 0; round < rounds; ++round) {
      if (device === 'cpu') {
        add(ourName, 'call', timeOnCpu(operation, rotations, budgetMs, minSamples));
      } else {
        const timing = { device, rotations, budgetMs: budgetMs / 2, minSamples };
        await rest();
        add(ourName, 'launch', timeLaunches(operation, timing));
        await rest();
        if (benchCase.capturable !== false) add(ourName, 'graph', timeGraph(operation, timing));
      }
      if (!peer || !benchCase.peer) continue;
      try {
        await rest();
        for (const { impl, samplesUs } of await peer.measure(
          benchCase.peer,
          rotations,
          device === 'cpu' ? budgetMs : budgetMs / 2,
        )) {
          add(impl, device === 'cpu' ? 'call' : 'launch', samplesUs);
        }
      } catch (error) {
        log(`${benchCase.name}: ${(error as Error).message}`);
      }
    }
  } finally {
    operation.dispose();
  }
  return [...samples.values()].map(({ impl, mode, us }) => toMeasurement(impl, mode, summarize(us), benchCase));
}

/** Enough buffer sets to be out of L2 between two uses, within reason. */
export function cudaRotations(bytes: number, outOfCache: number): number {
  return Math.min(16, Math.max(1, Math.ceil(outOfCache / bytes) + 1));
}

/** On the cpu a server's cache is cold between two tokens, as every other layer's data went through it. */
export function cpuRotations(bytes: number): number {
  const lastLevelCache = 1 << 26;
  return Math.min(8, Math.max(1, Math.ceil((2 * lastLevelCache) / bytes)));
}
