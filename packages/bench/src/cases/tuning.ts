// SPDX-License-Identifier: Apache-2.0
// The search behind packages/core/src/attention/tiles.ts: each shape with every tile that its kernel can have, and with the
// one that is chosen. Not among the cases that run without a pattern.
import { warmup } from '@flashinfer/core';
import {
  decodeCandidates,
  hopperCandidates,
  type KernelOptions,
  prefillCandidates,
  type TriedTiles,
  tryTiles,
} from '@flashinfer/core/internal';
import { decodeCase, plannedDecode } from './batchDecode.ts';
import { type PrefillShape, plannedRagged, prefillCase } from './batchPrefill.ts';
import type { DeviceCase } from './benchCase.ts';

/** What a planned wrapper is here: kernels to compile. */
type Planned = ReturnType<typeof plannedDecode> | ReturnType<typeof plannedRagged>;

interface Search {
  /** `<template>_<shape>` */
  readonly group: string;
  readonly base: DeviceCase;
  readonly candidates: ReadonlyMap<string, TriedTiles>;
  plan(device: string): Planned;
}

/** Name of the tile that is chosen without a trial. */
export const chosenTile = 'chosen';

const h200SharedPerBlock = 232_448;

function searchCases(search: Search): DeviceCase[] {
  const { group, base, candidates } = search;
  const { anchor: _, peer: __, ...plain } = base;
  return [[chosenTile, {}] as const, ...candidates].map(([tile, tiles]) => ({
    ...plain,
    name: `tuning/${group}/${tile}`,
    params: { ...base.params, group, tile },
    async setup(context, rotations) {
      await compileAll(search, context.device);
      tryTiles(tiles);
      const operation = await base.setup(context, rotations);
      return {
        run: operation.run,
        dispose() {
          operation.dispose();
          tryTiles({});
        },
      };
    },
  }));
}

const compiled = new Set<string>();

/** The kernels of all candidates at once, before the first of them is measured. */
async function compileAll({ group, candidates, plan }: Search, device: string): Promise<void> {
  if (compiled.has(group)) return;
  compiled.add(group);
  const planned = [{}, ...candidates.values()].map((tiles) => {
    tryTiles(tiles);
    return plan(device);
  });
  tryTiles({});
  await warmup(...planned, { device });
  for (const wrapper of planned) wrapper.dispose();
}

function optionsOf(headDim: number): KernelOptions {
  return {
    qDtype: 'bfloat16',
    kvDtype: 'bfloat16',
    headDim,
    maskMode: 'none',
    posEncodingMode: 'NONE',
    windowLeft: -1,
    logitsSoftCap: 0,
  };
}

function named<T>(tiles: readonly T[], name: (tile: T) => string, tried: (tile: T) => TriedTiles) {
  return new Map(tiles.map((tile) => [name(tile), tried(tile)]));
}

function decodeSearch(batchSize: number, kvLen: number, headDim: number): Search {
  const shape = { numQoHeads: 32, numKvHeads: 8, headDim };
  const kvLens = new Array<number>(batchSize).fill(kvLen);
  return {
    group: `decode_d${headDim}_b${batchSize}_kv${kvLen}`,
    base: decodeCase(`b${batchSize}_kv${kvLen}`, kvLens, shape),
    candidates: named(
      decodeCandidates(optionsOf(headDim), h200SharedPerBlock),
      ({ warps, kvTile, stages }) => `w${warps}_t${kvTile}_s${stages}`,
      (decode) => ({ decode }),
    ),
    plan: (device) => plannedDecode(device, kvLens, shape, false),
  };
}

function prefillSearch(backend: 'fa2' | 'fa3', shape: Omit<PrefillShape, 'backend'>): Search {
  const { batchSize, length, headDim, causal } = shape;
  const candidates =
    backend === 'fa2'
      ? named(
          prefillCandidates(optionsOf(headDim), h200SharedPerBlock),
          ({ mTiles, kvTile }) => `t${mTiles * 64}x${kvTile}`,
          (prefill) => ({ prefill }),
        )
      : named(
          hopperCandidates({ headDim }, h200SharedPerBlock),
          ({ warpgroups, kvTile, stages }) => `t${warpgroups * 64}x${kvTile}_s${stages}`,
          (hopper) => ({ hopper }),
        );
  return {
    group: `${backend}_d${headDim}_b${batchSize}_l${length}_${causal ? 'causal' : 'full'}`,
    base: prefillCase({ ...shape, backend }),
    candidates,
    plan: (device) => plannedRagged(device, { ...shape, backend }, false),
  };
}

const headsOf = { 64: 32, 128: 32, 192: 32, 256: 16 } as const;
const lengths = [
  [16, 1024],
  [1, 8192],
] as const;

function prefillSearches(backend: 'fa2' | 'fa3'): Search[] {
  return ([64, 128, 192, 256] as const).flatMap((headDim) =>
    lengths.flatMap(([batchSize, length]) =>
      [true, false].map((causal) => {
        const heads = { numQoHeads: headsOf[headDim], numKvHeads: headsOf[headDim], headDim };
        const values = headDim === 192 ? { headDimVo: 128 } : {};
        return prefillSearch(backend, { batchSize, length, ...heads, ...values, causal });
      }),
    ),
  );
}

const decodeSearches = ([64, 128, 256] as const).flatMap((headDim) =>
  (
    [
      [1, 1024],
      [1, 65536],
      [16, 1024],
      [64, 1024],
      [64, 4096],
    ] as const
  ).map(([batchSize, kvLen]) => decodeSearch(batchSize, kvLen, headDim)),
);

export const tuningCases: DeviceCase[] = [
  ...prefillSearches('fa3'),
  ...prefillSearches('fa2'),
  ...decodeSearches,
].flatMap(searchCases);
