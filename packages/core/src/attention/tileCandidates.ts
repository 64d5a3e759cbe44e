// SPDX-License-Identifier: Apache-2.0
// Every tile that the `tuning` benchmark tries: those whose shared memory and registers a kernel can have.
import { decodeSharedBytes } from './decodeKernel.ts';
import { hopperSharedBytes } from './hopperKernel.ts';
import type { KernelOptions } from './kernelName.ts';
import { prefillSharedBytes } from './prefillKernel.ts';
import { headDimVoOf } from './request.ts';
import type { DecodeTile, HopperTile, PrefillTile } from './tiles.ts';

/** Static shared memory of the kernels, bytes. */
const fixedShared = 64;

export function decodeCandidates(o: KernelOptions, sharedPerBlock: number): DecodeTile[] {
  const tiles = [2, 4, 8].flatMap((warps) =>
    [16, 32].flatMap((kvTile) => [2, 3, 4].map((stages) => ({ warps, kvTile, stages }))),
  );
  return tiles.filter((tile) => decodeSharedBytes(o, tile) + fixedShared <= sharedPerBlock);
}

/** Two m16 tiles a warp with values of 256 would need 256 accumulators a thread. */
export function prefillCandidates(o: KernelOptions, sharedPerBlock: number): PrefillTile[] {
  const tiles = ([1, 2] as const).flatMap((mTiles) => [16, 32, 48, 64].map((kvTile) => ({ mTiles, kvTile })));
  return tiles.filter(
    (tile) => tile.mTiles * headDimVoOf(o.headDim) <= 256 && prefillSharedBytes(o, tile) <= sharedPerBlock,
  );
}

/** Registers of a computing thread, with two and with three warpgroups of them, and what all but its arrays take. */
const registers = { 2: 240, 3: 160 } as const;
const otherRegisters = 24;

export function hopperCandidates(o: Pick<KernelOptions, 'headDim'>, sharedPerBlock: number): HopperTile[] {
  const kvTiles = [64, 80, 96, 112, 128, 144, 160, 176, 192];
  const tiles = ([2, 3] as const).flatMap((warpgroups) =>
    kvTiles.flatMap((kvTile) => [2, 3].map((stages) => ({ warpgroups, kvTile, stages }))),
  );
  return tiles.filter((tile) => {
    // Scores in float32, their weights in 16 bits, and the output.
    const arrays = tile.kvTile / 2 + tile.kvTile / 4 + headDimVoOf(o.headDim) / 2;
    return arrays + otherRegisters <= registers[tile.warpgroups] && hopperSharedBytes(o, tile) <= sharedPerBlock;
  });
}
